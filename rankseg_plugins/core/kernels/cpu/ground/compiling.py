"""How kernels are compiled: once, kept on disk, and without the interpreter's lock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

try:
    from numba import njit
    from numba.core.caching import FunctionCache, IndexDataCacheFile
except ImportError:  # what needs nothing else of numba runs as it is written
    njit, FunctionCache, IndexDataCacheFile = None, object, object

#: A quotient by 0 is infinite or NaN: to raise an error instead, numbers would be divided one by one. All memory is
#: handed to a kernel: to count who holds it would be most of the code.
_OPTIONS = {"nogil": True, "error_model": "numpy", "_nrt": False}
#: Changes with any file of these kernels.
_STAMP = tuple(
    (str(file), file.stat().st_mtime, file.stat().st_size) for file in sorted(Path(__file__).parents[1].rglob("*.py"))
)


class _Files(IndexDataCacheFile):
    """What numba compiled of a function, a file for each signature.

    numba numbers them: of two processes that compile at once for different types, one would run the other's code.
    """

    def save(self, key: Any, data: Any) -> None:
        name = self._data_name(int(hashlib.sha256(repr(key).encode()).hexdigest()[:12], 16))
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


class _Kept(FunctionCache):
    """What numba compiled, on disk."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        # numba compiles anew where the file of a function has changed, not those of the functions that it calls.
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, _STAMP)

    def load_overload(self, signature: Any, context: Any) -> Any:
        # numba would first import all that it can compile, which takes longer than to load what is compiled.
        with self._guard_against_spurious_io_errors():
            try:
                return self._load_overload(signature, context)
            except (AttributeError, ImportError):  # of another version of this package, with other types
                self.flush()
        return None


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    if njit is None:
        return function
    found = njit(**_OPTIONS, **options)(function)
    # Where neither a folder beside this file nor one of the user can be written to, nothing is kept.
    with suppress(RuntimeError):
        found._cache = _Kept(function)
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
#: Likewise, and no two operations are one: the digits are those of PyTorch.
as_written: Any = partial(_compiled, fastmath=False, **_INNER)
#: Likewise, compiled as a part of what calls it: an array is returned by no other function.
inline: Any = partial(_compiled, inline="always")
