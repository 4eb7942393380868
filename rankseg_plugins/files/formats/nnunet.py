"""What nnU-Net leaves beside its probabilities: how the axes of the array lie, and what the labels mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rankseg_plugins.files.errors import InputError, blaming
from rankseg_plugins.files.formats.nifti import RAS, STORED, read_orientation

#: Names of its arrays, today's and that of its first version. Their axes are (z, y, x), those of NIfTI (x, y, z).
NNUNET_KEYS = ("probabilities", "softmax")
#: What only readers that turn volumes to RAS note in the ``.pkl``, and what any reader notes, by today's and the
#: first version.
TURNED = (b"reoriented_affine", b"original_orientation")
READ = (b"sitk_stuff", b"nibabel_stuff", b"itk_direction")
#: Readers in ``plans.json``, and whether they turn volumes to RAS.
READERS = {"SimpleITKIO": False, "NibabelIO": False, "NibabelIOWithReorient": True, "SimpleITKIOWithReorient": True}
#: What it calls its description of the data, pixels that do not count there, and a fold of all cases.
DATASET, IGNORE, ALL = "dataset.json", "ignore", "fold_all"


class Classes(NamedTuple):
    """The channels of the probabilities, as ``dataset.json`` describes them.

    Args:
        path: the file.
        names: of them.
        regions: the labels that each consists of, where they are regions, which may overlap; else None.
        ignored: the label of pixels that do not count, if there is one.
    """

    path: Path
    names: list[str]
    regions: list[tuple[int, ...]] | None
    ignored: int | None


def validations(folder: Path) -> list[Path]:
    """The folders of probabilities of a trained model, one for each fold that was validated; of others it itself.

    The cases of ``fold_all`` are those that it was trained on: they show nothing.

    Raises:
        InputError: if the folder cannot be listed, or there is none but ``fold_all``.

    Example:
        >>> validations(Path("probabilities"))
        [PosixPath('probabilities')]
    """
    with blaming(folder):
        found = sorted(folder.glob("fold_*/validation"))
    seen = [path for path in found if path.parent.name == ALL]
    if seen and len(found) == 1:
        raise InputError(seen[0], "holds the cases that the network was trained on; train folds to compare or tune on")
    return [path for path in found if path not in seen] or [folder]


def find_classes(folder: Path) -> Classes | None:
    """What ``dataset.json`` says of the classes; None where there is none of nnU-Net.

    Args:
        folder: of probabilities, or of a trained model.

    Raises:
        InputError: if the file cannot be read.
    """
    path = _beside(folder, DATASET)
    if not path.is_file():
        return None
    with blaming(path):
        found = json.loads(path.read_bytes())
    labels = found.get("labels") if isinstance(found, dict) else None
    if not isinstance(labels, dict) or "background" not in labels:
        return None
    parts = {name: _parts(path, name, value) for name, value in labels.items()}
    ignored = parts.pop(IGNORE, None)
    if any(len(labels) > 1 for labels in parts.values()):
        parts = {name: labels for name, labels in parts.items() if set(labels) != {0}}
        regions = list(parts.values())
    else:
        parts, regions = dict(sorted(parts.items(), key=lambda each: each[1])), None
    return Classes(path, list(parts), regions, None if ignored is None else ignored[0])


def _parts(path: Path, name: str, value: object) -> tuple[int, ...]:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values or not all(type(each) is int for each in values):
        raise InputError(path, f"the label {name!r} must be an integer, or a list of some, got {value!r}")
    return tuple(values)


def find_orientation(probs: Path) -> str | None:
    """Orientation of the volume that an array of nnU-Net was made of.

    The ``.pkl`` beside the array knows it, and is not unpickled: the names in it are enough. ``plans.json`` knows it
    too.

    Args:
        probs: the ``.npz``.

    Returns:
        "RAS" if nnU-Net's reader turned the volume. Otherwise the array lies as the volume was stored: as the
        segmentation that nnU-Net wrote beside it does, or "stored" if there is none. None if nothing tells.
    """
    turned = _noted(probs.with_suffix(".pkl"))
    turned = _planned(_beside(probs.parent, "plans.json")) if turned is None else turned
    if turned is None:
        return None
    if turned:
        return RAS
    for suffix in (".nii.gz", ".nii"):
        segmentation = probs.with_name(probs.stem + suffix)
        if segmentation.is_file():
            with blaming(segmentation):
                return read_orientation(segmentation) or STORED
    return STORED


def _beside(folder: Path, name: str) -> Path:
    """A file beside probabilities, or of the trained model whose validation they are."""
    model = folder.resolve().parent.parent
    return model / name if folder.resolve().name == "validation" and (model / name).is_file() else folder / name


def _noted(properties: Path) -> bool | None:
    if not properties.is_file():
        return None
    with blaming(properties):
        data = properties.read_bytes()
    if any(name in data for name in TURNED):
        return True
    return False if any(name in data for name in READ) else None


def _planned(plans: Path) -> bool | None:
    if not plans.is_file():
        return None
    with blaming(plans):
        found = json.loads(plans.read_bytes())
    return READERS.get(str(found.get("image_reader_writer"))) if isinstance(found, dict) else None
