"""Scores that need to know where pixels lie: an object each, which measures one class of one image at a time.

Everything else about them (which classes count, means, intervals, files, reports) is the same for all, so the next such
score is one new file beside this one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import ABSENT
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.checks import as_tuple

__all__ = ["Column", "ExtraScore"]

#: Size of a pixel along every axis.
Spacing = tuple[float, ...]


class Column(NamedTuple):
    """One figure of an extra score.

    Args:
        name: its key, such as ``"hd95_mm"``.
        title: what tables call it.
        unit: ``"%"`` of a share in [0, 1], which is 0 where it cannot be said of a class that counts; that of a
            distance otherwise, which is left out unless truth and decision both hold the class.
        higher_is_better: whether a higher figure is a better one.

    Example:
        >>> Column("hd95_mm", "HD95", "mm", higher_is_better=False).is_share
        False
    """

    name: str
    title: str
    unit: str = "%"
    higher_is_better: bool = True

    @property
    def is_share(self) -> bool:
        """Whether it lies in [0, 1]."""
        return self.unit == "%"


@dataclass(frozen=True, kw_only=True)
class ExtraScore(ABC):
    """What counts cannot say of a decision.

    Args:
        classes: the classes that it is measured of; None is all.

    Raises:
        TypeError: if they are no integers.
        ValueError: if there are none, or one is below 0 or given twice.

    Example:
        >>> class Sizes(ExtraScore):
        ...     name, explanation = "size", "pixels of the decision by those of the truth"
        ...     columns = (Column("ratio", "size ratio", unit="times"),)
        ...
        ...     def measure(self, prediction, target, spacing=None):
        ...         return (prediction.sum() / target.sum() if target.any() else np.nan,)
        >>> from rankseg_plugins.comparison import compare
        >>> probs = torch.tensor([[0.9, 0.6, 0.4], [0.1, 0.4, 0.6]])
        >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))], extra=Sizes(classes=(1,)))
        >>> found.extra_figures.means.tolist()  # argmax, then RankSEG
        [[0.5], [1.0]]
    """

    classes: tuple[int, ...] | None = None
    #: What reports call it.
    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.classes is None:
            return
        classes = as_tuple("classes", self.classes, int)
        if not classes or min(classes) < 0 or len(set(classes)) < len(classes):
            raise ValueError(f"classes must name each class once, at least one and from 0, got {self.classes!r}")
        object.__setattr__(self, "classes", classes)

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """Its figures, in the order of ``measure``.

        Example:
            >>> from rankseg_plugins.scores.lesions import Lesions
            >>> [column.name for column in Lesions().columns]
            ['lesion_recall', 'lesion_precision', 'lesion_f1']
        """

    @property
    @abstractmethod
    def explanation(self) -> str:
        """What a report says of how it is measured.

        Example:
            >>> from rankseg_plugins.scores.lesions import Lesions
            >>> Lesions().explanation.partition(" (")[0]
            'Lesions are connected components'
        """

    @abstractmethod
    def measure(self, prediction: np.ndarray, target: np.ndarray, spacing: Spacing | None = None) -> tuple[float, ...]:
        """Measure one class of one image.

        Args:
            prediction: bool mask (*spatial).
            target: likewise.
            spacing: size of a pixel along every axis; None is not known.

        Returns:
            A figure for each of ``columns``; NaN or infinite where there is none.

        Raises:
            ValueError: if the spacing is needed and not known.

        Example:
            >>> from rankseg_plugins.scores.lesions import Lesions
            >>> recall, precision, f1 = Lesions().measure(np.array([True, False, True]), np.array([True, False, False]))
            >>> recall, precision
            (1.0, 0.5)
        """

    def kept(self, num_classes: int) -> tuple[int, ...]:
        """The classes that it is measured of.

        Raises:
            ValueError: if there is no such class.

        Example:
            >>> from rankseg_plugins.scores.lesions import Lesions
            >>> Lesions().kept(3), Lesions(classes=(1,)).kept(3)
            ((0, 1, 2), (1,))
        """
        classes = tuple(range(num_classes)) if self.classes is None else self.classes
        if max(classes) >= num_classes:
            raise ValueError(f"classes of {self.name} must lie in 0 to {num_classes - 1}, got {max(classes)}")
        return classes


def read_extra(extra: Any, num_classes: int) -> tuple[ExtraScore, ...]:
    """The option ``extra``: one extra score, or several.

    Raises:
        TypeError: if it holds anything else.
        ValueError: if a class does not exist, or two would have figures of the same name.
    """
    scores: tuple[ExtraScore, ...] = as_tuple("extra", extra, ExtraScore)
    for score in scores:
        score.kept(num_classes)
    names = [column.name for column in columns_of(scores)]
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise ValueError(f"extra must give every figure once, got {twice[0]} twice")
    return scores


def columns_of(scores: Sequence[ExtraScore]) -> tuple[Column, ...]:
    """The figures of several scores, one after the other (K)."""
    return tuple(column for score in scores for column in score.columns)


def read_spacing(name: str, value: Any) -> Spacing | None:
    """The size of a pixel along every axis, as an option; None is not known.

    Raises:
        TypeError: if it holds anything but numbers.
        ValueError: if one is not finite or not above 0, or there is none.

    Example:
        >>> read_spacing("spacing", [1, 1, 3])
        (1.0, 1.0, 3.0)
    """
    if value is None:
        return None
    spacing = tuple(map(float, as_tuple(name, value, (int, float))))
    if not spacing or not all(math.isfinite(each) and each > 0 for each in spacing):
        raise ValueError(f"{name} must be finite numbers above 0, one for each axis, got {value!r}")
    return spacing


def measure_extra(
    scores: Sequence[ExtraScore],
    prediction: Tensor,
    truth: Tensor,
    num_classes: int,
    ignore_index: int | None = None,
    spacing: Spacing | None = None,
) -> np.ndarray:
    """Measure every class of one image.

    Pixels of ``ignore_index`` are taken out of prediction and truth alike. The edge of what is taken out then bounds
    both, where both hold the class beside it.

    Args:
        scores: what to measure, K figures in all.
        prediction: labels (*spatial), or bool masks (C, *spatial).
        truth: likewise, in the form of ``rankseg_plugins.scores.truth.to_truth``.
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.
        spacing: size of a pixel along every axis; None is not known.

    Returns:
        (K, C) float64; NaN where there is no figure: of classes that neither hold or that are not asked for, and
        distances to nothing.

    Raises:
        ValueError: if the spacing does not fit, or is needed and not known.
    """
    found = np.full((len(columns_of(scores)), num_classes), np.nan)
    dimensions = prediction.ndim - (prediction.dtype == torch.bool)
    if spacing is not None and len(spacing) != dimensions:
        raise ValueError(f"spacing must have a number for each of {dimensions} axes, got {spacing}")
    asked = _asked(scores, num_classes)
    for label, predicted, true in _held(
        prediction, truth, np.flatnonzero(asked.any(0)).tolist(), num_classes, ignore_index
    ):
        measured = [score for score in scores if label in score.kept(num_classes)]
        figures = np.array([value for score in measured for value in score.measure(predicted, true, spacing)])
        found[asked[:, label], label] = np.where(np.isfinite(figures), figures, np.nan)
    return found


def read_masks(prediction: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two bool masks of the same pixels, as arrays.

    Raises:
        TypeError: if one is no bool mask.
        ValueError: if their shapes differ, or have no axis.

    Example:
        >>> read_masks([True, False], [0.2, 0.9])
        Traceback (most recent call last):
            ...
        TypeError: target must be a bool mask, got float64
    """
    masks = np.asarray(prediction), np.asarray(target)
    for name, mask in zip(("prediction", "target"), masks, strict=True):
        if mask.dtype != bool:
            raise TypeError(f"{name} must be a bool mask, got {mask.dtype}")
    if masks[0].shape != masks[1].shape or not masks[0].ndim:
        raise ValueError(f"prediction and target must cover the same pixels, got {masks[0].shape} and {masks[1].shape}")
    return masks


