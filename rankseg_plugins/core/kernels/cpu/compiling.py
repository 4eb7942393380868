"""How kernels are compiled: once, kept on disk, and without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

try:
    from numba import njit
except ImportError:  # what needs nothing else of numba runs as it is written
    njit = None

#: A quotient by 0 is infinite or NaN: to raise an error instead, numbers would be divided one by one.
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}
#: Changes with any file beside this one.
_STAMP = tuple(
    (file.name, file.stat().st_mtime, file.stat().st_size) for file in sorted(Path(__file__).parent.glob("*.py"))
)


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    if njit is None:
        return function
    try:
        found = njit(cache=True, **_OPTIONS, **options)(function)
    except RuntimeError:  # no folder, neither beside this file nor of the user, that can be written to
        return njit(**_OPTIONS, **options)(function)
    # numba compiles anew where the file of a function has changed, not those of the functions that it calls.
    kept: Any = getattr(getattr(found, "_cache", None), "_cache_file", None)
    if hasattr(kept, "_source_stamp"):
        kept._source_stamp = _STAMP
    return found


#: Sums may be added up in any order, so that many numbers are worked on at once; the order is that of the compiled
#: code, the same in every run.
_ANY_ORDER = {"reassoc", "nsz", "contract"}
#: What Python calls.
kernel: Any = partial(_compiled, fastmath=_ANY_ORDER, no_cfunc_wrapper=True)
#: What kernels call.
_INNER: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
fast: Any = partial(_compiled, fastmath=_ANY_ORDER, **_INNER)
#: Likewise, every operation as it is written.
exact: Any = partial(_compiled, fastmath={"contract"}, **_INNER)
#: Likewise, compiled as a part of what calls it: an array is returned by no other function.
inline: Any = partial(_compiled, inline="always")
