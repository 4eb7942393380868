"""RankDice: expected Dice with an approximate distribution of the number Z of foreground pixels.

For the mask of the n most probable pixels, with g = ``smooth``:

    TRNA:  sum over its pixels j of 2 p_j E[1 / (n + 1 + g + Z_-j)]  +  g E[1 / (n + g + Z)]
    BA:    2 s E[1 / (n + 1 + g + Z)]  +  g E[1 / (n + g + Z)]

Z_-j is the count without pixel j. TRNA ("truncated refined normal approximation") takes every Z_-j from
:class:`~rankseg_plugins.core.poisson_binomial.RefinedNormal` and sums over the central ``1 - eps`` of Z; BA ("blind
approximation") does not tell Z_-j from Z, which matters little where Z has a large deviation. ``BA+TRNA`` uses BA
where that deviation is above 5 and TRNA elsewhere.

Source: Dai & Li, "RankSEG", JMLR 24:224 (2023), equations (9), (12) and (13).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core.expectation import make_expectation
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.passes import pixels_between, round_down, sum_powers
from rankseg_plugins.core.poisson_binomial import RefinedNormal
from rankseg_plugins.core.ranking import Ranking
from rankseg_plugins.core.rma import RowStatistics, Volumes, search_volumes
from rankseg_plugins.core.tiles import Tiles
from rankseg_plugins.core.window import find_window

SOLVERS = ("BA", "TRNA", "BA+TRNA")

#: "BA+TRNA": the largest deviation of Z at which TRNA is used (Cohen's d of one pixel, 1 / deviation, at least 0.2).
_TRNA_DEVIATION = 5.0

#: Points at which a smooth function is computed; between them it is the polynomial through them.
_NODES = 24

#: Entries of the largest intermediate matrix.
_CHUNK = 1 << 22


def search_rankdice(
    tiles: Tiles, statistics: RowStatistics, objective: Objective, pruning_prob: float, solver: str, eps: float
) -> Volumes:
    """Find the volume of largest approximate expected Dice for every image and class.

    Args:
        tiles: the probabilities.
        statistics: their row statistics.
        objective: Dice.
        pruning_prob: a class whose largest probability is not above it stays empty.
        solver: one of :data:`SOLVERS`.
        eps: probability of the counts that are left out of the sums, in (0, 1).
    """
    volumes = search_volumes(tiles, statistics, objective, pruning_prob)
    mu, active = volumes.mu, volumes.active
    if not active.any():
        return volumes
    powers = sum_powers(tiles, active, lambda tile, *_: tile, 3)
    variance = (mu - powers[..., 1]).clamp(min=0)
    third = mu - 3 * powers[..., 1] + 2 * powers[..., 2]
    # The bound holds for the exact distribution; a third of a percent allows for the approximate one.
    score = objective.score(volumes.s, volumes.n, mu) * (1 - 1 / 300)
    low, high = find_window(tiles, active, statistics, variance, score, make_expectation(objective))
    counts = RefinedNormal(mu.flatten(), variance.flatten(), third.flatten())
    blind = (counts.scale > _TRNA_DEVIATION) | (solver == "BA") if solver != "TRNA" else counts.scale < 0
    # BA needs of the pixels that are surely selected their number and sum only, TRNA each of them.
    surely = blind.view_as(mu)
    ceiling = torch.where(surely, high.threshold, torch.ones_like(mu))
    taken_n, taken_s = (high.n * surely).flatten(), (high.s * surely).flatten()
    ranking = Ranking(*pixels_between(tiles, active, low.threshold, ceiling), mu.numel())
    threshold, n, s = volumes.threshold.flatten(), volumes.n.flatten(), volumes.s.flatten()
    following = ranking.following(low.threshold.flatten())
    intervals = torch.stack(counts.interval(eps, tiles.shape[2]), dim=1).tolist()
    ends = [*ranking.first[1:].tolist(), len(ranking.rows)]
    for row in active.flatten().nonzero().flatten().tolist():
        begin = int(ranking.first[row])
        prefixes = Prefixes(
            ranking.values[begin + 1 : ends[row]], float(taken_n[row]), float(taken_s[row]), objective.smooth
        )
        count = RefinedNormal(counts.mean[row], counts.variance[row], counts.third[row])
        smallest = float(high.n.flatten()[row])
        best = prefixes.best(count, intervals[row], smallest, bool(blind[row]))
        if best is None:
            threshold[row], n[row], s[row] = torch.inf, 0, 0
            continue
        threshold[row] = round_down(following[begin + best], tiles.dtype)
        n[row], s[row] = prefixes.n + best, prefixes.s + prefixes.p[:best].sum()
    return volumes


@dataclass
class Prefixes:
    """The volumes of one row that are in question: ``n`` pixels of sum ``s``, and any number of those that follow.

    Args:
        p: (K,) probabilities of those that follow, in falling order.
        n: number of pixels that are in every mask.
        s: their sum.
        smooth: the g of the formulas.
    """

    p: Tensor
    n: float
    s: float
    smooth: float

    def best(self, count: RefinedNormal, interval: list[float], smallest: float, blind: bool) -> int | None:
        """Number of following pixels in the best mask; None if the empty mask is better.

        Args:
            count: distribution of the number of foreground pixels.
            interval: first and last count of the sums.
            smallest: volumes below it need not be scored, but that of the empty mask.
            blind: BA, else TRNA.
        """
        support = torch.arange(interval[0], interval[1] + 1, dtype=torch.float64, device=self.p.device)
        full = _normalise(count.pmf(support))
        kernel, coefficients = _blind(full) if blind else _leave_one_out(count, support)

        scores = self.p.new_full((len(self.p) + 1,), -torch.inf)
        # The sums of 2 p_j P(Z_-j), as factors of the kernel's rows; before the first pixel there is no Z_-j.
        running = torch.full((1, len(kernel)), self.s, dtype=torch.float64, device=self.p.device)
        start, step = 0, max(1, _CHUNK // max(len(kernel), _NODES))
        scores[:1] = self._score(running, kernel, full, support, self.n)
        while start < len(self.p):
            # At most twice the denominator, so that few points give its reciprocal exactly.
            stop = start + min(step, int(self.n + start + 1 + self.smooth + interval[0]))
            p = self.p[start:stop]
            running = (p[:, None] * coefficients(p)).cumsum(0) + running[-1]
            if self.n + start + len(p) >= smallest:
                scores[start + 1 : stop + 1] = self._score(running, kernel, full, support, self.n + start + 1)
            start += len(p)
        # Equal probabilities are taken together or not at all.
        scores[1:-1].masked_fill_(self.p[1:] == self.p[:-1], -torch.inf)
        if self.smooth and (self.smooth * full / (support + self.smooth)).sum() >= scores.max():
            return None
        return int((scores == scores.max()).nonzero()[0])

    def _score(self, running: Tensor, kernel: Tensor, full: Tensor, support: Tensor, n: float) -> Tensor:
        """Scores (K,) of the masks of n, n + 1, ... pixels, with the sums (K, M) of the kernel's rows."""
        volume = n + torch.arange(len(running), dtype=torch.float64, device=running.device)
        taken = 2 * (running * _mean_reciprocal(volume + 1 + self.smooth, support, kernel)).sum(1)
        if not self.smooth:
            return taken
        return taken + self.smooth * _mean_reciprocal(volume + self.smooth, support, full.unsqueeze(0))[:, 0]


