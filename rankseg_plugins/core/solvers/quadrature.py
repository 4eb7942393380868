"""Exact expectations over independent pixels: a product over all pixels, integrated at a few nodes.

With Z the number of foreground pixels among independent ones of probabilities p_j,

    E[1 / (a + Z)] = integral over u > 0 of exp(-a u) G(u) du,     G(u) = prod_j (1 - p_j + p_j exp(-u)).

The integrand is a mixture of exponentials exp(-(a + k) u), k = 0..d, with the weights P(Z = k). A quadrature rule that
integrates every exponential of that range to a relative error therefore has that error on the expectation, whatever
the probabilities are. ``log G`` splits: pixels whose p (1 - exp(-u)) is small enter by their power sums, as
``log(1 - p t) = -sum_k (p t)^k / k``, and the others, always few, one by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Points of the Gauss-Legendre rule in each panel, and the end of the first panel in units of 1 / (largest rate).
_POINTS, _FIRST, _GROWTH = 16, 16.0, 4.0

#: exp(-REACH) is nothing beside 1 in float64.
REACH = 37.0

#: Pixels with p t below this enter by power sums, up to the order that leaves a relative error of about 1e-14.
SMALL = 0.1


def rule(ratio: float, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Nodes and weights, each (N,) float64, with ``sum(w exp(-r v)) = 1 / r`` for all rates r in [1 / ratio, 1].

    Panels of growing length: the first resolves the fastest exponential, the last reaches the end of the slowest. The
    relative error is below 1e-12.

    Args:
        ratio: largest over smallest rate, >= 1.
        device: where they are needed; None for the default one.

    Example:
        >>> nodes, weights = rule(100.0)
        >>> bool((0.05 * (weights * torch.exp(-0.05 * nodes)).sum() - 1).abs() < 1e-12)
        True
    """
    ends = [0.0, _FIRST]
    while ends[-1] < REACH * ratio:
        ends.append(ends[-1] * _GROWTH)
    rule_and_ends = *np.polynomial.legendre.leggauss(_POINTS), ends[:-1], ends[1:]
    points, weights, start, end = (torch.tensor(each, dtype=torch.float64, device=device) for each in rule_and_ends)
    half = ((end - start) / 2).unsqueeze(1)
    return (half * points + ((end + start) / 2).unsqueeze(1)).flatten(), (half * weights).flatten()


@dataclass
class Nodes:
    """The quadrature of R rows at N nodes each: u, x = exp(-u), t = 1 - x and weights, all (R, N) float64.

    Attributes:
        reach: (R,) the largest t at which the integrand is more than nothing.
    """

    u: Tensor
    weights: Tensor
    reach: Tensor

    def __post_init__(self) -> None:
        # Rows share the rule of the widest range; beyond any row's own range nothing is left, but x must not vanish.
        self.u = self.u.clamp(max=300.0)
        self.x, self.t = torch.exp(-self.u), -torch.expm1(-self.u)
        self.count = self.u.shape[1]


def make_nodes(slowest: Tensor, fastest: Tensor, to_the_end: Tensor) -> Nodes:
    """Nodes for the rates between ``slowest`` and ``fastest``; every argument is (R,).

    Args:
        slowest: smallest rate of the row's exponentials.
        fastest: largest rate.
        to_the_end: bool, rows whose product is needed at u = infinity, too.
    """
    nodes, weights = rule(float((fastest / slowest).max()), slowest.device)
    unit = fastest.unsqueeze(1)
    return Nodes(nodes / unit, weights / unit, reach_of(slowest, to_the_end))


def reach_of(slowest: Tensor, to_the_end: Tensor) -> Tensor:
    """The largest t at which the integrand is more than nothing; see :func:`make_nodes`."""
    return (-torch.expm1(-REACH / slowest)).masked_fill(to_the_end, 1.0)


def deviation(variance: Tensor) -> Tensor:
    """Distance from its mean that a sum of independent pixels leaves with probability below exp(-:data:`REACH`).

    Bernstein's inequality: ``P(|Z - mu| >= a) <= 2 exp(-a^2 / (2 (variance + a / 3)))``.
    """
    third = REACH / 3
    return third + torch.sqrt(third**2 + 2 * REACH * variance)


def order(largest: float) -> int:
    """Number of power sums that ``log(1 - p t)`` needs for every ``p t`` up to ``largest`` < 1."""
    return max(2, math.ceil(math.log(1e-14) / math.log(min(max(largest, 1e-7), SMALL))))


def log_product(power_sums: Tensor, t: Tensor) -> Tensor:
    """``sum_j log(1 - p_j t)`` (R, N) from power sums (R, K), ``power_sums[:, k - 1] = sum_j p_j^k``, for t (R, N)."""
    total = torch.zeros_like(t)
    for k in range(power_sums.shape[1], 0, -1):
        total = (total - power_sums[:, k - 1, None] / k) * t
    return total


def odds_sum(power_sums: Tensor, t: Tensor) -> Tensor:
    """``sum_j p_j / (1 - p_j t)`` (R, N) from power sums (R, K), for t (R, N)."""
    total = torch.zeros_like(t)
    for k in range(power_sums.shape[1], 0, -1):
        total = total * t + power_sums[:, k - 1, None]
    return total
