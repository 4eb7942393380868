"""Exact expected Dice and IoU of independent pixels: a product over all pixels, integrated at a few nodes.

With x = exp(-u), t = 1 - x, Z the number of foreground pixels among independent ones of probabilities p_j, a mask S of
n pixels that sum to s, and g = ``smooth``:

    E[1 / (a + Z)] = integral over u > 0 of exp(-a u) G(u) du,     G(u) = prod_j (1 - p_j + p_j x)
    E[Dice] = integral exp(-(n + g) u) G(u) (2 x sum_S p / (1 - p + p x) + g) du
    E[IoU]  = (s + g) integral exp(-(n + g) u) prod_{not S} (1 - p + p x) du

For Dice each pixel of S is taken out of Z in turn (Dai & Li, "RankSEG", JMLR 24:224, 2023); for IoU the intersection
and the rest of the union are independent (Nowozin, "Optimal decisions from probabilistic models", CVPR 2014).

The integrand is a mixture of exponentials exp(-(a + k) u), k = 0..d, with the weights P(Z = k). A quadrature rule that
integrates every exponential of that range to a relative error therefore has that error on the expectation, whatever
the probabilities are. ``log G`` splits: pixels whose p t is small enter by their power sums, as
``log(1 - p t) = -sum_k (p t)^k / k``, and the others, always few, one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import IoU, Objective
from rankseg_plugins.core.solvers.pieces import Bound

#: exp(-REACH) is nothing beside 1 in float64.
REACH = 37.0
#: Pixels with p t below this enter by power sums, up to the order that leaves a relative error of about 1e-14.
_SMALL, _ERROR = 0.1, 1e-14


class ExactDice:
    """What the exact expectation of Dice needs to know; every argument is elementwise over rows."""

    def __init__(self, smooth: float) -> None:
        self.smooth = smooth

    def smallest_volume(self, best: Tensor, mu: Tensor, variance: Tensor) -> Tensor:
        """A lower bound x of n + g for every mask whose exact score may reach ``best``.

        From ``best <= 2 x / (x + mu) + 2 var / (x + mu)^2``, a quadratic in x + mu.
        """
        root = (mu**2 - 2 * variance * (2 - best)).clamp(min=0).sqrt()
        return ((mu + root) / (2 - best) - mu).clamp(min=1 + self.smooth)

    def slack(self, x: Tensor, mu: Tensor, variance: Tensor) -> Tensor:
        """Largest ratio, less 1, of the upper bound to ``(2 s + g) / (n + mu + g)``, for n + g >= x."""
        return variance / ((x + mu) * x)

    def excess(self, s: Tensor, n: Tensor, mu: Tensor, level: Tensor) -> Tensor:
        """Concave along the ranking; negative where ``(2 s + g) / (n + mu + g)`` stays below ``level``."""
        return 2 * s + self.smooth - level * (n + mu + self.smooth)

    def peak(self, level: Tensor) -> Tensor:
        """Threshold at which ``excess`` is largest."""
        return level / 2

    def rates(self, n: Tensor, s: Tensor, mu: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest exponent of the integrand, but for an improbable rest."""
        lowest = n.clamp(min=1) + self.smooth
        return lowest + (mu - deviation).clamp(min=0), n + 1 + self.smooth + mu + deviation


class ExactIoU:
    """What the exact expectation of IoU needs to know; see ``ExactDice``."""

    def __init__(self, smooth: float) -> None:
        self.smooth = smooth

    def smallest_volume(self, best: Tensor, mu: Tensor, variance: Tensor) -> Tensor:
        """From ``best <= x / mu + var / mu^2``: the union is expected to hold at least mu pixels."""
        return (best * mu - variance / mu).clamp(min=1 + self.smooth)

    def slack(self, x: Tensor, mu: Tensor, variance: Tensor) -> Tensor:
        """Largest ratio, less 1, of the upper bound to ``(s + g) / (n + mu - s + g)``, for n + g >= x."""
        return variance / (torch.maximum(x, mu) * x)

    def excess(self, s: Tensor, n: Tensor, mu: Tensor, level: Tensor) -> Tensor:
        """Concave along the ranking; negative where ``(s + g) / (n + mu - s + g)`` stays below ``level``."""
        return s + self.smooth - level * (n + mu - s + self.smooth)

    def peak(self, level: Tensor) -> Tensor:
        """Threshold at which ``excess`` is largest."""
        return level / (1 + level)

    def rates(self, n: Tensor, s: Tensor, mu: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest exponent of the integrand, but for an improbable rest."""
        outside = (mu - s).clamp(min=0)
        lowest = n.clamp(min=1) + self.smooth
        return lowest + (outside - deviation).clamp(min=0), n + 1 + self.smooth + outside + deviation


Expectation = ExactDice | ExactIoU


def make_expectation(objective: Objective) -> Expectation:
    """The exact expectation of the score that ``objective`` approximates."""
    return ExactIoU(objective.smooth) if isinstance(objective, IoU) else ExactDice(objective.smooth)


@dataclass
class Rates:
    """What the quadrature of every row has to integrate, (B, C).

    Args:
        slowest: smallest rate of the exponentials.
        fastest: largest rate.
        small: the largest probability that enters by power sums.
        orders: int64, number of power sums.
    """

    slowest: Tensor
    fastest: Tensor
    small: Tensor
    orders: Tensor


def rates_of(
    low: Bound, high: Bound, mean: Tensor, variance: Tensor, maximum: Tensor, expectation: Expectation
) -> Rates:
    """Rates for all masks between two bounds, from moments of Z and the largest probability."""
    spread = deviation(variance)
    slowest, _ = expectation.rates(high.n, low.s, mean, spread)
    _, fastest = expectation.rates(low.n, high.s, mean, spread)
    # The largest t at which the integrand is more than nothing. For the probability that no pixel is foreground it is
    # 1; beyond a mean of 800 that is 0 in float64.
    to_the_end = (high.n == 0) & (expectation.smooth > 0) & (mean < 800)
    reach = (-torch.expm1(-REACH / slowest)).masked_fill(to_the_end, 1.0)
    small = _SMALL / reach
    largest = (reach * torch.minimum(small, maximum)).clamp(1e-7, _SMALL)
    return Rates(slowest, fastest, small, (math.log(_ERROR) / largest.log()).ceil().clamp(min=2).long())


def deviation(variance: Tensor) -> Tensor:
    """Distance from its mean that a sum of independent pixels leaves with probability below exp(-``REACH``).

    Bernstein's inequality: ``P(|Z - mu| >= a) <= 2 exp(-a^2 / (2 (variance + a / 3)))``.
    """
    third = REACH / 3
    return third + torch.sqrt(third**2 + 2 * REACH * variance)
