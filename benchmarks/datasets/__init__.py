"""Truths of public data sets in the folder layouts that people download them in, ready for ``rankseg-plugins compare``.

Nothing is downloaded. ``python -m benchmarks.datasets NAME ROOT OUT`` writes one file of labels for each image, called
as the image is, with 255 for pixels that do not count, and ``classes.txt``.
"""

from __future__ import annotations

from benchmarks.datasets.pictures import ADE20K, CITYSCAPES, SBD, VOC2012
from benchmarks.datasets.truth import Dataset, LayoutError, Truth, write
from benchmarks.datasets.volumes import KITS19, KITS19_SLICES, LITS, LITS_SLICES

DATASETS: dict[str, Dataset] = {
    "voc2012": VOC2012,
    "sbd": SBD,
    "cityscapes": CITYSCAPES,
    "ade20k": ADE20K,
    "lits": LITS,
    "lits-slices": LITS_SLICES,
    "kits19": KITS19,
    "kits19-slices": KITS19_SLICES,
}

__all__ = ["DATASETS", "Dataset", "LayoutError", "Truth", "write"]
