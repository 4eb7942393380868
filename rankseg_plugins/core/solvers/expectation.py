"""Exact expected Dice and IoU of independent pixels, for every prefix of a ranking at once.

With x = exp(-u), G the product of :mod:`~rankseg_plugins.core.solvers.quadrature`, a mask S of n pixels that sum to
s, and g = ``smooth``:

    E[Dice] = integral exp(-(n + g) u) G(u) (2 x sum_S p / (1 - p + p x) + g) du
    E[IoU]  = (s + g) integral exp(-(n + g) u) prod_{not S} (1 - p + p x) du

For Dice each pixel of S is taken out of Z in turn (Dai & Li, "RankSEG", JMLR 24:224, 2023); for IoU the intersection
and the rest of the union are independent (Nowozin, "Optimal decisions from probabilistic models", CVPR 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import IoU, Objective
from rankseg_plugins.core.solvers.quadrature import Nodes, log_product, odds_sum
from rankseg_plugins.core.tiled.ranking import Ranking


@dataclass
class Terms:
    """Everything that the integrands read. R rows (image and class), N nodes, K ranked pixels, sentinels included.

    Args:
        ranking: the pixels that are taken one by one.
        nodes: the quadrature of every row.
        n: (K,) count of the mask that each prefix stands for.
        s: (K,) sum of it.
        rest: (R, order) power sums of the pixels that are not ranked and outside of every mask.
        base: (R, order) power sums of the pixels that are not ranked and inside of every mask.
    """

    ranking: Ranking
    nodes: Nodes
    n: Tensor
    s: Tensor
    rest: Tensor
    base: Tensor

    def __post_init__(self) -> None:
        self.row = self.ranking.rows
        #: Probabilities of the ranked pixels, 0 for sentinels.
        self.p = self.ranking.values.masked_fill(self.ranking.position == 0, 0)
        self.log_rest = log_product(self.rest, self.nodes.t)
        self.log_unranked = self.log_rest + log_product(self.base, self.nodes.t)
        self.odds = odds_sum(self.base, self.nodes.t)

    def factors(self, x: Tensor) -> Tensor:
        """``1 - p + p x`` (K,) of the ranked pixels, for x (R,)."""
        return 1 - self.p + self.p * x[self.row]

    def log_total(self, factors: Tensor) -> Tensor:
        """Logarithm of the product of the ranked pixels' factors, (R,)."""
        # Not by running sums: at x = 0 a certain pixel has factor 0, whose logarithm must stay in its row.
        return torch.zeros_like(self.nodes.u[:, 0]).index_add_(0, self.row, factors.log())


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
        """Threshold at which :meth:`excess` is largest."""
        return level / 2

    def rates(self, n: Tensor, s: Tensor, mu: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest exponent of the integrand, but for an improbable rest."""
        lowest = n.clamp(min=1) + self.smooth
        return lowest + (mu - deviation).clamp(min=0), n + 1 + self.smooth + mu + deviation

    def integrand(self, terms: Terms, node: int) -> Tensor:
        """Integrand at one node for every prefix."""
        nodes, row = terms.nodes, terms.row
        factors = terms.factors(nodes.x[:, node])
        x = nodes.x[row, node]
        odds = terms.ranking.cumulate(x * terms.p / factors) + x * terms.odds[row, node]
        log_g = terms.log_unranked[:, node] + terms.log_total(factors)
        decay = torch.exp(log_g[row] - (terms.n + self.smooth) * nodes.u[row, node])
        return decay * (2 * odds + self.smooth)

    def scale(self, s: Tensor) -> Tensor:
        """Factor in front of the integral."""
        return torch.ones_like(s)


class ExactIoU:
    """What the exact expectation of IoU needs to know; see :class:`ExactDice`."""

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
        """Threshold at which :meth:`excess` is largest."""
        return level / (1 + level)

    def rates(self, n: Tensor, s: Tensor, mu: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest and largest exponent of the integrand, but for an improbable rest."""
        outside = (mu - s).clamp(min=0)
        lowest = n.clamp(min=1) + self.smooth
        return lowest + (outside - deviation).clamp(min=0), n + 1 + self.smooth + outside + deviation

    def integrand(self, terms: Terms, node: int) -> Tensor:
        """Integrand at one node for every prefix."""
        nodes, row = terms.nodes, terms.row
        logs = terms.ranking.cumulate(terms.factors(nodes.x[:, node]).log())
        log_outside = terms.log_rest[row, node] + terms.ranking.totals(logs)[row] - logs
        return torch.exp(log_outside - (terms.n + self.smooth) * nodes.u[row, node])

    def scale(self, s: Tensor) -> Tensor:
        """Factor in front of the integral."""
        return s + self.smooth


Expectation = ExactDice | ExactIoU


def make_expectation(objective: Objective) -> Expectation:
    """The exact expectation of the score that ``objective`` approximates."""
    return ExactIoU(objective.smooth) if isinstance(objective, IoU) else ExactDice(objective.smooth)


def prefix_scores(terms: Terms, expectation: Expectation) -> Tensor:
    """Exact expected score (K,) of every prefix."""
    total = torch.zeros_like(terms.p)
    for node in range(terms.nodes.count):
        total += terms.nodes.weights[terms.row, node] * expectation.integrand(terms, node)
    total *= expectation.scale(terms.s)
    empty = terms.n == 0
    if not empty.any():
        return total
    return torch.where(empty, empty_scores(terms, expectation.smooth)[terms.row], total)


def empty_scores(terms: Terms, smooth: float) -> Tensor:
    """Score of the empty mask, (R,): ``E[g / (g + Z)]``, with P(Z = 0) apart, whose exponent g may be tiny."""
    nodes = terms.nodes
    if smooth == 0:
        return torch.zeros_like(nodes.u[:, 0])
    nowhere = torch.zeros_like(nodes.u[:, 0])
    log_nobody = log_product(terms.rest + terms.base, torch.ones_like(nodes.u[:, :1]))[:, 0]
    nobody = torch.exp(log_nobody + terms.log_total(terms.factors(nowhere)))
    total = torch.zeros_like(nobody)
    for node in range(nodes.count):
        log_g = terms.log_unranked[:, node] + terms.log_total(terms.factors(nodes.x[:, node]))
        total += nodes.weights[:, node] * torch.exp(-smooth * nodes.u[:, node]) * (log_g.exp() - nobody)
    return nobody + smooth * total
