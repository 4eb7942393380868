"""Probabilities and labels in files of the usual formats. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins._imports import require

PROBABILITY_SUFFIXES = (".npz", ".npy", ".pt")
LABEL_SUFFIXES = (".png", ".nii.gz", ".nii", ".npz", ".npy", ".pt")
#: Names of arrays in an ``.npz`` or ``.pt``.
PROBABILITY_KEYS = ("probs", "probabilities", "softmax")
LABEL_KEYS = ("labels", "label", "seg", "segmentation")
#: nnU-Net's names, today's and that of its first version. Its axes are (z, y, x), those of NIfTI (x, y, z).
NNUNET_KEYS = ("probabilities", "softmax")


class InputError(ValueError):
    """A file that cannot be used; the message is one line that begins with its path."""

    def __init__(self, path: object, problem: object) -> None:
        super().__init__(" ".join(f"{path}: {problem}".split()))


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes its reader raise into an :class:`InputError` that names it."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as e:
        raise InputError(path, f"cannot be read: {e.strerror if isinstance(e, OSError) and e.strerror else e}") from e


def read_probs(path: Path) -> tuple[Tensor, bool]:
    r"""Read the probabilities of one image.

    Args:
        path: ``.npz`` (also nnU-Net's), ``.npy`` or ``.pt``.

    Returns:
        (C, \*spatial), and whether its axes are nnU-Net's: (z, y, x).

    Raises:
        InputError: if the file is damaged or holds no such array.
    """
    with blaming(path):
        array, key = _read_array(path, PROBABILITY_KEYS)
    return _check_probs(path, array), key in NNUNET_KEYS


def read_labels(path: Path, reverse: bool = False) -> Tensor:
    r"""Read the labels of one image.

    Args:
        path: PNG (index or grey), NIfTI, ``.npy``, ``.npz`` or ``.pt``.
        reverse: whether NIfTI volumes (x, y, z) are turned to (z, y, x).

    Returns:
        (\*spatial) int64, or bool masks.

    Raises:
        InputError: if the file is damaged, or does not hold whole numbers in one channel.
    """
    name = path.name.lower()
    with blaming(path):
        if name.endswith(".png"):
            array = _read_png(path)
        elif name.endswith((".nii", ".nii.gz")):
            array = _read_nifti(path)
            array = array.T if reverse else array
        else:
            array = _read_array(path, LABEL_KEYS)[0]
    return _check_labels(path, array)


class Stack:
    """The images of one large ``.npz`` or ``.npy``, read one at a time; the file is never in memory as a whole.

    Args:
        path: the file.
        keys: names under which the array may lie in an ``.npz``.

    Raises:
        InputError: if the file is damaged or holds no such array.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path = path
        self._stream: IO[bytes] | None = None
        with blaming(path):
            if path.suffix.lower() == ".npy":
                self._array = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                self._open(path, keys)

    def _open(self, path: Path, keys: Sequence[str]) -> None:
        archive = _archive(path)
        key = _choose(archive.namelist(), keys)
        stream = archive.open(f"{key}.npy")
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        if fortran or dtype.hasobject or not shape:
            self._array = np.load(path, allow_pickle=False)[key]
            return
        self._stream, self._start, self._shape, self._dtype = stream, stream.tell(), shape, dtype
        self._bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize

    def __len__(self) -> int:
        return len(self._array) if self._stream is None else self._shape[0]

    def read(self, index: int) -> np.ndarray:
        """One image. Reading in order is fast; going back in a compressed file reads it from its beginning."""
        with blaming(self.path):
            if self._stream is None:
                return np.array(self._array[index])
            self._stream.seek(self._start + index * self._bytes)
            data = self._stream.read(self._bytes)
            if len(data) < self._bytes:
                raise EOFError("it ends before its last image")
            return np.frombuffer(bytearray(data), self._dtype).reshape(self._shape[1:])

    def probs(self, index: int) -> Tensor:
        r"""Probabilities (C, \*spatial) of one image."""
        return _check_probs(self.path, self.read(index))

    def labels(self, index: int) -> Tensor:
        r"""Labels (\*spatial) of one image."""
        return _check_labels(self.path, self.read(index))


def read_words(path: Path, key: str) -> list[str] | None:
    """A list of words that lies beside the arrays of an ``.npz``, or None."""
    if path.suffix.lower() != ".npz":
        return None
    with blaming(path), _archive(path) as archive:
        if f"{key}.npy" not in archive.namelist():
            return None
        return [str(word) for word in np.load(path, allow_pickle=False)[key].ravel()]


def _archive(path: Path) -> zipfile.ZipFile:
    if not zipfile.is_zipfile(path):
        raise ValueError("no complete .npz archive; was it cut off while being written or copied?")
    return zipfile.ZipFile(path)


def _choose(members: Sequence[str], keys: Sequence[str]) -> str:
    names = [name.removesuffix(".npy") for name in members]
    known = [key for key in keys if key in names]
    if known:
        return known[0]
    if len(names) == 1 and names[0] not in PROBABILITY_KEYS + LABEL_KEYS:
        return names[0]
    raise ValueError(f"must hold an array called {' or '.join(keys)}, got {', '.join(names) or 'none'}")


def _read_array(path: Path, keys: Sequence[str]) -> tuple[np.ndarray, str]:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with _archive(path) as archive:
            key = _choose(archive.namelist(), keys)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[key], key
    if suffix == ".npy":
        return np.load(path, allow_pickle=False), ""
    return _read_torch(path, keys), ""


def _read_torch(path: Path, keys: Sequence[str]) -> np.ndarray:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged or malicious file raises is not documented
        if isinstance(error, OSError):
            raise
        raise ValueError("no tensor that torch.load reads with weights_only=True") from error
    if isinstance(found, dict):
        found = found[_choose([str(key) for key in found], keys)]
    if not isinstance(found, Tensor):
        raise ValueError(f"must hold a tensor, got {type(found).__name__}")
    return (found.float() if found.dtype == torch.bfloat16 else found).detach().numpy()


def _read_png(path: Path) -> np.ndarray:
    with require("PIL.Image", extra="report").open(path) as picture:
        if len(picture.getbands()) != 1:
            raise ValueError(f"labels must be a picture of one channel (index or grey), got mode {picture.mode}")
        array = np.asarray(picture)
    return array.astype(np.uint8) if array.dtype == bool else array


def _read_nifti(path: Path) -> np.ndarray:
    nibabel = require("nibabel", extra="report")
    try:
        return np.asanyarray(nibabel.load(path).dataobj)
    except nibabel.filebasedimages.ImageFileError as error:
        raise ValueError(error) from error


def _check_probs(path: Path, array: np.ndarray) -> Tensor:
    if array.dtype.kind != "f":
        raise InputError(path, f"probabilities must be floating point, got {array.dtype}")
    if array.ndim < 2:
        raise InputError(path, f"probabilities must have shape (C, *spatial), got {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(array))


def _check_labels(path: Path, array: np.ndarray) -> Tensor:
    if array.dtype == bool:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(invalid="ignore"):
        if array.dtype.kind not in "iuf" or (array.dtype.kind == "f" and not (array == np.round(array)).all()):
            raise InputError(path, f"labels must be whole numbers, got {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array).astype(np.int64))
