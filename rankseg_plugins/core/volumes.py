"""Masks that thresholds describe, and the rounding that comparisons with a threshold rest on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.core.tables import Table, library, reader_like, to_tensor


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

    def only(self, active: Table) -> Volumes:
        """Those of some of the active classes, (B, C) bool; the masks of the others are empty."""
        threshold, n, s, kept = map(reader_like(active), (self.threshold, self.n, self.s, self.active))
        kept = kept & active
        threshold = library(kept).where(kept, threshold, math.inf)
        threshold, n, s, kept = map(to_tensor, (threshold, n * kept, s * kept, kept))
        return Volumes(threshold, n, s, self.mu, kept)

    def to(self, device: torch.device | str) -> Volumes:
        """The same in the memory of another device."""
        return Volumes(*(table.to(device) for table in vars(self).values()))


class Classes(NamedTuple):
    """Which classes are decided on.

    Args:
        pruning: a class whose largest probability is not above it stays empty; one for all, or (B, C).
        choose: which of the others are left, a table (B, C) bool, from the largest probability of every class (B, C)
            and RMA's masks; None leaves them all.
    """

    pruning: float | Tensor
    choose: Callable[[Tensor, Volumes], Table] | None = None


def round_down(threshold: Tensor, dtype: torch.dtype) -> Tensor:
    """Largest value of ``dtype`` not above a threshold >= 0: for p of that dtype, ``p > threshold`` stays the same."""
    rounded, known = threshold.to(dtype), torch.finfo(dtype)
    # The value before a normal one, and before a subnormal one; ONNX knows no nextafter.
    below = torch.minimum(rounded * (1 - known.eps / 2), rounded - known.smallest_normal * known.eps)
    return torch.where(rounded > threshold, below, rounded)
