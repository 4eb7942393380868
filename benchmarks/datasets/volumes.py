"""LiTS and KiTS19: tumour against all else, in whole volumes or in the slices that hold any."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.datasets.truth import Dataset, LayoutError, Truth

TUMOUR = 2
FOLDS = 5
LITS_CASES, KITS_CASES = 131, 210
LITS_LAYOUT = "segmentation-*.nii, in the folder or in folders below it"
KITS_LAYOUT = "case_*/segmentation.nii.gz, in the folder or in data/"


def lits(root: Path, split: str, slices: bool = False) -> Iterator[Truth]:
    """LiTS: 0 is background, 1 liver, 2 tumour; volumes are (x, y, z), and slices lie along z."""
    files = {}
    for path in root.rglob("segmentation-*.nii*"):
        files[int(path.name.split("-")[1].split(".")[0])] = path
    for case in _of_split(files, split, LITS_CASES, f"{root}: no {LITS_LAYOUT}"):
        volume = _tumour(files[case])
        yield from _slices(str(case), volume, 2) if slices else [Truth(f"volume-{case}", volume)]


def kits19(root: Path, split: str, slices: bool = False) -> Iterator[Truth]:
    """KiTS19: 0 is background, 1 kidney, 2 tumour; volumes are (z, y, x), and slices lie along the first axis."""
    root = root / "data" if (root / "data").is_dir() else root
    files = {int(path.parent.name[5:]): path for path in root.glob("case_*/segmentation.nii.gz")}
    for case in _of_split(files, split, KITS_CASES, f"{root}: no {KITS_LAYOUT}"):
        volume = _tumour(files[case])
        yield from _slices(f"{case:05d}", volume, 0) if slices else [Truth(f"case_{case:05d}", volume)]


def _of_split(files: dict[int, Path], split: str, cases: int, problem: str) -> list[int]:
    """All cases, or those of a fold of the cross-validation: a fifth of the case numbers, the last takes the rest."""
    if not files:
        raise LayoutError(problem)
    if split == "all":
        return sorted(files)
    if split not in {f"fold{fold}" for fold in range(FOLDS)}:
        raise LayoutError(f"split must be 'all' or 'fold0' to 'fold{FOLDS - 1}', got {split!r}")
    fold, size = int(split[4:]), cases // FOLDS
    last = cases if fold == FOLDS - 1 else size * (fold + 1)
    return [case for case in sorted(files) if size * fold <= case < last]


def _tumour(path: Path) -> np.ndarray:
    return (np.asanyarray(nibabel.load(path).dataobj) == TUMOUR).astype(np.uint8)


def _slices(case: str, volume: np.ndarray, axis: int) -> Iterator[Truth]:
    for index, plane in enumerate(np.moveaxis(volume, axis, 0)):
        if plane.any():
            yield Truth(f"{case}_{index}", np.ascontiguousarray(plane))


NAMES = ("rest", "tumour")
LITS = Dataset(lits, NAMES, "all", LITS_LAYOUT)
LITS_SLICES = Dataset(partial(lits, slices=True), NAMES, "all", LITS_LAYOUT)
KITS19 = Dataset(kits19, NAMES, "all", KITS_LAYOUT)
KITS19_SLICES = Dataset(partial(kits19, slices=True), NAMES, "all", KITS_LAYOUT)
