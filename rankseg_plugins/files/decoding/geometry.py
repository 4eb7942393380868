"""How labels lie in the patient: as a NIfTI file of the same volume does, whatever the probabilities were turned to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.files.cases import by_stem
from rankseg_plugins.files.errors import InputError, blaming
from rankseg_plugins.files.formats.nifti import STORED, Volume, check_turn, read_orientation, turn
from rankseg_plugins.files.formats.nnunet import NNUNET_KEYS
from rankseg_plugins.files.reading import Axes

NIFTI = (".nii.gz", ".nii")
#: What nnU-Net ends the name of an image of one channel in, or of the first one.
FIRST_CHANNEL = "_0000"


class Reference(NamedTuple):
    """A NIfTI file whose geometry labels take.

    Args:
        path: the file.
        image: as nibabel opened it, its values unread.
        orientation: three letters; None for a plain picture.
    """

    path: Path
    image: Any
    orientation: str | None

    @property
    def size(self) -> tuple[int, ...]:
        """Of the volume, (x, y, z), or of the plain picture."""
        return tuple(self.image.shape[: 2 if self.orientation is None else 3])


def find_references(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The NIfTI file of every image: of the same name, or of that and nnU-Net's ``_0000``.

    Raises:
        InputError: if an image has none.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder")
    files = by_stem([folder], NIFTI)
    found = {name: files.get(name, files.get(name + FIRST_CHANNEL)) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise InputError(
            folder, f"holds no NIfTI file for {len(missing)} of {len(names)} images, such as {missing[0]!r}"
        )
    return {name: path for name, path in found.items() if path is not None}


def beside(probs: Path) -> Path | None:
    """The segmentation that nnU-Net wrote beside its probabilities, if there is one."""
    paths = (probs.with_name(probs.stem + suffix) for suffix in NIFTI)
    return next((path for path in paths if path.is_file()), None)


def open_reference(path: Path) -> Reference:
    """Open a NIfTI file.

    Raises:
        InputError: if it is damaged, or gives no orientation.
    """
    with blaming(path):
        return Reference(path, require("nibabel", extra="report").load(path), read_orientation(path))


def check_size(place: str, spatial: tuple[int, ...], axes: Axes, reference: Reference) -> None:
    """Refuse a reference that labels do not fit, or that does not say how they lie.

    Args:
        place: what errors call the image.
        spatial: size of its labels.
        axes: of its probabilities.
        reference: of this image.

    Raises:
        InputError: if they do not fit.
    """
    check_turn(reference.path, reference.orientation, axes.orientation)
    if reference.orientation is None and axes.orientation not in (None, STORED):
        raise InputError(reference.path, f"a plain picture cannot be turned to {axes.orientation}")
    size = placed(np.broadcast_to(np.uint8(0), spatial), axes, reference).shape
    if size != reference.size:
        hint = ""
        if not axes.reverse and size[::-1] == reference.size:
            hint = f"; arrays (z, y, x) must be called {' or '.join(NNUNET_KEYS)}"
        ours, theirs = (" x ".join(map(str, each)) for each in (size, reference.size))
        raise InputError(place, f"labels of size {ours} for {theirs} of {reference.path}{hint}")


def placed(labels: np.ndarray, axes: Axes, reference: Reference, masks: bool = False) -> np.ndarray:
    """Labels in the order and direction of the axes of their reference; nothing is copied.

    Args:
        labels: (*spatial), or masks (C, *spatial).
        axes: of the probabilities, see ``Axes``.
        reference: of this image.
        masks: whether these are masks.

    Returns:
        As NIfTI has them: (x, y, z) or (x, y); of masks, (x, y, z, C).
    """
    spatial = len(reference.size)
    if labels.ndim - masks == spatial + 1 and labels.shape[masks] == 1:  # what nnU-Net makes of plain pictures
        labels = labels[:, 0] if masks else labels[0]
    if axes.reverse:
        labels = labels.transpose(0, *range(labels.ndim - 1, 0, -1)) if masks else labels.T
    is_turned = axes.orientation not in (None, STORED) and labels.ndim - masks == spatial
    if axes.orientation is not None and reference.orientation is not None and is_turned:
        labels = turn(Volume(labels, axes.orientation), reference.orientation)
    return np.moveaxis(labels, 0, -1) if masks else labels


def to_nifti(labels: np.ndarray, reference: Reference) -> Any:
    """An image of nibabel with the affine, the spacing and the units of its reference.

    Args:
        labels: see ``placed``.
        reference: of this image.
    """
    nibabel = require("nibabel", extra="report")
    kind = nibabel.Nifti2Image if isinstance(reference.image, nibabel.Nifti2Image) else nibabel.Nifti1Image
    image = kind(labels, reference.image.affine, reference.image.header)
    header = image.header
    header.set_data_dtype(labels.dtype)
    header.extensions.clear()  # they may speak of the values of the reference, and of the patient
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    return image
