"""Whether lesions are found, whatever their size: recall, precision and F1 of connected components.

A *lesion* is a connected component of a mask, where pixels are neighbours that share a side, an edge or a corner (8 in
2-D, 26 in 3-D). One of the truth is *found* if the decision covers enough of it, one of the decision is *right* if the
truth covers enough of it: at least one pixel, or a share of its pixels. So two lesions may be found by one large piece,
and one lesion by two small ones, each of which is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.core.inputs.options import read_real
from rankseg_plugins.scores.extra import Column, ExtraScore, Spacing, read_masks

__all__ = ["LesionCounts", "Lesions", "count_lesions"]


class LesionCounts(NamedTuple):
    """Lesions of one class of one image, or of many where added up.

    Args:
        found: lesions of the truth that the decision covers.
        lesions: lesions of the truth.
        right: lesions of the decision that the truth covers.
        predicted: lesions of the decision.

    Source: see ``count_lesions``.

    Example:
        >>> found = LesionCounts(found=2, lesions=4, right=2, predicted=2)
        >>> found.recall, found.precision, round(found.f1, 4)
        (0.5, 1.0, 0.6667)
    """

    found: int
    lesions: int
    right: int
    predicted: int

    @property
    def recall(self) -> float:
        """Share of the lesions that is found; NaN without any."""
        return self.found / self.lesions if self.lesions else math.nan

    @property
    def precision(self) -> float:
        """Share of the predicted lesions that is right; NaN without any."""
        return self.right / self.predicted if self.predicted else math.nan

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision; 0 if one is 0 or not there, NaN if neither is there."""
        if not (self.lesions or self.predicted):
            return math.nan
        if not (self.found and self.right):
            return 0.0
        return 2 / (self.lesions / self.found + self.predicted / self.right)


def count_lesions(prediction: np.ndarray, target: np.ndarray, overlap: float = 0.0) -> LesionCounts:
    """Count the lesions of one class of one image.

    Args:
        prediction: bool mask (*spatial); what does not count is False in both.
        target: likewise.
        overlap: share of the pixels of a lesion, in [0, 1], that the other mask must hold at least; with 0 a single
            pixel is enough.

    Raises:
        TypeError: if one is no bool mask.
        ValueError: if their shapes differ, or ``overlap`` is out of range.
        ImportError: if SciPy is not installed.

    Source: Maier-Hein et al., "Metrics reloaded: recommendations for image analysis validation", Nature Methods 21
    (2024), on detection at the level of objects.

    Example:
        >>> target = np.array([1, 1, 0, 1, 0, 1, 1, 1, 1], dtype=bool)
        >>> prediction = np.array([0, 1, 1, 1, 0, 1, 0, 0, 0], dtype=bool)
        >>> count_lesions(prediction, target)
        LesionCounts(found=3, lesions=3, right=2, predicted=2)
        >>> count_lesions(prediction, target, overlap=0.5).recall
        0.6666666666666666
    """
    prediction, target = read_masks(prediction, target)
    overlap = read_real("overlap", overlap, 0, 1)
    found, lesions = _covered(target, prediction, overlap)
    right, predicted = _covered(prediction, target, overlap)
    return LesionCounts(found, lesions, right, predicted)


@dataclass(frozen=True)
class Lesions(ExtraScore):
    """Recall, precision and F1 of lesions as an extra score.

    Args:
        overlap: see ``count_lesions``.
        classes: the classes whose components are lesions; None is all.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is out of range.

    Source: see ``count_lesions``.

    Example:
        >>> lesions = Lesions()
        >>> lesions.measure(np.array([True, False, False]), np.array([True, False, True]))
        (0.5, 1.0, 0.6666666666666666)
    """

    overlap: float = field(default=0.0, kw_only=False)
    name: ClassVar[str] = "lesions"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "overlap", read_real("overlap", self.overlap, 0, 1))

    @property
    def columns(self) -> tuple[Column, ...]:
        """Recall, precision, F1."""
        return tuple(Column(f"lesion_{name.lower()}", f"lesion {name}") for name in ("recall", "precision", "F1"))

    @property
    def explanation(self) -> str:
        """How lesions are counted."""
        enough = "at least one pixel" if self.overlap == 0 else f"at least {100 * self.overlap:g} % of its pixels"
        return (
            "Lesions are connected components (pixels that share a side, an edge or a corner). One of the truth is "
            f"found if the decision holds {enough}, one of the decision is right if the truth holds {enough}. Where "
            "only one of truth and decision holds a class that counts, all three are 0."
        )

    def measure(self, prediction: np.ndarray, target: np.ndarray, spacing: Spacing | None = None) -> tuple[float, ...]:
        """Measure one class of one image, see ``ExtraScore``.

        Example:
            >>> prediction, target = np.array([True, False, False, False]), np.array([True, True, True, False])
            >>> Lesions(overlap=0.5).measure(prediction, target)  # recall, precision, F1: a third is not enough
            (0.0, 1.0, 0.0)
        """
        counts = count_lesions(prediction, target, self.overlap)
        return counts.recall, counts.precision, counts.f1


def _covered(mask: np.ndarray, other: np.ndarray, overlap: float) -> tuple[int, int]:
    """How many components of a mask another one covers, and how many there are."""
    ndimage = require("scipy.ndimage", extra="report")
    numbers, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    size = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    shared = np.bincount(numbers[other], minlength=count + 1)[1:]
    # What rounding takes from a share is given back: 3 of 10 pixels are 0.3 of them.
    return int(((shared > 0) & (shared >= overlap * size * (1 - 1e-9))).sum()), count
