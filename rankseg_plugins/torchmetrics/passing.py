"""What ``MetricInputTransformer`` leaves out: everything beyond update and compute, passed on to what is wrapped."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.metric import CompositionalMetric
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper
from torchmetrics.wrappers.abstract import WrapperMetric
from torchmetrics.wrappers.transformations import MetricInputTransformer


class Passing(MetricInputTransformer):
    """A transformer that answers for the metric or collection it wraps."""

    # A decision carries no gradient.
    is_differentiable = False

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """What the wrapped metric says; None if the members of a collection disagree."""
        wrapped = self.wrapped_metric
        members = [wrapped] if isinstance(wrapped, Metric) else wrapped.values(copy_state=False)
        answers = {member.higher_is_better for member in members}
        return answers.pop() if len(answers) == 1 else None

    @property
    def full_state_update(self) -> bool | None:  # type: ignore[override]
        """Not for a wrapper; only ``Running`` asks, to copy a state that lies in the wrapped metric.

        Raises:
            ValueError: always.
        """
        name = type(self.wrapped_metric).__name__
        raise ValueError(
            f"Running cannot look into {type(self).__name__}: write {type(self).__name__}(Running({name}(...)), ...)"
        )

    @property
    def update_count(self) -> int:
        """Number of updates since the last reset."""
        return max((leaf.update_count for leaf in leaves(self.wrapped_metric)), default=0)

    @property
    def update_called(self) -> bool:
        """Whether there was an update since the last reset."""
        return self.update_count > 0

    @property
    def _forward_cache(self) -> Any:
        """The value of the last batch, which Lightning logs as ``..._step``."""
        return getattr(self.wrapped_metric, "_forward_cache", None)

    @_forward_cache.setter
    def _forward_cache(self, value: Any) -> None:
        # The base class resets its own, which is never used here.
        pass

    @property
    def metric_state(self) -> dict[str, Any]:
        """State of the wrapped metric, or by name of every member of the wrapped collection."""
        return self.wrapped_metric.metric_state

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Merge the state of another wrapper around the same kind of metric.

        Args:
            incoming_state: the other wrapper, or what its ``metric_state`` gave.

        Raises:
            ValueError: if it is neither, or the wrapped metrics differ in kind.
            RuntimeError: if the wrapped metric cannot merge states.
        """
        merge(self, incoming_state)

    def clone(self, prefix: str | None = None, postfix: str | None = None) -> Passing:
        """Make a copy.

        Args:
            prefix: put before the names of a wrapped collection, as its own ``clone`` does.
            postfix: put after them.

        Raises:
            ValueError: if there are no names, because a single metric is wrapped.
        """
        copied = copy.deepcopy(self)
        if isinstance(copied.wrapped_metric, MetricCollection):
            copied.wrapped_metric = copied.wrapped_metric.clone(prefix, postfix)
        elif not (prefix is None and postfix is None):
            raise ValueError(f"prefix and postfix are for collections, this wraps {type(self.wrapped_metric).__name__}")
        return copied

    def _load_from_state_dict(self, *args: Any) -> None:
        # The base class keeps the values computed before the state was loaded.
        for module in self.wrapped_metric.modules():
            if isinstance(module, Metric):
                module._computed = None
        super()._load_from_state_dict(*args)

    def persistent(self, mode: bool = False) -> None:
        """Choose whether the state of the wrapped metric is part of ``state_dict``."""
        for module in self.wrapped_metric.modules():
            if isinstance(module, Metric):
                module.persistent(mode)

    def set_dtype(self, dst_type: str | torch.dtype) -> Passing:
        """Convert the state of the wrapped metric."""
        self.wrapped_metric.set_dtype(dst_type)
        super().set_dtype(dst_type)
        return self

    def plot(self, val: Any = None, ax: Any = None, **kwargs: Any) -> Any:
        """Plot values as the wrapped metric does.

        Args:
            val: results of ``compute`` or ``forward``, one or a list of them; None computes.
            ax: matplotlib axes to draw on.
            kwargs: further arguments of the ``plot`` of the wrapped metric or collection.

        Returns:
            Figure and axes; a list of them for a collection.
        """
        return self.wrapped_metric.plot(val, ax, **kwargs)

    def _filter_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        # Only collections ask: what the wrapped metric does not know is meant for another member.
        wrapped = self.wrapped_metric
        if isinstance(wrapped, MetricCollection):
            return kwargs
        own = {name: kwargs.pop(name) for name in ("preds", "target") if name in kwargs}
        return own | wrapped._filter_kwargs(**kwargs)


def leaves(metric: Metric | MetricCollection) -> Iterator[Metric]:
    """Yield the metrics that do the scoring, below any wrappers, compositions and collections."""
    for module in metric.modules():
        if isinstance(module, Metric) and not isinstance(module, (WrapperMetric, CompositionalMetric)):
            yield module


def merge(own: Metric | MetricCollection, incoming: Any) -> None:
    """Merge ``incoming``, a metric built like ``own`` or its ``metric_state``, into ``own``."""
    if isinstance(own, MetricCollection):
        theirs = dict(incoming.items(copy_state=False)) if isinstance(incoming, MetricCollection) else incoming
        if not isinstance(theirs, dict) or theirs.keys() != set(own.keys()):
            raise ValueError(
                f"a collection of {sorted(map(str, own.keys()))} can only merge its like, got {incoming!r}"
            )
        for name, member in own.items(copy_state=False):
            merge(member, theirs[name])
    elif isinstance(own, BootStrapper):
        if not isinstance(incoming, BootStrapper) or len(incoming.metrics) != len(own.metrics):
            raise ValueError(f"a BootStrapper of {len(own.metrics)} copies can only merge its like, got {incoming!r}")
        for mine, other in zip(own.metrics, incoming.metrics, strict=True):
            merge(mine, other)  # type: ignore[arg-type]
    elif isinstance(own, Passing):
        merge(own.wrapped_metric, incoming.wrapped_metric if isinstance(incoming, Passing) else incoming)
    elif isinstance(own, ClasswiseWrapper):
        merge(own.metric, incoming.metric if isinstance(incoming, ClasswiseWrapper) else incoming)
    else:
        own.merge_state(incoming)
        # The base class keeps the value computed before the merge.
        own._computed = None
