"""What is decided on: the output of a network, and how it becomes probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import read_real
from rankseg_plugins.core.inputs.probabilities import (
    ACTIVATIONS,
    check_choice,
    check_probs,
    check_range,
    check_single_channel,
    check_valid_mask,
    extent,
    plain,
    to_probabilities,
)

#: Temperatures that make a difference: beyond them, all probabilities are as good as equal, or 0 and 1.
TEMPERATURE_RANGE = (1e-3, 1e3)


@dataclass(frozen=True)
class Pixels:
    """Values of a network and what makes them probabilities.

    Args:
        values: (B, C, *spatial), floating point.
        valid: optional bool, (B, *spatial) or (*spatial); False marks pixels whose probabilities count as 0.
        activation: see ``to_probabilities``.
        temperature: divides the values, of softmax and sigmoid.
    """

    values: Tensor
    valid: Tensor | None = None
    activation: str = "identity"
    temperature: float = 1.0

    @classmethod
    def of_logits(
        cls,
        logits: Tensor,
        activation: str,
        valid_mask: Tensor | None,
        temperature: float,
        num_classes: int | None = None,
    ) -> Pixels:
        """From what a user gives.

        Raises:
            TypeError: for values of the wrong type.
            ValueError: for a wrong shape, an unknown activation, one that has no effect on a single channel, or a
                temperature where there are no logits to divide.
        """
        logits, valid_mask = plain(logits), plain(valid_mask)
        check_choice("activation", activation, ACTIVATIONS)
        check_probs("logits", logits, num_classes)
        check_single_channel(logits, activation)
        check_valid_mask(logits, valid_mask)
        temperature = read_real("temperature", temperature, *TEMPERATURE_RANGE)
        if temperature != 1 and activation not in ("softmax", "sigmoid"):
            raise ValueError(
                f"temperature={temperature:g} divides logits, and activation={activation!r} takes none; use 'softmax' "
                "or 'sigmoid', or leave it at 1"
            )
        return cls(logits, valid_mask, activation, temperature)

    @property
    def compete(self) -> bool:
        """Whether the probabilities of a pixel add up to 1 by their making."""
        return self.activation in ("softmax", "normalize")

    def probs(self) -> Tensor:
        """All probabilities (B, C, *spatial)."""
        if self.activation == "identity":
            return self.values
        values = self.values
        if self.valid is not None:
            # What lies outside may be anything, such as NaN.
            values = values.masked_fill(~self.valid.unsqueeze(1 - values.ndim), 0.0)
        return self.activate(values)

    def activate(self, values: Tensor) -> Tensor:
        """Probabilities of these values (B, C, *spatial), or of some of their pixels."""
        if self.temperature != 1:
            values = values if values.dtype == torch.float64 else values.float()
            # float32, as TemperatureScaling holds it.
            values = values / torch.full((1,), self.temperature, device=values.device)
        return to_probabilities(values, self.activation)

    def strips(self, values: int) -> Iterator[Pixels]:
        """These pixels cut along their first dimension, about as many ``values`` at a time."""
        lines = self.values.shape[2]
        step = max(1, values * lines // self.values.numel())
        for first in range(0, lines, step):
            number = min(step, lines - first)
            valid = self.valid
            if valid is not None:
                valid = valid.narrow(valid.ndim - (self.values.ndim - 2), first, number)
            yield replace(self, values=self.values.narrow(2, first, number), valid=valid)

    def check(self) -> bool:
        """Look at every value; return whether probabilities lie a little outside of [0, 1].

        Raises:
            ValueError: for values that are no probabilities, or of which none can be made: NaN; infinite ones, where
                softmax and normalize would divide by them.
        """
        values = self.values
        if self.valid is not None:
            values = values.masked_fill(~self.valid.unsqueeze(1 - values.ndim), 0.0)
        if not values.numel():
            return False
        low, high = extent(values)
        if self.activation == "identity":
            return check_range(low, high)
        if low < 0 and self.activation == "normalize":
            raise ValueError(
                f"activation='normalize' needs non-negative scores, the smallest is {low:.4g}; use 'softmax' for logits"
            )
        unbounded = self.compete and (high == math.inf or bool((values == -math.inf).all(1).any()))
        if math.isnan(low) or unbounded:
            raise ValueError("logits must be finite, got NaN or infinite values")
        return False
