"""A folder of images and masks in MMSegmentation's layout, checked before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

IGNORE_INDEX = 255
IMAGE_SUFFIXES = (".png", ".jpg")
SPLITS = ("train", "val")
#: Exif orientations under which readers turn an image by 90 degrees.
QUARTER_TURNS = (5, 6, 7, 8)
EXIF_ORIENTATION = 0x0112


class DataError(Exception):
    """What is wrong with the data, in one line that names the file."""


@dataclass(frozen=True)
class Pair:
    """An image, its mask, and the size (height, width) they share."""

    image: Path
    mask: Path
    size: tuple[int, int]

    def read_image(self) -> np.ndarray:
        """RGB pixels, (H, W, 3) uint8."""
        return np.asarray(Image.open(self.image).convert("RGB"))

    def read_mask(self) -> np.ndarray:
        """Labels, (H, W) integers."""
        return _read_mask(self.mask)


@dataclass(frozen=True)
class Folder:
    """A checked data set.

    Args:
        root: the folder that holds ``img_dir`` and ``ann_dir``.
        image_suffix: ``".png"`` or ``".jpg"``.
        classes: name of each class.
        train: training pairs, in the order of their names.
        val: validation pairs, likewise.
        notes: things worth knowing that are no errors.
    """

    root: Path
    image_suffix: str
    classes: tuple[str, ...]
    train: tuple[Pair, ...]
    val: tuple[Pair, ...]
    notes: tuple[str, ...] = ()


def read_folder(root: Path, num_classes: int | None = None, classes: Sequence[str] | None = None) -> Folder:
    """Check a data set: layout, pairs, sizes and labels of every file.

    Args:
        root: folder with ``img_dir/{train,val}`` and ``ann_dir/{train,val}``.
        num_classes: number of classes; None takes it from the masks (largest label + 1, leaving out 255).
        classes: names of the classes; None numbers them.

    Raises:
        DataError: for the first thing that is wrong.
    """
    for folder in (root, *(root / kind / split for kind in ("img_dir", "ann_dir") for split in SPLITS)):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
    suffix = _image_suffix(root)
    pairs, seen, notes = {}, np.zeros(256, bool), []
    for split in SPLITS:
        images = _files(root / "img_dir" / split)
        pairs[split] = tuple(_pair(root, split, image, num_classes, seen) for image in images)
        unused = len(_files(root / "ann_dir" / split)) - len(images)
        if unused > 0:
            notes.append(f"{unused} files in {root / 'ann_dir' / split} belong to no image and are not used")
    seen[IGNORE_INDEX] = False
    count = num_classes or int(np.flatnonzero(seen).max(initial=-1)) + 1
    if count < 2:
        raise DataError(f"{root / 'ann_dir'}: the masks hold fewer than 2 classes (0, 1, ...; 255 = ignore)")
    missing = [str(label) for label in np.flatnonzero(~seen[:count])]
    if missing:
        notes.append(f"no mask holds the label {', '.join(missing)}")
    names = tuple(classes or (f"class {label}" for label in range(count)))
    return Folder(root, suffix, names, pairs["train"], pairs["val"], tuple(notes))


def _image_suffix(root: Path) -> str:
    first = None
    for split in SPLITS:
        images = _files(root / "img_dir" / split)
        if not images:
            raise DataError(f"{root / 'img_dir' / split}: holds no images (.png or .jpg)")
        for image in images:
            if image.suffix not in IMAGE_SUFFIXES:
                raise DataError(f"{image}: images must end in .png or .jpg")
            first = first or image
            if image.suffix != first.suffix:
                raise DataError(f"{image}: all images must have the same ending, {first} ends in {first.suffix}")
    assert first is not None
    return first.suffix


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _pair(root: Path, split: str, image: Path, num_classes: int | None, seen: np.ndarray) -> Pair:
    """Check one image and its mask, and mark the mask's labels in ``seen``."""
    mask = root / "ann_dir" / split / image.relative_to(root / "img_dir" / split).with_suffix(".png")
    if not mask.is_file():
        raise DataError(f"{image}: has no mask, {mask} does not exist")
    size, labels = _image_size(image), _read_mask(mask)
    if labels.shape != size:
        raise DataError(
            f"{mask}: is {labels.shape[1]} x {labels.shape[0]} pixels, its image {image} is {size[1]} x {size[0]}"
        )
    found = np.unique(labels)
    highest = (num_classes or IGNORE_INDEX) - 1
    strange = found[((found < 0) | (found > highest)) & (found != IGNORE_INDEX)]
    if len(strange):
        raise DataError(
            f"{mask}: the label {strange[0]} is out of range, allowed are 0 to {highest}, and {IGNORE_INDEX} = ignore"
        )
    seen[found] = True
    return Pair(image, mask, size)


def _image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            image.verify()
        with Image.open(path) as image:
            turned = image.getexif().get(EXIF_ORIENTATION) in QUARTER_TURNS
            return image.size if turned else image.size[::-1]
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # SyntaxError: a PNG that is cut off
        raise DataError(f"{path}: cannot be read as an image") from error


def _read_mask(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as mask:
            labels = np.asarray(mask)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{path}: cannot be read as an image") from error
    if labels.ndim != 2:
        raise DataError(f"{path}: a mask has one channel of class labels, this file has {labels.shape[2]} channels")
    return labels.astype(np.uint8) if labels.dtype == bool else labels
