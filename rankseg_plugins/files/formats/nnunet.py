"""What nnU-Net leaves beside its probabilities: how the axes of the array lie."""

from __future__ import annotations

import json
from pathlib import Path

from rankseg_plugins.files.errors import blaming
from rankseg_plugins.files.formats.nifti import RAS, STORED, read_orientation

#: Names of its arrays, today's and that of its first version. Their axes are (z, y, x), those of NIfTI (x, y, z).
NNUNET_KEYS = ("probabilities", "softmax")
#: What only readers that turn volumes to RAS note in the ``.pkl``, and what any reader notes, by today's and the
#: first version.
TURNED = (b"reoriented_affine", b"original_orientation")
READ = (b"sitk_stuff", b"nibabel_stuff", b"itk_direction")
#: Readers in ``plans.json``, and whether they turn volumes to RAS.
READERS = {"SimpleITKIO": False, "NibabelIO": False, "NibabelIOWithReorient": True, "SimpleITKIOWithReorient": True}


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
    turned = _planned(probs.with_name("plans.json")) if turned is None else turned
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
