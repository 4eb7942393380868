"""What every data set has in common: truths one at a time, and files that ``rankseg-plugins compare`` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from PIL import Image

IGNORE = 255


class LayoutError(ValueError):
    """A folder that is not laid out as the data set is."""


class Truth(NamedTuple):
    """Labels of one image or volume.

    Args:
        name: of the image, without the suffix of its file.
        labels: (H, W) or (x, y, z) uint8, 255 where a pixel does not count.
    """

    name: str
    labels: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        truths: reads ``(root, split)``, one truth at a time.
        class_names: of the classes, or a function of the root that finds them.
        split: the one that papers report.
        layout: the part of the layout that is read, for help and messages.
    """

    truths: Callable[[Path, str], Iterator[Truth]]
    class_names: tuple[str, ...] | Callable[[Path], tuple[str, ...]]
    split: str
    layout: str

    def classes(self, root: Path) -> tuple[str, ...]:
        """Names of the classes."""
        return self.class_names(root) if callable(self.class_names) else self.class_names


def write(truths: Iterable[Truth], class_names: Iterable[str], out: Path) -> int:
    """Write a PNG for each picture, a NIfTI file for each volume, and ``classes.txt``.

    Returns:
        The number of truths.
    """
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for truth in truths:
        if truth.labels.ndim == 2:
            Image.fromarray(truth.labels).save(out / f"{truth.name}.png")
        else:
            nibabel.save(nibabel.Nifti1Image(truth.labels, np.eye(4)), out / f"{truth.name}.nii.gz")
        count += 1
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in class_names))
    return count


def require(path: Path, layout: str) -> Path:
    """Return ``path`` if it exists.

    Raises:
        LayoutError: otherwise, with the layout that is expected.
    """
    if not path.exists():
        raise LayoutError(f"{path} does not exist; expected is {layout}")
    return path


def read_picture(path: Path) -> np.ndarray:
    """A label picture as it is stored: indices, not colours."""
    with Image.open(path) as picture:
        labels = np.asarray(picture)
    if labels.ndim != 2:
        raise LayoutError(f"{path} holds colours, not labels")
    return labels
