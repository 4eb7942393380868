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

#: Values of p at which the distribution of Z_-j is computed; between them a polynomial in p.
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
    values, rows = pixels_between(tiles, active, low.threshold, torch.ones_like(mu))
    ranking = Ranking(values, rows, mu.numel())
    threshold, n, s = volumes.threshold.flatten(), volumes.n.flatten(), volumes.s.flatten()
    following = ranking.following(low.threshold.flatten())
    counts = RefinedNormal(mu.flatten(), variance.flatten(), third.flatten())
    intervals = torch.stack(counts.interval(eps, tiles.shape[2]), dim=1).tolist()
    ends = [*ranking.first[1:].tolist(), len(ranking.rows)]
    for row in active.flatten().nonzero().flatten().tolist():
        count = RefinedNormal(counts.mean[row], counts.variance[row], counts.third[row])
        blind = solver == "BA" or (solver == "BA+TRNA" and bool(count.scale > _TRNA_DEVIATION))
        begin = int(ranking.first[row])
        p = ranking.values[begin + 1 : ends[row]]
        best, total = _best_volume(p, int(high.n.flatten()[row]), count, intervals[row], objective.smooth, blind)
        threshold[row] = round_down(following[begin + best], tiles.dtype)
        n[row], s[row] = best, total
    return volumes


def _best_volume(
    p: Tensor, smallest: int, count: RefinedNormal, interval: list[float], smooth: float, blind: bool
) -> tuple[int, float]:
    """Best volume and its sum of probabilities, for one row.

    Args:
        p: (K,) the row's probabilities in falling order; the pixels left out are not worth taking.
        smallest: volumes below it are ruled out.
        count: distribution of the number of foreground pixels.
        interval: first and last count of the sums.
        smooth: the g of the formulas.
        blind: BA, else TRNA.
    """
    first, last = interval
    support = torch.arange(first, last + 1, dtype=torch.float64, device=p.device)
    full = _normalise(count.pmf(support))
    kernel, coefficients = _blind(full) if blind else _leave_one_out(count, support)

    scores = p.new_full((len(p) + 1,), -torch.inf)
    if smallest == 0:
        scores[0] = (smooth * full / (support + smooth)).sum() if smooth else 0.0
    carried = p.new_zeros(len(kernel))
    step = max(1, _CHUNK // max(len(support), len(kernel)))
    for start in range(0, len(p), step):
        running = (p[start : start + step, None] * coefficients(p[start : start + step])).cumsum(0) + carried
        carried = running[-1]
        n = torch.arange(start, start + len(running), dtype=torch.float64, device=p.device) + 1
        if n[-1] >= smallest:
            taken = 2 * running * ((1 / (support + n.unsqueeze(1) + 1 + smooth)) @ kernel.T)
            missed = smooth * (1 / (support + n.unsqueeze(1) + smooth)) @ full
            scores[start + 1 : start + 1 + len(n)] = taken.sum(1) + missed
    # Equal probabilities are taken together or not at all.
    scores[1:-1].masked_fill_(p[1:] == p[:-1], -torch.inf)
    best = int((scores == scores.max()).nonzero()[0])
    return best, float(p[:best].sum())


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
    angles = (2 * torch.arange(_NODES, dtype=torch.float64, device=support.device) + 1) * math.pi / (2 * _NODES)
    nodes, weights = (1 + torch.cos(angles)) / 2, torch.sin(angles)
    weights[1::2] *= -1

    def interpolate(p: Tensor) -> Tensor:
        # Lagrange's polynomials in barycentric form.
        distance = p.unsqueeze(1) - nodes
        on_node = distance == 0
        terms = weights / distance.masked_fill(on_node, 1.0)
        terms = torch.where(on_node.any(1, keepdim=True), on_node.double(), terms)
        return terms / terms.sum(1, keepdim=True)

    return _without(count, nodes, support), interpolate


def _without(count: RefinedNormal, p: Tensor, support: Tensor) -> Tensor:
    """Distribution (K, W) of Z without one pixel, for each probability p (K,)."""
    spread = p * (1 - p)
    rest = RefinedNormal(count.mean - p, count.variance - spread, count.third - spread * (1 - 2 * p))
    columns = RefinedNormal(*(moment.unsqueeze(1) for moment in (rest.mean, rest.variance, rest.third)))
    return _normalise(columns.pmf(support))


def _normalise(pmf: Tensor) -> Tensor:
    return pmf / pmf.sum(-1, keepdim=True)
