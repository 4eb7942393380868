"""Arrays in ``.npz``, ``.npy`` and ``.pt`` files. Nothing is ever unpickled, and what is wrong is a ``ValueError``."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Gives memory of a shape and a type.
Make = Callable[[tuple[int, ...], torch.dtype], Tensor]

#: Names of arrays in an ``.npz`` or ``.pt``.
PROBABILITY_KEYS = ("probs", "probabilities", "softmax")
LABEL_KEYS = ("labels", "label", "seg", "segmentation")
MEMBER = ".npy"
#: Bytes that are read at a time.
PIECE = 1 << 20


def read_array(path: Path, keys: Sequence[str]) -> tuple[np.ndarray, str]:
    """Read one array, and the name that it has in its file.

    Args:
        path: ``.npz``, ``.npy``, or a ``.pt`` that holds a tensor or a dict of tensors.
        keys: names under which the array may lie.

    Returns:
        The array, and its name, "" in a file that knows no names.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        key = choose(members(path), keys)
        return read_member(path, key), key
    if suffix == ".npy":
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False), ""
    return _read_torch(path, keys)


def map_array(path: Path, keys: Sequence[str], make: Make) -> tuple[np.ndarray, str]:
    """As ``read_array``, but the array may be larger than memory.

    Args:
        path: ``.npy``, which stays where it is, or ``.npz``, of which the array is unpacked; ``.pt`` is read.
        keys: names under which the array may lie.
        make: gives memory of a shape and a type.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.lib.format.open_memmap(path, mode="r"), ""
    if suffix != ".npz":
        return read_array(path, keys)
    key = choose(members(path), keys)
    member = open_member(path, key)
    if not ((member.by_rows or member.is_reversed) and is_native(member.dtype)):
        return read_member(path, key), key
    if math.prod(member.shape) * member.dtype.itemsize > member.size:
        raise ValueError(f"its header speaks of an array of shape {member.shape}, for which it has too few bytes")
    shape = member.shape[::-1] if member.is_reversed else member.shape
    array = make(shape, as_torch(member.dtype)).numpy()
    member.read_into(array)
    return array.T if member.is_reversed else array, key


def keys_in(path: Path) -> list[str]:
    """Names of the arrays in a file; none where it holds one alone.

    Args:
        path: ``.npz``, ``.npy``, or ``.pt``, which is read.
    """
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return members(path)
    found = load_torch(path) if suffix == ".pt" else None
    return list(found) if isinstance(found, dict) else []


def is_native(dtype: np.dtype) -> bool:
    """Whether torch takes it as it is: in the byte order of this machine, floats of at most 64 bits."""
    return dtype.isnative and dtype.kind == "f" and dtype.itemsize <= 8


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor of an array that may be read only: nobody is to write to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def as_torch(dtype: np.dtype) -> torch.dtype:
    """The type of torch for one of NumPy."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def native(array: np.ndarray, make: Make) -> np.ndarray:
    """As ``to_native``, of a floating point array that may be larger than memory; without a copy if it can be.

    One whose first axis varies fastest, as in Fortran, is copied: what decides would hold all of its copy in memory.
    """
    if is_native(array.dtype) and array.flags.c_contiguous:
        return array
    made = make(array.shape, as_torch(to_native(array[:0]).dtype))
    for row, values in zip(made.numpy(), array, strict=True):
        np.copyto(row, values, casting="same_kind")
    return made.numpy()


def members(path: Path) -> list[str]:
    """Names of the arrays of an ``.npz``."""
    with _archive(path) as archive:
        return [name.removesuffix(MEMBER) for name in archive.namelist() if name.endswith(MEMBER)]


def read_member(path: Path, key: str) -> np.ndarray:
    """The array of this name in an ``.npz``."""
    with _archive(path) as archive, archive.open(key + MEMBER) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


class Member(NamedTuple):
    """An array in an ``.npz`` that was opened, not read.

    Args:
        stream: of the member.
        start: where its values begin.
        shape: of the array.
        dtype: of its values.
        by_rows: whether what belongs to one index of the first axis lies together.
        is_reversed: whether it lies as its transpose does by rows.
        size: bytes of all of it, as the archive has it.
    """

    stream: IO[bytes]
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype
    by_rows: bool
    is_reversed: bool
    size: int

    def read_into(self, values: np.ndarray, first: int = 0) -> None:
        """Read as many bytes as ``values`` takes, from the byte ``first`` of the values on, and never all at once."""
        memory = values.reshape(-1).view(np.uint8).data
        self.stream.seek(self.start + first)
        done = 0
        while done < len(memory):
            read = self.stream.readinto(memory[done : done + PIECE])  # type: ignore[attr-defined]  # not in the stubs
            if not read:
                raise EOFError("it ends before its last image")
            done += read


def open_member(path: Path, key: str) -> Member:
    """Open the array of this name in an ``.npz`` without reading it."""
    archive = _archive(path)
    stream = archive.open(key + MEMBER)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    size = archive.getinfo(key + MEMBER).file_size
    if shape and shape[0] > size:
        raise ValueError(f"its header speaks of {shape[0]} images, more than it has bytes")
    plain = bool(shape) and not dtype.hasobject
    return Member(stream, stream.tell(), shape, dtype, plain and not fortran, plain and fortran, size)


def choose(names: Sequence[str], keys: Sequence[str]) -> str:
    """The one of ``names`` that is meant: one of ``keys``, or the only one if its name says nothing else."""
    known = [key for key in keys if key in names]
    if len(known) > 1:
        raise ValueError(f"holds both {known[0]} and {known[1]}: which one is meant?")
    if known:
        return known[0]
    if len(names) == 1 and names[0] not in PROBABILITY_KEYS + LABEL_KEYS:
        return names[0]
    raise ValueError(f"must hold an array called {' or '.join(keys)}, got {', '.join(names) or 'none'}")


def to_words(array: np.ndarray) -> list[str]:
    """Words as NumPy holds them, also those of bytes."""
    return [word.decode() if isinstance(word, bytes) else str(word) for word in array.ravel().tolist()]


def to_native(array: np.ndarray) -> np.ndarray:
    """The same numbers in a type that torch takes: in the byte order of this machine, floats of at most 64 bits."""
    dtype = array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, np.float64 if dtype.kind == "f" and dtype.itemsize > 8 else dtype)


def _archive(path: Path) -> zipfile.ZipFile:
    if not zipfile.is_zipfile(path):
        with path.open("rb"):  # what is wrong may be that it is not there
            raise ValueError("no complete .npz archive; was it cut off while being written or copied?")
    return zipfile.ZipFile(path)


def load_torch(path: Path) -> object:
    """What a ``.pt`` file holds; the keys of a dict are words."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or malicious file raises is not documented
        if isinstance(error, OSError):
            raise
        raise ValueError("no tensor that torch.load reads with weights_only=True") from error
    return {str(name): value for name, value in found.items()} if isinstance(found, dict) else found


def _read_torch(path: Path, keys: Sequence[str]) -> tuple[np.ndarray, str]:
    found, key = load_torch(path), ""
    if isinstance(found, dict):
        key = choose(list(found), keys)
        found = found[key]
    if not isinstance(found, Tensor):
        raise ValueError(f"must hold a tensor, got {type(found).__name__}")
    # NumPy knows neither bfloat16 nor the floats of 8 bits.
    small = found.is_floating_point() and found.dtype not in (torch.float16, torch.float32, torch.float64)
    return (found.float() if small else found).detach().numpy(), key
