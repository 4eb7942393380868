"""In which form a wrapped metric wants its predictions and truth, and how pixels without a class reach it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection, classification

from rankseg_plugins.torchmetrics.passing import leaves

#: Metrics of these kinds, and all that derive from them (AUROC, ROC, average precision), score probabilities.
OF_PROBABILITIES = (
    classification.BinaryPrecisionRecallCurve,
    classification.MulticlassPrecisionRecallCurve,
    classification.MultilabelPrecisionRecallCurve,
    classification.BinaryCalibrationError,
    classification.MulticlassCalibrationError,
    classification.BinaryHingeLoss,
    classification.MulticlassHingeLoss,
    classification.MultilabelCoverageError,
    classification.MultilabelRankingAveragePrecision,
    classification.MultilabelRankingLoss,
)


@dataclass(frozen=True)
class Presentation:
    """How decided labels or masks are handed to one metric.

    Args:
        metric: class name, for messages only.
        form: ``"index"`` class labels, ``"one-hot"`` masks, ``"either"`` whatever the decoder gives.
        kind: ``"binary"``, ``"multiclass"`` or ``"multilabel"`` for classification metrics, ``"segmentation"`` for the
            rest.
        num_classes: as the metric was told, or None.
        ignore_index: label of the truth whose pixels do not count.
        ignores: whether the metric itself leaves these pixels out.
    """

    metric: str = field(compare=False)
    form: str
    kind: str
    num_classes: int | None
    ignore_index: int | None
    ignores: bool

    def __call__(self, decision: Tensor, truth: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        r"""Bring both into the form of the metric.

        Args:
            decision: int64 labels (B, \*spatial) or bool masks (B, C, \*spatial).
            truth: the same for the ground truth.
            classes: C, the channels of the probabilities.

        Raises:
            ValueError: if the metric cannot take what there is.
        """
        self._check_classes(classes)
        if self.form == "either" and not (classes == 1 and self.num_classes == 2):
            return decision, truth
        if self.form != "one-hot":
            return self._as_labels("the decoder", decision), self._as_labels("target", truth)
        predicted, true = self._as_masks(decision, classes), self._as_masks(truth, classes)
        if self.ignore_index is not None and truth.dtype != torch.bool:
            out = (truth == self.ignore_index).unsqueeze(1)
            if self.ignores:
                return predicted.long(), true.long().masked_fill(out, self.ignore_index)
            predicted, true = predicted & ~out, true & ~out
        return (predicted.long(), true.long()) if self.kind == "multilabel" else (predicted, true)

    def _check_classes(self, classes: int) -> None:
        # A one-channel decision also reads as two classes, background and foreground.
        given = (1, 2) if classes == 1 else (classes,)
        if self.kind == "binary" and classes > 2:
            raise ValueError(f"{self.metric} scores one foreground class, got probabilities of {classes} classes")
        if self.num_classes is not None and self.num_classes not in given:
            raise ValueError(f"{self.metric} was made for {self.num_classes} classes, got probabilities of {classes}")

    def _as_labels(self, source: str, decided: Tensor) -> Tensor:
        if decided.dtype != torch.bool:
            return decided
        if decided.shape[1] != 1:
            raise ValueError(
                f"{self.metric} takes one label per pixel, {source} gives {decided.shape[1]} masks that may overlap; "
                "use a metric for masks (input_format='one-hot' or Multilabel...), or labels and "
                "output_mode='multiclass'"
            )
        return decided[:, 0].long()

    def _as_masks(self, decided: Tensor, classes: int) -> Tensor:
        if classes == 1:
            foreground = decided if decided.dtype == torch.bool else (decided == 1).unsqueeze(1)
            return torch.cat([~foreground, foreground], 1) if self.num_classes == 2 else foreground
        if decided.dtype == torch.bool:
            return decided
        numbers = torch.arange(classes, device=decided.device).view(1, -1, *[1] * (decided.ndim - 1))
        return decided.unsqueeze(1) == numbers


def presentation_of(metric: Metric, decoder: Any, ignore_index: int | None) -> Presentation:
    """Find the form that fits ``metric``, and settle with it who leaves ``ignore_index`` out.

    A metric with an own ``ignore_index`` is told the value if it has none yet. One without (all of
    ``torchmetrics.segmentation``) gets masks in which such a pixel belongs to no class; for this, and for the pixels a
    decoder leaves void, its ``input_format`` is set to ``"one-hot"``.

    Raises:
        ValueError: if the metric scores probabilities, ignores another label, cannot leave pixels out, or its parts
            want different forms.
    """
    found = list(dict.fromkeys(_presentation_of_leaf(leaf, decoder, ignore_index) for leaf in leaves(metric)))
    if len(found) != 1:
        forms = ", ".join(f"{part.metric} ({part.form})" for part in found)
        raise ValueError(f"the parts of {type(metric).__name__} want predictions in different forms: {forms or 'none'}")
    return found[0]


def shared_ignore_index(metric: Metric | MetricCollection) -> int | None:
    """The ``ignore_index`` that all metrics below ``metric`` were given, None if they differ or one has none."""
    found = {getattr(leaf, "ignore_index", None) for leaf in leaves(metric)}
    return found.pop() if len(found) == 1 else None


def _presentation_of_leaf(leaf: Metric, decoder: Any, ignore_index: int | None) -> Presentation:
    kind, name = _kind(leaf), type(leaf).__name__
    if isinstance(leaf, OF_PROBABILITIES):
        raise ValueError(f"{name} scores probabilities, and a decision has none: use it without RankSEGWrapper")
    form = {"multilabel": "one-hot", "segmentation": "either"}.get(kind, "index")
    has_void = getattr(decoder, "unassigned_policy", "max_score") == "void"
    if hasattr(leaf, "input_format"):
        if leaf.input_format == "mixed" or ignore_index is not None or has_void:
            leaf.input_format = "one-hot"
        form = str(leaf.input_format)
    elif form == "index" and has_void:
        raise ValueError(f"{name} needs a class for every pixel, the decoder has unassigned_policy='void'")
    ignores = hasattr(leaf, "ignore_index")
    if ignores and ignore_index is not None:
        if leaf.ignore_index is None:
            leaf.ignore_index = ignore_index
        elif leaf.ignore_index != ignore_index:
            raise ValueError(
                f"ignore_index={ignore_index} and the ignore_index={leaf.ignore_index} of {name} differ; give one value"
            )
    if not ignores and ignore_index is not None and form != "one-hot":
        raise ValueError(
            f"{name} has no ignore_index and no input_format='one-hot', so pixels cannot be left out; leave out "
            f"ignore_index={ignore_index}"
        )
    num_classes = getattr(leaf, "num_labels" if kind == "multilabel" else "num_classes", None)
    return Presentation(name, form, kind, num_classes, ignore_index, ignores)


def _kind(leaf: Metric) -> str:
    for cls in type(leaf).__mro__:
        if cls.__module__.startswith("torchmetrics.classification"):
            for kind in ("binary", "multiclass", "multilabel"):
                if cls.__name__.lower().startswith(kind):
                    return kind
    return "segmentation"
