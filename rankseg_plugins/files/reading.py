"""Probabilities and labels in files of the usual formats. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.files.errors import InputError, blaming, place_in
from rankseg_plugins.files.formats import nifti
from rankseg_plugins.files.formats.arrays import (
    LABEL_KEYS,
    PROBABILITY_KEYS,
    Make,
    Member,
    as_tensor,
    as_torch,
    choose,
    is_native,
    members,
    native,
    open_member,
    read_array,
    read_member,
    to_native,
    to_words,
)
from rankseg_plugins.files.formats.nifti import STORED, check_turn, read_nifti, turn, turn_axes
from rankseg_plugins.files.formats.nnunet import NNUNET_KEYS
from rankseg_plugins.files.formats.png import read_png

PROBABILITY_SUFFIXES = (".npz", ".npy", ".pt")
LABEL_SUFFIXES = (".png", ".nii.gz", ".nii", ".npz", ".npy", ".pt")
STACK_SUFFIXES = (".npz", ".npy")


class Axes(NamedTuple):
    """How the axes of an array of probabilities lie to those of a NIfTI file of the same volume.

    Args:
        reverse: whether they are (z, y, x), as nnU-Net's, not (x, y, z).
        orientation: to which sides x, y and z grow, such as "RAS"; "stored" as the file has it; None if nothing tells.
    """

    reverse: bool = False
    orientation: str | None = None


def read_probs(path: Path) -> tuple[Tensor, bool]:
    """Read the probabilities of one image.

    Args:
        path: ``.npz`` (also nnU-Net's), ``.npy`` or ``.pt``.

    Returns:
        (C, *spatial), and whether its axes are nnU-Net's: (z, y, x).

    Raises:
        InputError: if the file is damaged or holds no such array.
    """
    with blaming(path):
        array, key = read_array(path, PROBABILITY_KEYS)
        return _check_probs(path, array), key in NNUNET_KEYS


def read_labels(path: Path, axes: Axes = Axes()) -> Tensor:  # noqa: B008 (a tuple)
    """Read the labels of one image.

    Args:
        path: PNG (index or grey), NIfTI, ``.npy``, ``.npz`` or ``.pt``.
        axes: of the probabilities; NIfTI volumes are turned to fit.

    Returns:
        (*spatial) int64, or bool masks.

    Raises:
        InputError: if the file is damaged, does not hold whole numbers in one channel, or is a volume that may lie in
            either of two ways.
    """
    name = path.name.lower()
    with blaming(path):
        if name.endswith(".png"):
            array = read_png(path)
        elif name.endswith((".nii", ".nii.gz")):
            array = _read_volume(path, axes)
        else:
            array, _ = read_array(path, LABEL_KEYS)
        return _check_labels(path, array)


def read_spacing(path: Path, axes: Axes = Axes()) -> tuple[float, ...] | None:  # noqa: B008 (a tuple)
    """Size of a pixel of labels along every axis in mm, in the order of ``read_labels``; None if nothing tells.

    Args:
        path: NIfTI; other formats do not tell.
        axes: as for ``read_labels``.

    Raises:
        InputError: if the file is damaged.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    with blaming(path):
        spacing, stored = nifti.read_spacing(path)
        if spacing is not None and stored is not None and axes.orientation not in (None, STORED):
            spacing = turn_axes(spacing, stored, axes.orientation)
        return spacing[::-1] if spacing is not None and axes.reverse else spacing


class Stack:
    """The images of one large ``.npz`` or ``.npy``, read one at a time; the file is never in memory as a whole.

    Args:
        path: the file.
        keys: names under which the array may lie in an ``.npz``.

    Raises:
        InputError: if the file is damaged, is of another format, or holds no such array.
    """

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self.path = path
        self.key = ""
        self._member = None
        if path.suffix.lower() not in STACK_SUFFIXES:
            raise InputError(path, f"one file of all images must be {' or '.join(STACK_SUFFIXES)}")
        with blaming(path):
            if path.suffix.lower() == ".npy":
                self._array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
            else:
                self.key = choose(members(path), keys)
                self._member = open_member(path, self.key)
                if not self._member.by_rows:
                    self._array, self._member = read_member(path, self.key), None
            self.shape = self._array.shape if self._member is None else self._member.shape
            if len(self.shape) < 2 or not len(self):
                raise InputError(path, f"must hold images along the first axis, got the shape {self.shape}")

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, index: int) -> np.ndarray:
        """One image. Reading in order is fast; going back in a compressed file reads it from its beginning."""
        if self._member is None:
            return np.array(self._array[index])
        return self._read_row(self._member, index, np.empty(self.shape[1:], self._member.dtype))

    def map(self, index: int, make: Make) -> np.ndarray:
        """As ``read``, of an image that may be larger than memory; see ``map_array``."""
        member = self._member
        if member is None:
            found: np.ndarray = self._array[index]
            return found
        if not is_native(member.dtype):
            return self.read(index)
        return self._read_row(member, index, make(self.shape[1:], as_torch(member.dtype)).numpy())

    def _read_row(self, member: Member, index: int, into: np.ndarray) -> np.ndarray:
        member.read_into(into, index * into.nbytes)
        return into

    def probs(self, index: int, name: object = None) -> Tensor:
        """Probabilities (C, *spatial) of one image; errors call it ``name``, or by its number."""
        place = place_in(self.path, index if name is None else name)
        with blaming(place):
            return _check_probs(place, self.read(index))

    def labels(self, index: int, name: object = None) -> Tensor:
        """Labels (*spatial) of one image; errors call it ``name``, or by its number."""
        place = place_in(self.path, index if name is None else name)
        with blaming(place):
            return _check_labels(place, self.read(index))


