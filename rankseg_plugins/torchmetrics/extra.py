"""Boundaries, lesions and other extra scores as a Metric."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import ABSENT, PRESENT, read_index, read_integer
from rankseg_plugins.core.inputs.probabilities import check_choice, plain
from rankseg_plugins.scores.extra import ExtraScore, columns_of, entries, measure_extra, read_extra, read_spacing
from rankseg_plugins.scores.truth import count, to_truth
from rankseg_plugins.torchmetrics.summed import SummedMetric


class ExtraScores(SummedMetric):
    """Measure boundaries, lesions or other extra scores of every image, and average them at image and class level.

    * ``image``: the mean over the classes of an image, then over images;
    * ``class``: the mean over the images of a class, then over classes.

    The state has a fixed size. Measured on the CPU, one class of one image at a time.

    Args:
        extra: one extra score or several, such as
            ``Boundaries(2)`` and ``Lesions()``.
        num_classes: C, at least 1; 1 for one-channel (binary) models, whose only class is the foreground.
        ignore_index: label of the truth whose pixels are taken out of truth and prediction alike.
        present: which classes count in an image: those in truth or prediction (``"union"``), or in the truth
            (``"label"``). A share, such as surface Dice, is 0 where a class that counts is missing from one of them;
            a distance counts where both hold the class.
        absent: what a share of a class is that does not count: ``"skip"`` leaves it out of the averages, ``"zero"`` and
            ``"one"`` count it as such.
        spacing: size of a pixel along every axis, in mm; None is not known.
        kwargs: as for every ``Metric``.

    Shape:
        - ``preds``: integer labels (B, *spatial) or bool masks (B, C, *spatial).
        - ``target``: labels (B, *spatial) or (B, 1, *spatial), or masks (B, C, *spatial).
        - Output: dict of float64 scalars, named like ``nsd_2px_image``; NaN where there is none.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is unknown or out of range.
        ImportError: when it is updated, if SciPy is not installed.

    Example:
        >>> from rankseg_plugins.scores.boundaries import Boundaries
        >>> metric = ExtraScores(Boundaries(0), num_classes=1)
        >>> metric.update(torch.tensor([[0, 1, 1, 1, 1, 0]]), torch.tensor([[0, 1, 1, 1, 0, 0]]))
        >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}  # doctest: +NORMALIZE_WHITESPACE
        {'nsd_0px_image': 0.5, 'nsd_0px_class': 0.5, 'hd95_px_image': 0.95, 'hd95_px_class': 0.95,
         'assd_px_image': 0.5, 'assd_px_class': 0.5}
    """

    image_sum: Tensor
    image_count: Tensor
    class_sum: Tensor
    class_count: Tensor
    higher_is_better = None
    option_names = ("extra", "num_classes", "ignore_index", "present", "absent", "spacing")

    def __init__(
        self,
        extra: ExtraScore | Sequence[ExtraScore],
        num_classes: int,
        ignore_index: int | None = None,
        present: str = "union",
        absent: str = "skip",
        spacing: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = read_integer("num_classes", num_classes, least=1)
        self.extra = read_extra(extra, self.num_classes)
        if not self.extra:
            raise ValueError("extra must hold at least one score, got none")
        self.ignore_index = read_index("ignore_index", ignore_index)
        check_choice("present", present, PRESENT)
        check_choice("absent", absent, tuple(ABSENT))
        self.present, self.absent = present, absent
        self.spacing = read_spacing("spacing", spacing)
        kinds = len(columns_of(self.extra))
        self._add_sums(
            {
                "image_sum": torch.zeros(kinds, dtype=torch.float64),
                "image_count": torch.zeros(kinds, dtype=torch.int64),
                "class_sum": torch.zeros(kinds, self.num_classes, dtype=torch.float64),
                "class_count": torch.zeros(kinds, self.num_classes, dtype=torch.int64),
            }
        )

    def update(self, preds: Tensor, target: Tensor, spacing: Sequence[float] | None = None) -> None:
        """Add a batch.

        Args:
            preds: decided labels or masks, see the class.
            target: truth, see the class.
            spacing: of the images of this batch; None is that of the metric.

        Raises:
            TypeError: if a tensor is of the wrong kind; probabilities must be decoded first.
            ValueError: if the shapes differ, a label is out of range, or the spacing is needed and not known.
        """
        counts = count(preds, target, self.num_classes, self.ignore_index)
        preds = plain(preds)
        truth = to_truth(
            target, self.num_classes, tuple(preds.shape[1 + (preds.dtype == torch.bool) :]), self.ignore_index
        )
        size = self.spacing if spacing is None else read_spacing("spacing", spacing)
        values = [
            measure_extra(self.extra, decided, true, self.num_classes, ignore_index=self.ignore_index, spacing=size)
            for decided, true in zip(preds, truth, strict=True)
        ]
        if values:
            held = (counts.union if self.present == "union" else counts.label).cpu().numpy() > 0
            self._add_entries(
                torch.from_numpy(entries(np.stack(values), self.extra, held, self.absent)).to(preds.device)
            )

    def _add_entries(self, found: Tensor) -> None:
        """Add figures (B, K, C) that count, NaN where there is none."""
        images = found.nanmean(2)
        self._add_to_sums(
            {
                "image_sum": images.nansum(0),
                "image_count": (~images.isnan()).sum(0),
                "class_sum": found.nansum(0),
                "class_count": (~found.isnan()).sum(0),
            }
        )

    def compute(self) -> dict[str, Tensor]:
        """Every figure at both levels."""
        images = self.image_sum / self.image_count
        classes = (self.class_sum / self.class_count).nanmean(1)
        levels = {"image": images, "class": classes}
        names = [column.name for column in columns_of(self.extra)]
        return {f"{name}_{level}": levels[level][index] for index, name in enumerate(names) for level in levels}

    def _options_as_numbers(self) -> Tensor:
        options = repr([getattr(self, name) for name in self.option_names])
        return torch.tensor(list(hashlib.sha256(options.encode()).digest()))
