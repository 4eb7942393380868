"""Masks that thresholds describe, and the rounding that comparisons with a threshold rest on."""

from __future__ import annotations

from dataclasses import dataclass

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


def round_down(threshold: Tensor, dtype: torch.dtype) -> Tensor:
    """Largest value of ``dtype`` not above ``threshold``: for p of that dtype, ``p > threshold`` stays the same."""
    rounded = threshold.to(dtype)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded > threshold, below, rounded)
