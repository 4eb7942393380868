"""A TorchMetrics wrapper that decodes before it scores."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from rankseg_plugins._warning import warn
from rankseg_plugins.calibration.deciding import as_decoder, decide
from rankseg_plugins.calibration.temperature import warn_if_softened
from rankseg_plugins.comparison.sample import describe_form
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice, check_probs, plain
from rankseg_plugins.scores.checks import check_index
from rankseg_plugins.scores.truth import to_truth
from rankseg_plugins.torchmetrics.passing import Passing
from rankseg_plugins.torchmetrics.presentation import (
    Presentation,
    cautions,
    presentation_of,
    shared_ignore_index,
    without_effect,
)


class RankSEGWrapper(Passing):
    """Decode probabilities with RankSEG, then score the labels with any TorchMetrics metric.

    The wrapped metric gets integer labels or masks, never floating point values, which it would arg-max again. Which
    of the two follows from the metric. Inside a ``MetricCollection`` the wrapper shares no state with other metrics;
    *around* a ``MetricCollection`` it decodes once for all its members.

    It warns, once, of options of the metric that have no effect on decided labels; of averages that come down to pixel
    accuracy, or hold the background of a single channel; and if softmax seems to have been applied twice.

    A checkpoint of a module that holds the wrapper never changes the decoder that was given, but fits a
    ``GlobalRankSEG`` that is not fitted.

    Args:
        metric: a ``Metric`` or ``MetricCollection``. The wrapper takes it over: where pixels have to be left out, its
            ``input_format`` becomes ``"one-hot"``, or its ``ignore_index`` the one given here.
        decoder: the decision, by default ``RankSEG()``. ``RankSEG(metric="acc")`` is plain argmax. A path is the file
            of a ``TunedDecoder``.
        activation: what turns ``preds`` into probabilities: ``"identity"`` (they are), ``"softmax"``, ``"sigmoid"`` or
            ``"normalize"``. Metrics get predictions, which may be either, hence the default: logits are refused by it.
        ignore_index: label of the truth whose pixels count for no class, in truth and prediction alike. None takes the
            ``ignore_index`` of ``metric``, if it has one.
        kwargs: none: those of every ``Metric`` (``dist_sync_on_step``, ``compute_on_cpu``, ...) belong to ``metric``,
            which keeps the state.

    Shape:
        - ``preds``: (B, C, *spatial), floating point.
        - ``target``: labels (B, *spatial) or (B, 1, *spatial), or masks (B, C, *spatial). With one channel the
          labels are 0 and 1.

    Raises:
        TypeError: if ``metric`` is not a metric, ``decoder`` cannot be called or ``ignore_index`` is no integer.
        ValueError: for an unknown activation, a file that holds no decoder, a metric that does not fit the decoder or
            ``ignore_index``, or further arguments; when it is used, for probabilities of another number of classes than
            a tuned decoder's.
        OSError: if the file cannot be read.

    Example:
        >>> from rankseg_plugins import RankSEG
        >>> from torchmetrics.segmentation import DiceScore
        >>> probs = torch.tensor([[[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]]])  # 1 image, 2 classes, 3 pixels
        >>> metric = RankSEGWrapper(DiceScore(num_classes=2, average="macro"), RankSEG(metric="dice"), ignore_index=255)
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
        if kwargs:
            raise ValueError(
                f"{', '.join(kwargs)} has no effect here, where no state is kept: give it to the metric that is wrapped"
            )
        check_choice("activation", activation, ACTIVATIONS)
        check_index("ignore_index", ignore_index)
        if any(isinstance(module, RankSEGWrapper) for module in metric.modules()):
            raise ValueError("metric holds a RankSEGWrapper already: what is decided cannot be decoded again")
        self.decoder = as_decoder(decoder)
        self.activation = activation
        self._checked = False
        self.ignore_index = shared_ignore_index(self.wrapped_metric) if ignore_index is None else ignore_index
        self.presentations = self._settle()
        for text in without_effect(self.wrapped_metric):
            warn(text)

    def _settle(self) -> tuple[Presentation, ...]:
        """One presentation for everything that is wrapped, or those of a collection whose members have their own."""
        if isinstance(self.wrapped_metric, Metric):
            return (presentation_of(self.wrapped_metric, self.decoder, self.ignore_index),)
        collection, members = self.wrapped_metric, dict(self.wrapped_metric.items(keep_base=True, copy_state=False))
        found = {name: presentation_of(m, self.decoder, self.ignore_index) for name, m in members.items()}
        if not found:
            raise ValueError("metric is a MetricCollection without any metric")
        if len(set(found.values())) == 1:
            return (next(iter(found.values())),)
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
        return tuple(found.values())

    @torch.no_grad()
    def transform_pred(self, pred: Tensor) -> Tensor:
        """Decode: (B, C, *spatial) probabilities or logits to int64 labels or bool masks."""
        pred = plain(pred)
        decision = decide(self.decoder, pred, self.activation)
        if len(pred) and not self._checked:
            self._checked = True
            warn_if_softened(pred[:1], self.activation)
            for text in cautions(self.wrapped_metric, self.decoder, decision, pred.shape[1]):
                warn(text)
        return decision

    def _wrap_transform(self, *args: Any) -> tuple[Any, ...]:
        preds, target, *others = args
        preds = plain(preds)
        if isinstance(preds, Tensor) and not preds.is_floating_point():
            raise TypeError(f"preds must be floating point, got {preds.dtype}: decided labels go to the metric itself")
        check_probs("preds", preds)
        for presentation in self.presentations:
            presentation.check_classes(tuple(preds.shape))
        classes = preds.shape[1]
        truth = to_truth(target, classes, tuple(preds.shape[2:]), self.ignore_index)
        if len(truth) != len(preds):
            raise ValueError(f"preds and target must hold the same images, got {len(preds)} and {len(truth)}")
        first = not self._checked
        decision = self.transform_pred(preds)
        problem = describe_form(preds, self.activation, truth, decision) if first else None
        if problem is not None:
            warn(problem)
        if len(self.presentations) > 1:
            return (decision, truth, classes, *others)
        return (*self.presentations[0](decision, truth, classes), *others)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Merge the state of another wrapper around the same kind of metric.

        Args:
            incoming_state: the other wrapper, which must decide alike, or what its ``metric_state`` gave.

        Raises:
            ValueError: if it is neither, decides otherwise, or the wrapped metrics differ in kind.
            RuntimeError: if the wrapped metric cannot merge states.
        """
        if isinstance(incoming_state, RankSEGWrapper):
            names = ["activation", "ignore_index"]
            if isinstance(self.decoder, torch.nn.Module):  # others cannot be told apart by what they say of themselves
                names.append("decoder")
            for name in names:
                own, other = (repr(getattr(each, name)) for each in (self, incoming_state))
                if own != other:
                    raise ValueError(f"only what was decided alike can be merged: {name} is {own} here, {other} there")
        super().merge_state(incoming_state)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self._keep_decoder(state_dict, f"{prefix}decoder.")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _keep_decoder(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Leave of a checkpoint what the decoder needs, and warn of what differs from the decoder that was given."""
        own = self.decoder.state_dict() if isinstance(self.decoder, torch.nn.Module) else {}
        own = {prefix + key: value for key, value in own.items()}
        given = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
        alike = given.keys() == own.keys() and all(given[key].shape == value.shape for key, value in own.items())
        fitted = getattr(self.decoder, "fitted", None)
        if fitted is not None and alike:
            settled = own if fitted else [key for key in own if key == f"{prefix}multilabel"]
            alike = all(torch.equal(given[key].to(own[key]), own[key]) for key in settled)
        if alike:
            return
        warn(
            f"{prefix.removesuffix('.')}: the checkpoint was made with another decoder; {type(self.decoder).__name__} "
            "stays as it was given. To decide by what the checkpoint holds, give RankSEGWrapper that decoder, a "
            "PresenceRankSEG or GlobalRankSEG without a fit"
        )
        for key in given:
            del state_dict[key]
        state_dict.update(own)

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
