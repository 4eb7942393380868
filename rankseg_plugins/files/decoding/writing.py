"""Labels in the format that fits them, written piece by piece, each file whole or not at all."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins._writing import write_atomically, writing_atomically
from rankseg_plugins.files.decoding.geometry import Reference, placed, to_nifti
from rankseg_plugins.files.decoding.scratch import Scratch
from rankseg_plugins.files.label_files import encode_png
from rankseg_plugins.files.reading import Axes

SUFFIXES = {"png": ".png", "nifti": ".nii.gz", "npy": ".npy"}
#: Types of labels, the smallest first.
KINDS = (np.uint8, np.uint16, np.int32)
#: Values that are written at a time.
PIECE = 1 << 20
#: As nibabel compresses.
LEVEL = 1


@dataclass(frozen=True)
class Form:
    """What the files of a run look like.

    Args:
        file_format: one of ``SUFFIXES``.
        masks: whether each class has a mask, (C, *spatial).
        kind: of the values.
        palette: (count, 3) uint8 for PNGs; None is grey.
    """

    file_format: str
    masks: bool
    kind: np.dtype
    palette: np.ndarray | None = None

    @property
    def suffix(self) -> str:
        """Of the files."""
        return SUFFIXES[self.file_format]


def choose_form(
    file_format: str | None,
    decoder: Any,
    spatial: tuple[int, ...],
    classes: int,
    palette: np.ndarray | None,
    has_reference: bool,
) -> Form:
    """What fits the decisions of a decoder, and the first image.

    Args:
        file_format: what is asked for; None: NIfTI where images have a reference, PNG for plain pictures with one label
            a pixel, and ``.npy`` for all else.
        decoder: decides.
        spatial: size of the first image.
        classes: C.
        palette: see ``Form``.
        has_reference: whether images have one.

    Raises:
        ValueError: for a format that cannot hold the labels, or a palette that nothing would be painted in.

    Example:
        >>> from rankseg_plugins import RankSEG
        >>> choose_form(None, RankSEG(), (240, 320), 21, None, has_reference=False).file_format
        'png'
    """
    masks = decoder.output_mode == "multilabel" and classes > 1
    if file_format is None:
        others = "png" if _is_picture(spatial) and not masks else "npy"
        file_format = "nifti" if has_reference else others
    void = decoder.void_index if getattr(decoder, "unassigned_policy", "") == "void" else 0
    kind = np.dtype(np.bool_) if masks else _kind_of(min(void, 0), max(classes - 1, 1, void))
    if file_format == "nifti":
        if not has_reference:
            raise ValueError("--format nifti needs the affine of a volume: give --reference, a folder of NIfTI files")
        kind = np.dtype(np.uint8) if masks else kind
    if file_format == "png":
        _check_png(spatial, masks, kind, void)
    if palette is not None and (file_format != "png" or kind != np.uint8):
        raise ValueError("--palette has an effect only on PNG labels of at most 255")
    return Form(file_format, masks, kind, palette)


def _is_picture(spatial: tuple[int, ...]) -> bool:
    return len(spatial) == 2 or (len(spatial) == 3 and spatial[0] == 1)


def _check_png(spatial: tuple[int, ...], masks: bool, kind: np.dtype, void: int) -> None:
    if masks:
        raise ValueError("--format png holds one label a pixel, and masks are decided: --format npy holds them")
    if not _is_picture(spatial):
        size = " x ".join(map(str, spatial))
        raise ValueError(f"--format png holds plain pictures, and the first image is of size {size}: --format npy")
    if kind not in (np.uint8, np.uint16):
        raise ValueError(f"--format png holds the labels 0 to 65535, and void_index is {void}: --format npy")


def _kind_of(low: int, high: int) -> np.dtype:
    for kind in KINDS:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    raise ValueError(f"labels must lie in -2^31 to 2^31 - 1, void_index is {low or high}")


def write_labels(
    path: Path, decision: Tensor, form: Form, axes: Axes, reference: Reference | None, scratch: Scratch
) -> None:
    """Write the labels of one image.

    Args:
        path: of the file.
        decision: labels (*spatial), or bool masks (C, *spatial); of one class, its mask becomes the labels 0 and 1.
        form: see ``choose_form``.
        axes: of the probabilities.
        reference: of this image, for NIfTI.
        scratch: gives memory.

    Raises:
        ValueError: for an image that the format cannot hold.
        OSError: if it cannot be written; what was there before stays.
    """
    labels = (decision[0] if decision.dtype == torch.bool and not form.masks else decision).numpy()
    if form.file_format == "png":
        picture = labels[0] if labels.ndim == 3 and labels.shape[0] == 1 else labels
        write_atomically(path, encode_png(picture.astype(np.int64), form.palette, form.kind == np.uint16))
    elif form.file_format == "npy":
        _write_npy(path, labels, form.kind)
    else:
        assert reference is not None
        _write_nifti(path, placed(_narrow(labels, form.kind, scratch), axes, reference, form.masks), reference)


def _write_npy(path: Path, labels: np.ndarray, kind: np.dtype) -> None:
    head = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": labels.shape}
    flat = labels.reshape(-1)
    with writing_atomically(path) as file:
        np.lib.format.write_array_header_1_0(file, head)
        for first in range(0, len(flat), PIECE):
            file.write(flat[first : first + PIECE].astype(kind).data)


def _write_nifti(path: Path, labels: np.ndarray, reference: Reference) -> None:
    image = to_nifti(labels, reference)
    # Without name and time, so that the same labels are the same bytes.
    with writing_atomically(path) as file, gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
        image.to_stream(packed)


def _narrow(labels: np.ndarray, kind: np.dtype, scratch: Scratch) -> np.ndarray:
    """The same labels in another type."""
    made = scratch.array(labels.shape, kind)
    source, into = labels.reshape(-1), made.reshape(-1)
    for first in range(0, len(source), PIECE):
        into[first : first + PIECE] = source[first : first + PIECE]
    return made
