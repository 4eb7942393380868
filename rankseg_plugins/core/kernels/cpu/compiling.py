"""How kernels are compiled: once, kept on disk, and without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit


#: A quotient by 0 is infinite or NaN: to raise an error instead, numbers would be divided one by one.
_OPTIONS = {"nogil": True, "error_model": "numpy"}


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    try:
        return njit(cache=True, **_OPTIONS, **options)(function)
    except RuntimeError:  # no folder, neither beside this file nor of the user, that can be written to
        return njit(**_OPTIONS, **options)(function)


#: Sums may be added up in any order, so that many numbers are worked on at once; the order is that of the compiled
#: code, the same in every run.
fast = partial(_compiled, fastmath={"reassoc", "nsz", "contract"})
#: Every operation as it is written.
exact = partial(_compiled, fastmath={"contract"})
