"""The steps of a decision in two kernel languages: numba on a CPU, Triton on an NVIDIA GPU."""

import sys
from functools import cache

from rankseg_plugins._warning import warn

#: Kernels for a GPU were compared with those for a CPU under this version of Triton and later ones.
OLDEST_TRITON = (3, 4)


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


@cache
def has_triton() -> bool:
    """Whether the kernels for a GPU can be had; says so once if Triton is too old for them."""
    try:
        import triton
    except ImportError:  # not on every system; the graph decides
        return False
    if tuple(map(int, triton.__version__.split(".")[:2])) >= OLDEST_TRITON:
        return True
    oldest = ".".join(map(str, OLDEST_TRITON))
    warn(
        f"Triton {triton.__version__} is older than {oldest}: decisions on a GPU are the same without it, but take "
        "more memory and many times as long"
    )
    return False
