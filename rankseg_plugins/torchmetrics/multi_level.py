"""Dice, IoU and other scores at dataset, image and class level, as a Metric and as a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import ABSENT
from rankseg_plugins.scores.levels import LEVELS, SCORES, entries
from rankseg_plugins.scores.levels import worst as worst_share
from rankseg_plugins.scores.sums import check_options, empty_sums, level_names, levels_of, sums_of, worst_name
from rankseg_plugins.scores.truth import count
from rankseg_plugins.torchmetrics.summed import SummedMetric


class MultiLevelScore(SummedMetric):
    """Score a segmentation at dataset, image and class level at once.

    * ``dataset``: pool the pixel counts of all images, score each class, average over classes;
    * ``image``: score each image and class, average over the classes of an image, then over images;
    * ``class``: score each image and class, average over the images of a class, then over classes;
    * the worst case of the last two: the same average over the lowest share of the images only.

    The state has a fixed size. The worst-case levels come from histograms: at most 1e-5 off for images, 1e-3 for
    classes; ``multi_level_score`` is exact.

    Args:
        num_classes: C, at least 1; 1 for one-channel (binary) models, whose only class is the foreground.
        score: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``, or several of them.
        levels: which of ``"dataset"``, ``"image"``, ``"class"`` to compute.
        ignore_index: label of the truth whose pixels count for no class, in truth and prediction alike.
        absent: what a class counts that neither truth nor prediction hold: ``"skip"`` leaves it out of the average,
            ``"zero"`` and ``"one"`` count it as such.
        worst: share in (0, 1] of the lowest scores that the worst-case levels average, or several; None for none.
        kwargs: as for every ``Metric``.

    Shape:
        - ``preds``: integer labels (B, *spatial) or bool masks (B, C, *spatial). Labels outside the class range,
          such as void, count for no class.
        - ``target``: labels (B, *spatial) or (B, 1, *spatial), or masks (B, C, *spatial).
        - Output: dict of float64 scalars, named like ``dice_image`` or ``dice_image_worst5``; NaN without any data.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is unknown or out of range.

    Source: Wang et al., "Revisiting evaluation metrics for semantic segmentation", NeurIPS 2023.

    Example:
        >>> metric = MultiLevelScore(num_classes=2, score="iou")
        >>> metric.update(torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]), torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]]))
        >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}
        {'iou_dataset': 0.75, 'iou_image': 0.6875, 'iou_class': 0.6875}
    """

    higher_is_better = True
    option_names = ("num_classes", "scores", "levels", "ignore_index", "absent", "worst")
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(
        self,
        num_classes: int,
        score: str | Sequence[str] = "dice",
        levels: Sequence[str] = tuple(LEVELS),
        ignore_index: int | None = None,
        absent: str = "skip",
        worst: float | Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scores, self.levels, self.worst = check_options(num_classes, score, levels, ignore_index, absent, worst)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.absent = absent
        self._add_sums(empty_sums(num_classes, self.scores, bool(self.worst)))

    @property
    def names(self) -> list[str]:
        """Names of the values that ``compute`` returns, in order.

        Example:
            >>> MultiLevelScore(num_classes=2, levels=["image", "class"], worst=0.05).names
            ['dice_image', 'dice_image_worst5', 'dice_class', 'dice_class_worst5']
        """
        return level_names(self.scores, self.levels, self.worst)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: decided labels or masks, see the class.
            target: truth, see the class.

        Raises:
            TypeError: if a tensor is of the wrong kind; probabilities must be decoded first.
            ValueError: if the shapes differ or a label is out of range.
        """
        counts = count(preds, target, self.num_classes, self.ignore_index)
        self._add_to_sums(sums_of(counts, self.scores, self.absent, bool(self.worst)))

    def _options_as_numbers(self) -> Tensor:
        """What the sums depend on. Small numbers: TorchMetrics compares states by their relative distance."""
        index = (0, 0, 0) if self.ignore_index is None else (1, *divmod(self.ignore_index, 1000))
        places = [self.scores.index(name) + 1 if name in self.scores else 0 for name in SCORES]
        return torch.tensor([self.num_classes, *index, list(ABSENT).index(self.absent), *places])

    def compute(self) -> dict[str, Tensor]:
        """Every level of every score."""
        return levels_of(self.metric_state, self.scores, self.levels, self.absent, self.worst)  # type: ignore[arg-type]


def multi_level_score(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    score: str | Sequence[str] = "dice",
    levels: Sequence[str] = tuple(LEVELS),
    ignore_index: int | None = None,
    absent: str = "skip",
    worst: float | Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Functional twin of ``MultiLevelScore``, on all images at once; its worst-case levels are exact.

    Args:
        preds: integer labels (B, *spatial) or bool masks (B, C, *spatial).
        target: labels (B, *spatial) or (B, 1, *spatial), or masks (B, C, *spatial).
        num_classes: see ``MultiLevelScore``, as all that follow.
        score: one or several scores.
        levels: one or several levels.
        ignore_index: label whose pixels do not count.
        absent: ``"skip"``, ``"zero"`` or ``"one"``.
        worst: one or several shares in (0, 1], or None.

    Returns:
        Float64 scalars by name.

    Raises:
        TypeError: if a tensor or an option is of the wrong kind.
        ValueError: for a bad option, shape or label.

    Example:
        >>> preds, target = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]), torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]])
        >>> multi_level_score(preds, target, num_classes=2, score="iou", levels=("image",), worst=0.5)
        {'iou_image': tensor(0.6875, dtype=torch.float64), 'iou_image_worst50': tensor(0.3750, dtype=torch.float64)}
    """
    scores, levels, shares = check_options(num_classes, score, levels, ignore_index, absent, worst)
    counts = count(preds, target, num_classes, ignore_index)
    result = {}
    for name in scores:
        table = entries(counts, SCORES[name], absent=absent)
        for level in levels:
            result[f"{name}_{level}"] = LEVELS[level](counts, SCORES[name], absent=absent)
            rows = {"dataset": [], "image": [table.nanmean(1)], "class": list(table.unbind(1))}[level]
            for share in shares if rows else ():
                lowest = torch.stack([worst_share(row, share) for row in rows])
                result[worst_name(name, level, share)] = lowest.nanmean()
    return result