def entries(values: np.ndarray, scores: Sequence[ExtraScore], held: np.ndarray, absent: str = "skip") -> np.ndarray:
    """Which of the figures count, as ``entries`` does for scores of counts.

    Args:
        values: (..., K, C) what ``measure_extra`` gave.
        scores: what was measured.
        held: (..., C) whether the class counts in the image.
        absent: what a share of a class is that does not: ``"skip"`` is NaN, ``"zero"`` and ``"one"`` are such.

    Returns:
        Likewise. Shares of classes that count are 0 where there is no figure; distances stay what they are, and NaN
        where the class does not count.

    Example:
        >>> from rankseg_plugins.scores.lesions import Lesions
        >>> values = np.array([[0.5, np.nan], [1.0, np.nan], [0.75, np.nan]])  # two classes
        >>> entries(values, [Lesions()], np.array([True, True])).tolist()
        [[0.5, 0.0], [1.0, 0.0], [0.75, 0.0]]
    """
    check_choice("absent", absent, tuple(ABSENT))
    shares = np.array([[column.is_share] for column in columns_of(scores)])
    counts = held[..., None, :]
    found = np.where(counts, np.where(shares, np.nan_to_num(values), values), np.where(shares, ABSENT[absent], np.nan))
    return np.where(_asked(scores, values.shape[-1]), found, np.nan)


def _asked(scores: Sequence[ExtraScore], num_classes: int) -> np.ndarray:
    """Whether each figure is one of each class: (K, C)."""
    kept = [np.isin(np.arange(num_classes), score.kept(num_classes)) for score in scores for _ in score.columns]
    return np.stack(kept)


def _held(
    prediction: Tensor, truth: Tensor, classes: Sequence[int], num_classes: int, ignore_index: int | None
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Both masks of each of these classes that one of them holds, in the box around both."""
    dimensions = prediction.ndim - (prediction.dtype == torch.bool)
    predicted, true = prediction.cpu().numpy(), truth.cpu().numpy()
    for label in classes:
        # One class: binary labels call the only class 1.
        number = 1 if num_classes == 1 else label
        ours = predicted[label] if predicted.ndim > dimensions else predicted == number
        labels, value = (true[label], 1) if true.ndim > dimensions else (true, number)
        theirs = labels == value
        if ignore_index is not None and true.dtype != bool:
            kept = labels != ignore_index
            ours, theirs = ours & kept, theirs & kept
        box = box_around(ours | theirs)
        if box is not None:
            yield label, ours[box], theirs[box]


def box_around(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds a bool mask; None if it is empty.

    Example:
        >>> box_around(np.array([[0, 0, 0], [0, 1, 1]], dtype=bool))
        (slice(1, 2, None), slice(1, 3, None))
    """
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (held,) = np.nonzero(mask.any(others))
        if not len(held):
            return None
        found.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(found)
