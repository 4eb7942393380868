"""Labels in NIfTI files, and how their axes lie in the patient."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.files.errors import InputError

#: An orientation says for each of the axes x, y, z to which side of the patient its index grows.
RAS = "RAS"
#: Not a side: as the file of the labels has it, whatever that is.
STORED = "stored"
#: Of the units of a header: none, for which everybody takes millimetres, metres, millimetres, micrometres.
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


class Volume(NamedTuple):
    """What a NIfTI file holds.

    Args:
        array: (x, y, z), a mask for each class (C, x, y, z), or a plain picture (x, y).
        orientation: three letters such as "LPS"; None for plain pictures.
    """

    array: np.ndarray
    orientation: str | None


def check_orientation(name: str, orientation: str | None) -> None:
    """Raise a ``ValueError`` unless ``orientation`` is None, "stored", or one letter of each pair of sides.

    Example:
        >>> check_orientation("--orientation", "LPX")
        Traceback (most recent call last):
            ...
        ValueError: --orientation must be 'stored' or three letters such as RAS or LPS, got 'LPX'
    """
    if orientation in (None, STORED):
        return
    if sorted(str(orientation).translate(str.maketrans("LPI", "RAS"))) != sorted(RAS):
        raise ValueError(f"{name} must be 'stored' or three letters such as RAS or LPS, got {orientation!r}")


def read_nifti(path: Path) -> Volume:
    """Read a volume, or a plain picture.

    Raises:
        ValueError: if it has more axes than a mask for each class has, or a header that gives no orientation.
    """
    image = require("nibabel", extra="report").load(path)
    array = np.asanyarray(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3, 4):
        raise ValueError(f"labels must have the axes x, y, z, and perhaps one of classes, got the shape {array.shape}")
    array = np.moveaxis(array, -1, 0) if array.ndim == 4 else array
    return Volume(array, None if array.ndim == 2 else _orientation(image.affine))


def read_orientation(path: Path) -> str | None:
    """Orientation of a volume, from its header alone; None for a plain picture."""
    image = require("nibabel", extra="report").load(path)
    return None if len(image.shape) == 2 else _orientation(image.affine)


def read_spacing(path: Path) -> tuple[tuple[float, ...] | None, str | None]:
    """Size of a pixel along x, y, z in mm, or x, y of a plain picture; and the orientation. From the header alone.

    The size is None where the header gives none.
    """
    image = require("nibabel", extra="report").load(path)
    axes = 2 if len(image.shape) == 2 else 3
    sizes = require("nibabel.affines", extra="report").voxel_sizes(image.affine)[:axes]
    # The header holds float32: 0.7 is to be 0.7.
    millimetres = MILLIMETRES.get(int(image.header["xyzt_units"]) & 7, np.nan)
    spacing = tuple(millimetres * float(str(np.float32(size))) for size in sizes)
    is_known = all(np.isfinite(each) and each > 0 for each in spacing)
    return spacing if is_known else None, None if axes == 2 else _orientation(image.affine)


def check_turn(path: Path, stored: str | None, orientation: str | None) -> None:
    """Refuse a volume of which nothing tells how the probabilities lie to it.

    Args:
        path: of the volume.
        stored: its orientation.
        orientation: to which sides the axes of the probabilities grow; None if nothing tells.

    Raises:
        InputError: if it is not stored as RAS, and nothing tells.
    """
    if orientation is None and stored not in (None, RAS):
        raise InputError(
            path,
            f"is stored as {stored}: do the probabilities lie so too, or in RAS, to which some readers "
            "turn images? Say --orientation stored or --orientation RAS",
        )


def turn_axes(sizes: tuple[float, ...], stored: str, orientation: str) -> tuple[float, ...]:
    """What belongs to the axes of an array, in the order that ``turn`` gives these.

    Example:
        >>> turn_axes((1.0, 2.0, 3.0), "SAR", "RAS")
        (3.0, 2.0, 1.0)
    """
    orientations = require("nibabel.orientations", extra="report")
    turns = orientations.ornt_transform(*map(orientations.axcodes2ornt, (stored, orientation)))
    return tuple(sizes[axis] for axis in np.argsort(turns[:, 0]))


def turn(volume: Volume, orientation: str) -> np.ndarray:
    """The array with its axes in the order and the direction of another orientation."""
    if volume.orientation is None:
        raise ValueError(f"a plain picture cannot be turned to {orientation}")
    if volume.orientation == orientation:
        return volume.array
    orientations = require("nibabel.orientations", extra="report")
    turns = orientations.ornt_transform(*map(orientations.axcodes2ornt, (volume.orientation, orientation)))
    axes_last = np.moveaxis(volume.array, 0, -1) if volume.array.ndim == 4 else volume.array
    turned = orientations.apply_orientation(axes_last, turns)
    return np.moveaxis(turned, -1, 0) if volume.array.ndim == 4 else turned


def _orientation(affine: np.ndarray) -> str:
    nibabel = require("nibabel", extra="report")
    codes: tuple[str | None, ...] = nibabel.aff2axcodes(affine) if np.isfinite(affine).all() else ()
    sides = "".join(code for code in codes if code is not None)
    if len(sides) < len(RAS):
        raise ValueError("its header does not say how its axes lie: the affine is not valid")
    return sides
