"""The steps of a decision in two kernel languages: numba on a CPU, Triton on an NVIDIA GPU."""

import sys
from functools import cache

from rankseg_plugins._warning import warn


@cache
def has_numba() -> bool:
    """Whether the kernels for a CPU can be had; says so once if not."""
    try:
        import numba  # noqa: F401
    except ImportError as error:
        warn(
            f"numba cannot be imported ({error}): decisions on a CPU are the same without it, but take more memory and "
            "several times as long"
        )
        return False
    return True


def uses_numba() -> bool:
    """Whether the kernels for a CPU are at hand, for what is not worth the time in which numba is imported."""
    return sys.modules.get("numba") is not None and has_numba()
