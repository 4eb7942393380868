"""A TorchMetrics wrapper that decodes before it scores."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.probabilities import ACTIVATIONS, check_choice, check_floating, check_shape, to_probabilities
from rankseg_plugins.evaluation.checks import check_index
from rankseg_plugins.evaluation.temperature import warn_if_softened
from rankseg_plugins.evaluation.truth import to_truth
from rankseg_plugins.evaluation.tuned import as_decoder
from rankseg_plugins.torchmetrics.passing import Passing
from rankseg_plugins.torchmetrics.presentation import Presentation, presentation_of, shared_ignore_index


class RankSEGWrapper(Passing):
    r"""Decode probabilities with RankSEG, then score the labels with any TorchMetrics metric.

    The wrapped metric gets integer labels or masks, never floating point values, which it would arg-max again. Which
    of the two follows from the metric. The first image is checked: a warning tells if softmax seems to have been
    applied twice. Inside a ``MetricCollection`` the wrapper shares no state with other metrics;
    *around* a ``MetricCollection`` it decodes once for all its members.

    Args:
        metric: a ``Metric`` or ``MetricCollection``. The wrapper takes it over: where pixels have to be left out, its
            ``input_format`` becomes ``"one-hot"``, or its ``ignore_index`` the one given here.
        decoder: the decision, by default ``RankSEG()``. ``RankSEG(metric="acc")`` is plain argmax. A path is the file
            of a :class:`~rankseg_plugins.evaluation.TunedDecoder`.
        activation: what turns ``preds`` into probabilities: ``"identity"`` (they are), ``"softmax"``, ``"sigmoid"`` or
            ``"normalize"``.
        ignore_index: label of the truth whose pixels count for no class, in truth and prediction alike. None takes the
            ``ignore_index`` of ``metric``, if it has one.
        kwargs: as for every ``Metric``.

    Shape:
        - ``preds``: (B, C, \*spatial), floating point.
        - ``target``: labels (B, \*spatial) or (B, 1, \*spatial), or masks (B, C, \*spatial). With one channel the
          labels are 0 and 1.

    Raises:
        TypeError: if ``metric`` is not a metric, ``decoder`` cannot be called or ``ignore_index`` is no integer.
        ValueError: for an unknown activation, a file that holds no decoder, or a metric that does not fit the decoder
            or ``ignore_index``; when it is used, for probabilities of another number of classes than a tuned decoder's.
        OSError: if the file cannot be read.

    Example:
        >>> from torchmetrics.segmentation import DiceScore
        >>> probs = torch.tensor([[[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]]])  # 1 image, 2 classes, 3 pixels
        >>> metric = RankSEGWrapper(DiceScore(num_classes=2), RankSEG(metric="dice"), ignore_index=255)
        >>> metric(probs, torch.tensor([[0, 255, 1]]))
        tensor(1.)
    """

    def __init__(
        self,
        metric: Metric | MetricCollection,
        decoder: torch.nn.Module | str | os.PathLike[str] | None = None,
        activation: str = "identity",
        ignore_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(metric, **kwargs)
        decoder = RankSEG() if decoder is None else as_decoder(decoder)
        check_choice("activation", activation, ACTIVATIONS)
        check_index("ignore_index", ignore_index)
        if any(isinstance(module, RankSEGWrapper) for module in metric.modules()):
            raise ValueError("metric holds a RankSEGWrapper already: what is decided cannot be decoded again")
        self.decoder = decoder
        self.activation = activation
        self._checked = False
        self.ignore_index = shared_ignore_index(self.wrapped_metric) if ignore_index is None else ignore_index
        self.presentation = self._settle()

    def _settle(self) -> Presentation | None:
        """One presentation for everything that is wrapped, or None if each member of a collection has its own."""
        if isinstance(self.wrapped_metric, Metric):
            return presentation_of(self.wrapped_metric, self.decoder, self.ignore_index)
        collection, members = self.wrapped_metric, dict(self.wrapped_metric.items(keep_base=True, copy_state=False))
        found = {name: presentation_of(m, self.decoder, self.ignore_index) for name, m in members.items()}
        if len(set(found.values())) == 1:
            return next(iter(found.values()))
        if any(len(group) > 1 for group in collection.compute_groups.values()):
            raise ValueError(
                "the metrics of the collection want predictions in different forms, so they cannot share state: make "
                "it with compute_groups=False"
            )
        self.wrapped_metric = MetricCollection(
            {name: _Presented(members[name], found[name]) for name in members},
            prefix=collection.prefix,
            postfix=collection.postfix,
            compute_groups=False,
        )
        return None

    @torch.no_grad()
    def transform_pred(self, pred: Tensor) -> Tensor:
        r"""Decode: (B, C, \*spatial) probabilities or logits to int64 labels or bool masks."""
        probs = to_probabilities(pred, self.activation)
        if len(probs) and not self._checked:
            self._checked = True
            warn_if_softened(probs[:1])
        return self.decoder(probs)

    def _wrap_transform(self, *args: Any) -> tuple[Any, ...]:
        preds, target, *others = args
        check_floating("preds", preds)
        check_shape(preds)
        classes = preds.shape[1]
        truth = to_truth(target, classes, tuple(preds.shape[2:]), self.ignore_index)
        if len(truth) != len(preds):
            raise ValueError(f"preds and target must hold the same images, got {len(preds)} and {len(truth)}")
        decision = self.transform_pred(preds)
        if self.presentation is None:
            return (decision, truth, classes, *others)
        return (*self.presentation(decision, truth, classes), *others)

    def update(  # type: ignore[override]  # names, so that preds= and target= work
        self, preds: Tensor, target: Tensor, *args: Any, **kwargs: Any
    ) -> None:
        """Decode ``preds`` and update the wrapped metric; further arguments go to it unchanged."""
        self.wrapped_metric.update(*self._wrap_transform(preds, target, *args), **kwargs)

    def forward(  # type: ignore[override]
        self, preds: Tensor, target: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Decode ``preds``, update the wrapped metric and return its value for this batch."""
        return self.wrapped_metric.forward(*self._wrap_transform(preds, target, *args), **kwargs)


class _Presented(Passing):
    """One member of a collection whose members want different forms."""

    def __init__(self, metric: Metric, presentation: Presentation) -> None:
        super().__init__(metric)
        self.presentation = presentation

    def _wrap_transform(self, *args: Any) -> tuple[Any, ...]:
        decision, truth, classes, *others = args
        return (*self.presentation(decision, truth, classes), *others)
