"""Refined normal approximation of the Poisson binomial distribution, the count of independent unequal coin flips.

    P(Z <= k) is about G((k + 1/2 - mean) / scale),    G(x) = Phi(x) + skew (1 - x^2) phi(x) / 6

Source: Volkova, "A refinement of the central limit theorem for sums of independent random indicators", Theory of
Probability and its Applications 40 (1996), as used by Dai & Li, "RankSEG", JMLR 24:224 (2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class RefinedNormal:
    """The approximation for many counts at once; all fields float64 and of one shape.

    Args:
        mean: ``sum p``.
        variance: ``sum p (1 - p)``.
        third: third central moment, ``sum p (1 - p) (1 - 2 p)``.

    Example:
        >>> p = torch.full((4,), 0.5, dtype=torch.float64)
        >>> count = RefinedNormal(p.sum(), (p * (1 - p)).sum(), torch.zeros((), dtype=torch.float64))
        >>> count.pmf(torch.arange(5.0, dtype=torch.float64)).mul(16).round()  # in sixteenths; exact: 1, 4, 6, 4, 1
        tensor([1., 4., 6., 4., 1.], dtype=torch.float64)
    """

    mean: Tensor
    variance: Tensor
    third: Tensor

    def __post_init__(self) -> None:
        # A count without variance is nearly certain; the floor keeps the formulas finite.
        variance = self.variance.clamp(min=torch.finfo(torch.float32).eps)
        self.scale = variance.sqrt()
        self.skew = self.third / variance**1.5

    def at(self, place: Tensor | tuple[slice | None, ...]) -> RefinedNormal:
        """Some of the counts."""
        return RefinedNormal(self.mean[place], self.variance[place], self.third[place])

    def cdf(self, k: Tensor) -> Tensor:
        """P(Z <= k), in [0, 1]."""
        return self._standard_cdf((k + 0.5 - self.mean) / self.scale)

    def pmf(self, k: Tensor) -> Tensor:
        """P(Z = k), in [0, 1]."""
        return (self.cdf(k) - self.cdf(k - 1)).clamp(0, 1)

    def interval(self, eps: float, largest: int) -> tuple[Tensor, Tensor]:
        """Counts, smallest and largest, between which all but about ``eps`` of the probability lies.

        Args:
            eps: in (0, 1); half of it is left out on each side.
            largest: number of coins.
        """
        low, high = self._quantiles(eps / 2, 1 - eps / 2)
        first, last = torch.floor(self.mean + self.scale * low) - 1, torch.ceil(self.mean + self.scale * high)
        return first.clamp(0, largest), last.clamp(0, largest)

    def _standard_cdf(self, x: Tensor) -> Tensor:
        density = torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        return (torch.special.ndtr(x) + self.skew * (1 - x**2) * density / 6).clamp(0, 1)

    def _quantiles(self, *probabilities: float) -> Tensor:
        """Standardised counts (number of probabilities, *shape) where the distribution reaches the probabilities."""
        wanted = self.mean.new_tensor(probabilities).view(-1, *[1] * self.mean.ndim)
        low = torch.full_like(self.mean, -40.0).expand(len(probabilities), *self.mean.shape)
        high = -low
        for _ in range(60):
            middle = (low + high) / 2
            below = self._standard_cdf(middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high
