"""What counts as better: the score, and which classes of an image have one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.scores.areas import Areas
from rankseg_plugins.scores.levels import ABSENT, PRESENT, SCORES, entries, image_scores


@dataclass(frozen=True)
class Scoring:
    """What counts as better.

    Args:
        score: the score that decides about gain and loss: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``.
        present: which classes have a score in an image: ``"union"`` or ``"label"``; see
            :mod:`~rankseg_plugins.scores.levels`, as for ``absent``.
        absent: ``"skip"``, ``"zero"`` or ``"one"``.
        excluded: classes left out of every score, such as the background.

    Raises:
        ValueError: for an unknown choice.
    """

    score: str = "dice"
    present: str = "union"
    absent: str = "skip"
    excluded: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("score", self.score, tuple(SCORES))
        check_choice("present", self.present, PRESENT)
        check_choice("absent", self.absent, tuple(ABSENT))

    def kept(self, num_classes: int) -> list[int]:
        """The classes that are scored.

        Raises:
            ValueError: if an excluded class does not exist, or none is left.
        """
        for label in self.excluded:
            if not 0 <= label < num_classes:
                raise ValueError(f"excluded classes must lie in 0 to {num_classes - 1}, got {label}")
        kept = [label for label in range(num_classes) if label not in self.excluded]
        if not kept:
            raise ValueError("excluded leaves no class to score")
        return kept

    def entries(self, areas: Areas, score: str) -> np.ndarray:
        """Some score of every image and class, float64, the shape of the counts; NaN where there is none."""
        return entries(areas, SCORES[score], self.present, self.absent).numpy()

    def image_scores(self, areas: Areas, score: str | None = None) -> np.ndarray:
        """Some score of every image, None is the one that decides: (B,) float64, NaN where it has none."""
        return image_scores(areas, SCORES[score or self.score], self.present, self.absent).numpy()

    def gain(self, baseline: Areas, second: Areas) -> float:
        """Score of one image with a second decoder minus that with the baseline; NaN where one has none."""
        return float((self.image_scores(second) - self.image_scores(baseline))[0])


def read_scoring(scoring: object) -> Scoring:
    """The option ``scoring``; None is the default.

    Raises:
        TypeError: if it is neither.
    """
    if scoring is None:
        return Scoring()
    if not isinstance(scoring, Scoring):
        raise TypeError(f"scoring must be a Scoring, such as Scoring('iou'), got {scoring!r}")
    return scoring
