"""Scores as short functions of areas, at the levels that papers report.

A *score* turns counts of any shape into a score of each entry: ``iou``, ``dice``, ... A *level* says what is pooled and
what is averaged (Wang et al., "Revisiting evaluation metrics for semantic segmentation", NeurIPS 2023):

* dataset level (IoU^D): pool the counts of all images, score each class, average over classes;
* image level (IoU^I): score each image and class, average over the classes of an image, then over images;
* class level (IoU^C): score each image and class, average over the images of a class, then over classes.

A class is *present* in an image, and so has a score there, if prediction or truth hold it (``present="union"``: a
hallucinated class scores 0), or only if the truth does (``present="label"``). An *absent* class is left out of the
averages (``absent="skip"``, NaN in the tables of entries), or counts as 0 or 1 (``"zero"``, ``"one"``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import ABSENT, PRESENT
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.areas import Areas

__all__ = [
    "accuracy",
    "class_level",
    "class_scores",
    "class_table",
    "dataset_level",
    "dice",
    "entries",
    "image_accuracies",
    "image_level",
    "image_scores",
    "iou",
    "lowest",
    "pixel_accuracy",
    "pooled",
    "precision",
    "recall",
    "worst",
]

Score = Callable[[Areas], Tensor]


def iou(areas: Areas) -> Tensor:
    """Intersection over union of every entry, float64 in [0, 1]; NaN where prediction and truth are empty.

    Args:
        areas: counts of any shape, such as (B, C).

    Source: Jaccard, "The distribution of the flora in the alpine zone", New Phytologist 11 (1912).

    Example:
        >>> iou(Areas(torch.tensor([1]), torch.tensor([2]), torch.tensor([3])))
        tensor([0.2500], dtype=torch.float64)
    """
    return areas.intersection.double() / areas.union


def dice(areas: Areas) -> Tensor:
    """Dice coefficient of every entry, float64 in [0, 1]; NaN where prediction and truth are empty.

    Args:
        areas: counts of any shape, such as (B, C).

    Source: Dice, "Measures of the amount of ecologic association between species", Ecology 26 (1945).

    Example:
        >>> dice(Areas(torch.tensor([1]), torch.tensor([2]), torch.tensor([3])))
        tensor([0.4000], dtype=torch.float64)
    """
    return 2 * areas.intersection.double() / (areas.prediction + areas.label)


def precision(areas: Areas) -> Tensor:
    """Share of the predicted pixels that are right, float64 in [0, 1]; NaN where nothing was predicted.

    Args:
        areas: counts of any shape, such as (B, C).

    Example:
        >>> precision(Areas(torch.tensor([1]), torch.tensor([2]), torch.tensor([3])))
        tensor([0.5000], dtype=torch.float64)
    """
    return areas.intersection.double() / areas.prediction


def recall(areas: Areas) -> Tensor:
    """Share of the true pixels that were found (per-class accuracy), float64 in [0, 1]; NaN where the truth is empty.

    Args:
        areas: counts of any shape, such as (B, C).

    Example:
        >>> recall(Areas(torch.tensor([1]), torch.tensor([2]), torch.tensor([3])))
        tensor([0.3333], dtype=torch.float64)
    """
    return areas.intersection.double() / areas.label


def pooled(areas: Areas) -> Areas:
    """Add up the counts of all images: (B, C) to (C,).

    Args:
        areas: counts (B, C).

    Example:
        >>> counts = torch.tensor([[1, 2], [3, 4]])
        >>> pooled(Areas(counts, counts, counts)).label
        tensor([4, 6])
    """
    return Areas(*(count.sum(0) for count in areas))


def entries(areas: Areas, score: Score, present: str = "union", absent: str = "skip") -> Tensor:
    """Score of every image and class.

    Args:
        areas: counts (B, C), or (C,) when pooled.
        score: one of the scores of this module.
        present: ``"union"`` or ``"label"``, see the module.
        absent: ``"skip"``, ``"zero"`` or ``"one"``, see the module.

    Returns:
        float64, the shape of the counts; NaN where an absent class is skipped.

    Raises:
        ValueError: for an unknown ``present`` or ``absent``.

    Example:
        >>> counts = Areas(torch.tensor([[2, 0]]), torch.tensor([[4, 0]]), torch.tensor([[2, 0]]))
        >>> entries(counts, iou), entries(counts, iou, absent="one")
        (tensor([[0.5000,    nan]], dtype=torch.float64), tensor([[0.5000, 1.0000]], dtype=torch.float64))
    """
    check_choice("present", present, PRESENT)
    check_choice("absent", absent, tuple(ABSENT))
    held = areas.union > 0 if present == "union" else areas.label > 0
    # What the score itself cannot say of a class that is present (the precision of an empty prediction) counts as 0.
    return score(areas).nan_to_num(0.0).masked_fill(~held, ABSENT[absent])


def dataset_level(areas: Areas, score: Score, present: str = "union", absent: str = "skip") -> Tensor:
    """Mean over classes of the score of the pooled counts, a float64 scalar; NaN without any class.

    Args:
        areas: counts (B, C).
        score: see ``entries``, as the next two.
        present: which classes count.
        absent: what others count.

    Raises:
        ValueError: for an unknown ``present`` or ``absent``.

    Example:
        >>> intersection, prediction = torch.tensor([[2, 0], [2, 4]]), torch.tensor([[4, 0], [2, 4]])
        >>> counts = Areas(intersection, prediction, label=torch.tensor([[2, 0], [2, 6]]))
        >>> dataset_level(counts, iou)  # (4/6 + 4/6) / 2
        tensor(0.6667, dtype=torch.float64)
    """
    return entries(pooled(areas), score, present, absent).nanmean()


def image_scores(areas: Areas, score: Score, present: str = "union", absent: str = "skip") -> Tensor:
    """Score of every image, the mean over its classes: (B,) float64, NaN for an image without any class.

    Args:
        areas: counts (B, C).
        score: see ``entries``, as the next two.
        present: which classes count.
        absent: what others count.

    Raises:
        ValueError: for an unknown ``present`` or ``absent``.

    Example:
        >>> intersection, prediction = torch.tensor([[2, 0], [2, 4]]), torch.tensor([[4, 0], [2, 4]])
        >>> counts = Areas(intersection, prediction, label=torch.tensor([[2, 0], [2, 6]]))
        >>> image_scores(counts, iou)  # 2/4; (2/2 + 4/6) / 2
        tensor([0.5000, 0.8333], dtype=torch.float64)
    """
    return entries(areas, score, present, absent).nanmean(1)


def image_level(areas: Areas, score: Score, present: str = "union", absent: str = "skip") -> Tensor:
    """Mean over images of ``image_scores``, a float64 scalar.

    Args:
        areas: counts (B, C).
        score: see ``entries``, as the next two.
        present: which classes count.
        absent: what others count.

    Raises:
        ValueError: for an unknown ``present`` or ``absent``.

    Example:
        >>> intersection, prediction = torch.tensor([[2, 0], [2, 4]]), torch.tensor([[4, 0], [2, 4]])
        >>> counts = Areas(intersection, prediction, label=torch.tensor([[2, 0], [2, 6]]))
        >>> image_level(counts, iou)  # (1/2 + (1 + 2/3) / 2) / 2
        tensor(0.6667, dtype=torch.float64)
    """
    return image_scores(areas, score, present, absent).nanmean()


def class_scores(areas: Areas, score: Score, present: str = "union", absent: str = "skip") -> Tensor:
    """Score of every class, the mean over the images that hold it: (C,) float64, NaN for a class never seen.

    Args:
        areas: counts (B, C).
        score: see ``entries``, as the next two.
        present: which classes count.
        absent: what others count.

    Raises:
        ValueError: for an unknown ``present`` or ``absent``.

    Example:
        >>> intersection, prediction = torch.tensor([[2, 0], [2, 4]]), torch.tensor([[4, 0], [2, 4]])
        >>> counts = Areas(intersection, prediction, label=torch.tensor([[2, 0], [2, 6]]))
        >>> class_scores(counts, iou)  # (2/4 + 2/2) / 2; 4/6
        tensor([0.7500, 0.6667], dtype=torch.float64)
    """
    return entries(areas, score, present, absent).nanmean(0)


def class_level(areas: Areas, score: Score, present: str = "union", absent: str = "skip") -> Tensor:
    """Mean over classes of ``class_scores``, a float64 scalar.

    Args:
        areas: counts (B, C).
        score: see ``entries``, as the next two.
        present: which classes count.
        absent: what others count.

    Raises:
        ValueError: for an unknown ``present`` or ``absent``.

    Example:
        >>> intersection, prediction = torch.tensor([[2, 0], [2, 4]]), torch.tensor([[4, 0], [2, 4]])
        >>> counts = Areas(intersection, prediction, label=torch.tensor([[2, 0], [2, 6]]))
        >>> class_level(counts, iou)  # ((1/2 + 1) / 2 + 2/3) / 2
        tensor(0.7083, dtype=torch.float64)
    """
    return class_scores(areas, score, present, absent).nanmean()


def pixel_accuracy(areas: Areas) -> Tensor:
    """Share of the true pixels that got the right label, over all images and classes, a float64 scalar in [0, 1].

    Args:
        areas: counts (B, C).

    Example:
        >>> pixel_accuracy(Areas(torch.tensor([[3, 0]]), torch.tensor([[4, 4]]), torch.tensor([[6, 2]])))
        tensor(0.3750, dtype=torch.float64)
    """
    return areas.intersection.sum().double() / areas.label.sum()


def image_accuracies(areas: Areas) -> Tensor:
    """Share of the true pixels of every image that got the right label: (B,) float64, NaN without any true pixel.

    Args:
        areas: counts (B, C).

    Example:
        >>> image_accuracies(Areas(torch.tensor([[3, 0]]), torch.tensor([[4, 4]]), torch.tensor([[6, 2]])))
        tensor([0.3750], dtype=torch.float64)
    """
    return areas.intersection.sum(1).double() / areas.label.sum(1)


def accuracy(areas: Areas, level: str) -> Tensor:
    """Accuracy at a level, a float64 scalar.

    Args:
        areas: counts (B, C).
        level: ``"dataset"`` is ``pixel_accuracy`` ("aAcc"), ``"image"`` the mean of ``image_accuracies``, and
            ``"class"`` the mean over classes of the recall of the pooled counts ("mAcc", mean class accuracy).

    Raises:
        ValueError: for an unknown level.

    Example:
        >>> counts = Areas(torch.tensor([[3, 0]]), torch.tensor([[4, 4]]), torch.tensor([[6, 2]]))
        >>> [accuracy(counts, level).item() for level in LEVELS]
        [0.375, 0.375, 0.25]
    """
    check_choice("level", level, tuple(LEVELS))
    if level == "dataset":
        return pixel_accuracy(areas)
    return image_accuracies(areas).nanmean() if level == "image" else dataset_level(areas, recall, present="label")


def class_table(areas: Areas, present: str = "union", absent: str = "skip") -> dict[str, Tensor]:
    """Every score of every class.

    Args:
        areas: counts (B, C).
        present: see ``entries``, as the next one.
        absent: what classes count that are not present.

    Returns:
        By name, (C,) each: ``"{score}_dataset"`` of the pooled counts and ``"{score}_class"``, the mean over the images
        of the class, as float64, NaN for a class never seen; ``"images"``, int64, the images whose truth holds it.

    Raises:
        ValueError: for an unknown ``present`` or ``absent``.

    Example:
        >>> intersection, prediction = torch.tensor([[2, 0], [2, 4]]), torch.tensor([[4, 0], [2, 4]])
        >>> counts = Areas(intersection, prediction, label=torch.tensor([[2, 0], [2, 6]]))
        >>> table = class_table(counts)
        >>> table["images"], table["iou_class"]
        (tensor([2, 1]), tensor([0.7500, 0.6667], dtype=torch.float64))
    """
    table = {}
    for name, score in SCORES.items():
        table[f"{name}_dataset"] = entries(pooled(areas), score, present, absent)
        table[f"{name}_class"] = class_scores(areas, score, present, absent)
    return {**table, "images": (areas.label > 0).sum(0)}


def worst(scores: Tensor, share: float) -> Tensor:
    """Mean of the lowest ``share`` of the scores, rounded up to whole entries: a float64 scalar.

    Args:
        scores: (N,) scores; NaN entries are left out.
        share: in (0, 1].

    Raises:
        ValueError: if ``share`` is not in (0, 1].

    Example:
        >>> worst(torch.tensor([0.9, 0.1, torch.nan, 0.5, 0.7]).double(), 0.5)  # the lower two of four
        tensor(0.3000, dtype=torch.float64)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    known = scores[~scores.isnan()].double().sort().values
    return known[: int(lowest(torch.tensor(len(known)), share))].mean()


def lowest(count: Tensor, share: float) -> Tensor:
    """How many of ``count`` entries are the lowest ``share``: rounded up, so at least one of any, as float64.

    Args:
        count: numbers of entries.
        share: in (0, 1].

    Example:
        >>> lowest(torch.tensor([0, 7, 30]), 0.1)
        tensor([0., 1., 3.], dtype=torch.float64)
    """
    # Without the factor rounding makes four entries of 0.1 * 30.
    return (count.double() * share * (1 - 1e-12)).ceil()


LEVELS: dict[str, Callable[..., Tensor]] = {
    "dataset": dataset_level,
    "image": image_level,
    "class": class_level,
}
SCORES: dict[str, Score] = {"iou": iou, "dice": dice, "precision": precision, "recall": recall}