def _mean_reciprocal(a: Tensor, support: Tensor, kernel: Tensor) -> Tensor:
    """``sum_z kernel[m, z] / (a + z)`` (K, M) for rising a (K,), all above ``-support[0]``, over z in the support.

    As a function of a it is smooth: where a has many values, it is computed at a few points between its ends. The
    error is below 1e-15 as long as ``a + z`` does not grow to more than about twice its first value.
    """
    if len(a) <= _NODES:
        return (1 / (support + a.unsqueeze(1))) @ kernel.T
    width = a[-1] - a[0]
    points = _mean_reciprocal(a[0] + width * _points(a.device), support, kernel)
    return _interpolation((a - a[0]) / width) @ points


def _points(device: torch.device) -> Tensor:
    """Chebyshev points (N,) in [0, 1]."""
    angles = (2 * torch.arange(_NODES, dtype=torch.float64, device=device) + 1) * math.pi / (2 * _NODES)
    return (1 + torch.cos(angles)) / 2


def _interpolation(x: Tensor) -> Tensor:
    """Lagrange's polynomials of the points, (K, N), at x (K,) in [0, 1], in barycentric form."""
    angles = (2 * torch.arange(_NODES, dtype=torch.float64, device=x.device) + 1) * math.pi / (2 * _NODES)
    weights = torch.sin(angles)
    weights[1::2] *= -1
    distance = x.unsqueeze(1) - _points(x.device)
    on_point = distance == 0
    terms = weights / distance.masked_fill(on_point, 1.0)
    terms = torch.where(on_point.any(1, keepdim=True), on_point.double(), terms)
    return terms / terms.sum(1, keepdim=True)


#: For probabilities (K,), the factors (K, M) of the M rows of a kernel.
_Coefficients = Callable[[Tensor], Tensor]


def _blind(full: Tensor) -> tuple[Tensor, _Coefficients]:
    """BA: the distribution of Z serves for every pixel."""
    return full.unsqueeze(0), lambda p: torch.ones_like(p).unsqueeze(1)


def _leave_one_out(count: RefinedNormal, support: Tensor) -> tuple[Tensor, _Coefficients]:
    """TRNA: the distribution of Z without a pixel of probability p, as a sum of kernel rows (M, W).

    It is smooth in p where Z has a variance of at least 1, and a polynomial in p then gives it to more than 9 digits;
    elsewhere the support is short, and each pixel gets its own distribution.
    """
    if count.variance < 1:
        return torch.eye(len(support), dtype=torch.float64, device=support.device), lambda p: _without(
            count, p, support
        )
    return _without(count, _points(support.device), support), _interpolation


def _without(count: RefinedNormal, p: Tensor, support: Tensor) -> Tensor:
    """Distribution (K, W) of Z without one pixel, for each probability p (K,)."""
    spread = p * (1 - p)
    rest = RefinedNormal(count.mean - p, count.variance - spread, count.third - spread * (1 - 2 * p))
    columns = RefinedNormal(*(moment.unsqueeze(1) for moment in (rest.mean, rest.variance, rest.third)))
    return _normalise(columns.pmf(support))


def _normalise(pmf: Tensor) -> Tensor:
    return pmf / pmf.sum(-1, keepdim=True)
