"""What counts as better: the score, and which classes of an image have one; and their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np

from rankseg_plugins.core.inputs.options import ABSENT, PRESENT
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.areas import Areas
from rankseg_plugins.scores.levels import SCORES, entries, image_scores


@dataclass(frozen=True)
class Scoring:
    """What counts as better.

    Args:
        score: the score that decides about gain and loss: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``.
        present: which classes have a score in an image: ``"union"`` or ``"label"``; see
            ``rankseg_plugins.scores.levels``, as for ``absent``.
        absent: ``"skip"``, ``"zero"`` or ``"one"``.
        excluded: classes left out of every score, such as the background.

    Raises:
        TypeError: if excluded classes are no tuple.
        ValueError: for an unknown choice.

    Example:
        >>> Scoring("iou", present="label", excluded=(0,)).kept(3)
        [1, 2]
    """

    score: str = "dice"
    present: str = "union"
    absent: str = "skip"
    excluded: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("score", self.score, tuple(SCORES))
        check_choice("present", self.present, PRESENT)
        check_choice("absent", self.absent, tuple(ABSENT))
        if isinstance(self.excluded, str) or not isinstance(self.excluded, Iterable):
            raise TypeError(f"excluded must be a tuple of classes, got {self.excluded!r}")

    def kept(self, num_classes: int) -> list[int]:
        """The classes that are scored.

        Raises:
            ValueError: if an excluded class does not exist, or none is left.

        Example:
            >>> Scoring(excluded=(0, 2)).kept(4)
            [1, 3]
        """
        for label in self.excluded:
            if not 0 <= label < num_classes:
                raise ValueError(f"excluded classes must lie in 0 to {num_classes - 1}, got {label}")
        kept = [label for label in range(num_classes) if label not in self.excluded]
        if not kept:
            raise ValueError("excluded leaves no class to score")
        return kept

    @property
    def counting(self) -> dict[str, Any]:
        """Which classes have a score in an image, as values that JSON holds.

        Example:
            >>> Scoring("iou", excluded=(2, 0)).counting
            {'present': 'union', 'absent': 'skip', 'excluded': [0, 2]}
        """
        return {"present": self.present, "absent": self.absent, "excluded": sorted(self.excluded)}

    def describe_other(self, found: Mapping[str, Any], decoder: str) -> str | None:
        """A sentence on a decoder that was tuned where other classes count; None where the same count or none is known.

        Args:
            found: the evidence of a tuned decoder, which holds its ``counting``.
            decoder: its name.

        Example:
            >>> Scoring().describe_other({"present": "label", "absent": "skip"}, "decoder.json")[:75]
            'decoder.json was tuned with present=label, and is scored with present=union'
        """
        other = [name for name, value in self.counting.items() if found.get(name, value) != value]
        if not other:
            return None
        then, now = (", ".join(f"{name}={each[name]}" for name in other) for each in (found, self.counting))
        return (
            f"{decoder} was tuned with {then}, and is scored with {now}: which decoder is best depends on which "
            "classes count. Score it as it was tuned, or tune it as it is scored"
        )

    def entries(self, areas: Areas, score: str) -> np.ndarray:
        """Some score of every image and class, float64, the shape of the counts; NaN where there is none.

        Example:
            >>> import torch
            >>> from rankseg_plugins.scores import areas
            >>> counts = areas(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]), num_classes=3)
            >>> Scoring().entries(counts, "recall")  # the third class is in neither
            array([[0.5, 1. , nan]])
        """
        return entries(areas, SCORES[score], self.present, self.absent).numpy()

    def image_scores(self, areas: Areas, score: str | None = None) -> np.ndarray:
        """Some score of every image, None is the one that decides: (B,) float64, NaN where it has none.

        Example:
            >>> import torch
            >>> from rankseg_plugins.scores import areas
            >>> counts = areas(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 1]]), num_classes=3)
            >>> Scoring("iou").image_scores(counts), Scoring("iou").image_scores(counts, "recall")
            (array([0.5]), array([0.75]))
        """
        return image_scores(areas, SCORES[score or self.score], self.present, self.absent).numpy()

    def gain(self, baseline: Areas, second: Areas) -> float:
        """Score of one image with a second decoder minus that with the baseline; NaN where one has none.

        Example:
            >>> import torch
            >>> from rankseg_plugins.scores import areas
            >>> truth = torch.tensor([[0, 0, 1]])
            >>> Scoring("iou").gain(areas(torch.tensor([[0, 1, 1]]), truth, 2), areas(truth, truth, 2))
            0.5
        """
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


def check_class_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    """Bring class names into one form; None numbers the classes, and one class is called foreground.

    Raises:
        TypeError: if they are no list.
        ValueError: if the number of names is not ``num_classes``, or two are the same.
    """
    if isinstance(class_names, str) or not isinstance(class_names, (Iterable, NoneType)):
        raise TypeError(f"class_names must be a list of names, got {class_names!r}")
    if class_names is None:
        return ("foreground",) if num_classes == 1 else tuple(f"class {label}" for label in range(num_classes))
    names = tuple(str(name) for name in class_names)
    if len(names) != num_classes or len(set(names)) < num_classes:
        raise ValueError(f"class_names must be {num_classes} different names, got {len(names)}: {', '.join(names)}")
    return names