def read_words(path: Path, key: str) -> list[str] | None:
    """A list of words that lies beside the arrays of an ``.npz``, or None."""
    if path.suffix.lower() != ".npz":
        return None
    with blaming(path):
        return to_words(read_member(path, key)) if key in members(path) else None


def _read_volume(path: Path, axes: Axes) -> np.ndarray:
    volume = read_nifti(path)
    check_turn(path, volume.orientation, axes.orientation)
    array = volume.array if axes.orientation in (None, STORED) else turn(volume, axes.orientation)
    if not axes.reverse:
        return array
    return array.transpose(0, 3, 2, 1) if array.ndim == 4 else array.T


def map_probs(place: object, read: Callable[[], tuple[np.ndarray, str]], make: Make) -> tuple[Tensor, bool]:
    """Probabilities of one image that may be larger than memory; nobody is to write to them.

    Args:
        place: what errors call it.
        read: gives the array and its name, see ``rankseg_plugins.files.formats.arrays.map_array``.
        make: gives memory of a shape and a type.

    Returns:
        As ``read_probs``.

    Raises:
        InputError: likewise.
    """
    with blaming(place):
        array, key = read()
        check_array(place, array)
        return as_tensor(native(array, make)), key in NNUNET_KEYS


def _check_probs(place: object, array: np.ndarray) -> Tensor:
    check_array(place, array)
    return torch.from_numpy(to_native(array))


def check_array(place: object, array: np.ndarray) -> None:
    """Refuse what are no probabilities (C, *spatial).

    Raises:
        InputError: for another type or number of dimensions.
    """
    if array.dtype.kind != "f":
        hint = ": divide by what they were scaled with" if array.dtype.kind in "iu" else ""
        raise InputError(place, f"probabilities must be floating point, got {array.dtype}{hint}")
    if array.ndim < 2:
        raise InputError(place, f"probabilities must have shape (C, *spatial), got {array.shape}")


def _check_labels(place: object, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise InputError(place, f"labels must be whole numbers, got {array.dtype}")
    if not np.can_cast(array.dtype, np.int64):
        with np.errstate(all="ignore"):
            whole = (np.round(array) == array) & (np.abs(array) < 2.0**63)
        if not whole.all():
            raise InputError(place, f"labels must be whole numbers below 2^63, got {array[~whole][0]}")
    return torch.from_numpy(np.ascontiguousarray(array, bool if array.dtype.kind == "b" else np.int64))
