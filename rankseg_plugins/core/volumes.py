"""Masks that thresholds describe, and the rounding that comparisons with a threshold rest on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass
class Volumes:
    """The chosen mask of every image and class, each field (B, C): ``{p > threshold}``.

    ``threshold`` is in the precision in which probabilities are compared, rounded towards zero so that the
    comparison gives what the float64 threshold would. A class that is not active has threshold infinity.
    """

    threshold: Tensor
    n: Tensor
    s: Tensor
    mu: Tensor
    active: Tensor

    def only(self, active: Tensor) -> Volumes:
        """Those of some of the active classes, (B, C) bool; the masks of the others are empty."""
        kept = self.active & active
        return Volumes(self.threshold.masked_fill(~kept, math.inf), self.n * kept, self.s * kept, self.mu, kept)

    def to(self, device: torch.device | str) -> Volumes:
        """The same in the memory of another device."""
        return Volumes(*(table.to(device) for table in vars(self).values()))


class Classes(NamedTuple):
    """Which classes are decided on.

    Args:
        pruning: a class whose largest probability is not above it stays empty; one for all, or (B, C).
        choose: the masks of those of the others that are left, from the largest probability of every class (B, C) and
            RMA's masks, which it may write to; None leaves them all.
    """

    pruning: float | Tensor
    choose: Callable[[Tensor, Volumes], Volumes] | None = None


def round_down(threshold: Tensor, dtype: torch.dtype) -> Tensor:
    """Largest value of ``dtype`` not above a threshold >= 0: for p of that dtype, ``p > threshold`` stays the same."""
    rounded, known = threshold.to(dtype), torch.finfo(dtype)
    # The value before a normal one, and before a subnormal one; ONNX knows no nextafter.
    below = torch.minimum(rounded * (1 - known.eps / 2), rounded - known.smallest_normal * known.eps)
    return torch.where(rounded > threshold, below, rounded)
