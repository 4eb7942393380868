"""Metrics whose state are sums of a fixed size that mean nothing beside sums of other options."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


class SummedMetric(Metric):
    """A metric that adds up, over batches, processes and runs, what was summed with the same options."""

    full_state_update = False
    is_differentiable = False
    #: Attributes that two metrics must share to be merged.
    option_names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def _options_as_numbers(self) -> Tensor:
        """What the sums depend on. Small numbers: TorchMetrics compares states by their relative distance."""

    def _add_sums(self, empty: Mapping[str, Tensor]) -> None:
        # Options first, so that nothing of another kind is added up. They also keep a MetricCollection from sharing the
        # sums of scores that happen to agree on the first batch.
        equal = partial(_equal, type(self).__name__)
        self.add_state("options", default=self._options_as_numbers(), dist_reduce_fx=equal)
        for name, value in empty.items():
            self.add_state(name, default=value, dist_reduce_fx="sum")

    def _add_to_sums(self, sums: Mapping[str, Tensor]) -> None:
        for name, value in sums.items():
            setattr(self, name, getattr(self, name) + value)

    def merge_state(self, incoming_state: dict[str, Any] | Metric) -> None:
        """Add the images of another one.

        Args:
            incoming_state: a metric of this class with the same options, or its ``metric_state``.

        Raises:
            ValueError: if it is neither, or its options differ.
        """
        if isinstance(incoming_state, type(self)):
            for name in self.option_names:
                own, other = getattr(self, name), getattr(incoming_state, name)
                if own != other:
                    raise ValueError(f"sums of other options cannot be merged: {name} is {own!r} here, {other!r} there")
        elif isinstance(incoming_state, dict) and not self._defaults.keys() <= incoming_state.keys():
            lacking = ", ".join(self._defaults.keys() - incoming_state.keys())
            kind = type(self).__name__
            raise ValueError(f"incoming_state must be the metric_state of a {kind} like this, lacks {lacking}")
        super().merge_state(incoming_state)
        # The base class knows neither of the new images nor that what was computed is stale.
        self._update_count += incoming_state.update_count if isinstance(incoming_state, Metric) else 1
        self._computed = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        theirs = state_dict.get(f"{prefix}options")
        if theirs is not None and not torch.equal(theirs.cpu(), self._options_as_numbers()):
            *_, errors = args
            errors.append(f"{prefix}{type(self).__name__}: the sums are of other options (num_classes, score, ...)")
            return
        super()._load_from_state_dict(state_dict, prefix, *args)
        # The base class keeps what was computed before.
        self._computed = None

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot one or several results.

        Args:
            val: results of ``compute`` or ``forward``, one or a list of them; None computes.
            ax: matplotlib axes to draw on.

        Returns:
            Figure and axes.
        """
        return self._plot(val, ax)


def _equal(kind: str, options: Tensor) -> Tensor:
    """One of several rows that must be equal."""
    if not (options == options[:1]).all():
        raise ValueError(f"sums of {kind} of other options (num_classes, score, ...) cannot be added up")
    return options[0]
