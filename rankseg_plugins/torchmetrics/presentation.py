"""In which form a wrapped metric wants its predictions and truth, and how pixels without a class reach it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection, classification

from rankseg_plugins.core.inputs.probabilities import class_masks, missing_dimension
from rankseg_plugins.scores.truth import known_pixels
from rankseg_plugins.torchmetrics.passing import leaves
from rankseg_plugins.torchmetrics.summed import SummedMetric

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
        """Bring both into the form of the metric.

        Args:
            decision: int64 labels (B, *spatial) or bool masks (B, C, *spatial).
            truth: the ground truth in the form of ``rankseg_plugins.scores.truth.to_truth``.
            classes: C, the channels of the probabilities.

        Raises:
            ValueError: if the metric cannot take what there is.
        """
        if self.form == "either" and not (classes == 1 and self.num_classes == 2):
            return decision, truth
        of_masks = decision.ndim + (decision.dtype != torch.bool)
        if self.form != "one-hot":
            predicted = self._as_labels("the decoder", decision, decision.ndim == of_masks)
            return predicted, self._as_labels("target", truth, truth.ndim == of_masks)
        known = known_pixels(truth, self.ignore_index)
        predicted = self._as_masks(decision, classes)
        true = truth == 1 if truth.ndim == of_masks else self._as_masks(truth, classes)
        if known is not None and self.ignore_index is not None:
            out = ~known if truth.ndim == of_masks else ~known.unsqueeze(1)
            if self.ignores:
                return predicted.long(), true.long().masked_fill(out, self.ignore_index)
            predicted, true = predicted & ~out, true & ~out
        return (predicted.long(), true.long()) if self.kind == "multilabel" else (predicted, true)

    def check_classes(self, shape: tuple[int, ...]) -> None:
        """Raise a ``ValueError`` if the metric is not for probabilities of the shape (B, C, *spatial)."""
        # A one-channel decision also reads as two classes, background and foreground.
        allowed: tuple[int, ...]
        if self.kind == "binary":
            allowed, made = (1, 2), "scores one foreground class"
        elif self.num_classes is not None:
            allowed = (1, 2) if self.num_classes == 2 else (self.num_classes,)
            made = f"was made for {self.num_classes} classes"
        else:
            return
        if shape[1] not in allowed:
            lacking = missing_dimension("preds", shape, allowed)
            raise ValueError(f"{self.metric} {made}, got probabilities of {shape[1]} classes in shape {shape}{lacking}")

    def _as_labels(self, source: str, decided: Tensor, is_masks: bool) -> Tensor:
        if not is_masks:
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
        return decided if decided.dtype == torch.bool else class_masks(decided, classes)


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


def without_effect(metric: Metric | MetricCollection) -> list[str]:
    """What to warn of when it is made: options that decided labels leave without effect.

    Raises:
        ValueError: for an option that fails on them.
    """
    found = []
    for leaf in leaves(metric):
        name, threshold, top = type(leaf).__name__, getattr(leaf, "threshold", 0.5), getattr(leaf, "top_k", 1)
        if _kind(leaf) == "segmentation":
            continue
        if top not in (None, 1):
            raise ValueError(f"top_k={top} of {name} needs probabilities, and a decision has none: leave it out")
        if threshold != 0.5:
            found.append(
                f"threshold={threshold} of {name} has no effect: the decoder decides, and the metric gets its labels. "
                "Leave it out, or score the probabilities without RankSEGWrapper"
            )
    return list(dict.fromkeys(found))


def cautions(metric: Metric | MetricCollection, decoder: Any, decision: Tensor, classes: int) -> list[str]:
    """What to warn of at the first decision: averages that do not say what they seem to.

    Args:
        metric: what is wrapped.
        decoder: what decided.
        decision: int64 labels (B, *spatial) or bool masks (B, C, *spatial).
        classes: C, the channels of the probabilities.
    """
    labels = decision.dtype != torch.bool and getattr(decoder, "unassigned_policy", "max_score") != "void"
    return list(dict.fromkeys(text for leaf in leaves(metric) for text in _cautions_of_leaf(leaf, labels, classes)))


def _cautions_of_leaf(leaf: Metric, labels: bool, classes: int) -> Iterator[str]:
    kind, name, average = _kind(leaf), type(leaf).__name__, getattr(leaf, "average", None)
    if not getattr(leaf, "include_background", True):
        return
    as_two = classes == 1 and _num_classes(leaf, kind) == 2
    # Accuracy and its complement say what they are.
    meant = any(word in name for word in ("Accuracy", "Hamming", "StatScores"))
    if average == "micro" and not meant and (as_two or (labels and classes > 1)):
        yield (
            f"{name} has average='micro', which over one label per pixel is a form of pixel accuracy: argmax serves it "
            "best, RankSEG loses on it. Give average='macro', the mean of all classes (micro is the default of "
            "DiceScore before TorchMetrics 1.9, and of F1Score, FBetaScore, Precision and Recall)"
        )
    averages = average in ("macro", "weighted") or isinstance(leaf, SummedMetric)
    if not hasattr(leaf, "average") and hasattr(leaf, "include_background"):
        averages = not getattr(leaf, "per_class", False)
    if as_two and averages:
        instead = {"multiclass": f"use {name.replace('Multiclass', 'Binary')}", "multilabel": "give num_labels=1"}
        alone = "include_background=False" if hasattr(leaf, "include_background") else "num_classes=1"
        yield (
            f"{name} for 2 classes on one channel averages the background in: for the foreground alone "
            f"{instead.get(kind, f'give {alone}')}"
        )


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
    return Presentation(name, form, kind, _num_classes(leaf, kind), ignore_index, ignores)


def _num_classes(leaf: Metric, kind: str) -> int | None:
    return getattr(leaf, "num_labels" if kind == "multilabel" else "num_classes", None)


def _kind(leaf: Metric) -> str:
    for cls in type(leaf).__mro__:
        if cls.__module__.startswith("torchmetrics.classification"):
            for kind in ("binary", "multiclass", "multilabel"):
                if cls.__name__.lower().startswith(kind):
                    return kind
    return "segmentation"
