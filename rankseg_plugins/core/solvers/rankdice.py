"""RankDice: expected Dice with an approximate distribution of the number Z of foreground pixels.

For the mask of the n most probable pixels, with g = ``smooth``:

    TRNA:  sum over its pixels j of 2 p_j E[1 / (n + 1 + g + Z_-j)]  +  g E[1 / (n + g + Z)]
    BA:    2 s E[1 / (n + 1 + g + Z)]  +  g E[1 / (n + g + Z)]

Z_-j is the count without pixel j. TRNA ("truncated refined normal approximation") takes every Z_-j from
:class:`~rankseg_plugins.core.solvers.poisson_binomial.RefinedNormal` and sums over the central ``1 - eps`` of Z; BA
("blind approximation") does not tell Z_-j from Z, which matters little where Z has a large deviation. ``BA+TRNA`` uses
BA where that deviation is above 5 and TRNA elsewhere.

Source: Dai & Li, "RankSEG", JMLR 24:224 (2023), equations (9), (12) and (13).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.solvers.expectation import make_expectation
from rankseg_plugins.core.solvers.poisson_binomial import RefinedNormal
from rankseg_plugins.core.solvers.shares import (
    NODES,
    BlindShares,
    Counts,
    InterpolatedShares,
    OwnShares,
    Shares,
    interpolation,
    points,
)
from rankseg_plugins.core.solvers.window import find_window
from rankseg_plugins.core.tiled.passes import sum_powers
from rankseg_plugins.core.tiled.pieces import Bound, Group, Mask, empty_masks, groups, room
from rankseg_plugins.core.tiled.rma import RowStatistics
from rankseg_plugins.core.tiled.tiles import Tiles
from rankseg_plugins.core.volumes import Volumes, round_down

SOLVERS = ("BA", "TRNA", "BA+TRNA")

#: "BA+TRNA": the largest deviation of Z at which TRNA is used (Cohen's d of one pixel, 1 / deviation, at least 0.2).
_TRNA_DEVIATION = 5.0

#: Scores that differ relatively by less are equal, but for rounding: the smaller mask is the better one.
_TIE = 4e-15

#: Entries of the largest intermediate matrices: in any case, and as a share of the probabilities.
_LEAST_CHUNK, _SHARE = 1 << 14, 64


def search_rankdice(
    tiles: Tiles, statistics: RowStatistics, volumes: Volumes, objective: Objective, solver: str, eps: float
) -> Volumes:
    """Find the volume of largest approximate expected Dice for every image and class.

    Args:
        tiles: the probabilities.
        statistics: their row statistics.
        volumes: what RMA finds, of at least one active class.
        objective: Dice.
        solver: one of :data:`SOLVERS`.
        eps: probability of the counts that are left out of the sums, in (0, 1).
    """
    mu, active = volumes.mu, volumes.active
    powers = sum_powers(tiles, active, lambda tile, *_: tile, 3)
    variance = (mu - powers[..., 1]).clamp(min=0)
    third = mu - 3 * powers[..., 1] + 2 * powers[..., 2]
    # The bound holds for the exact distribution; a third of a percent allows for the approximate one.
    score = objective.score(volumes.s, volumes.n, mu) * (1 - 1 / 300)
    low, high = find_window(tiles, active, statistics, variance, score, make_expectation(objective))
    tiles.release_scratch()

    normal = RefinedNormal(mu, variance, third)
    first, last = normal.interval(eps, tiles.shape[2])
    pixels, width = low.n - high.n, last - first + 1
    most, chunk = room(tiles, active), max(_LEAST_CHUNK, tiles.probs.numel() // _SHARE)
    best = empty_masks(torch.full_like(mu, -torch.inf))
    for kind, rows in _kinds(normal, solver):
        entries = kind.height(width) * width.clamp(min=NODES)
        # The matrices of a group are as wide as its widest class needs.
        for group in groups(tiles, active & rows, torch.maximum(pixels / most, entries / chunk), side_by_side=True):
            counts = Counts.between(normal.at(group.place).at(group.wanted), group.of(first), group.of(last))
            search = _Search(group, kind(counts, chunk), objective.smooth)
            best.at(group.place).put(group.wanted, search.best(low, high, most))
    return Volumes(round_down(best.threshold, tiles.dtype), best.n, best.s, mu, active)


def _kinds(normal: RefinedNormal, solver: str) -> Iterator[tuple[type[Shares], Tensor]]:
    """Each kind of shares, and the images and classes that it serves, (B, C) bool."""
    blind = normal.scale > {"BA": 0.0, "TRNA": torch.inf, "BA+TRNA": _TRNA_DEVIATION}[solver]
    yield BlindShares, blind
    yield OwnShares, ~blind & (normal.variance < 1)
    yield InterpolatedShares, ~blind & (normal.variance >= 1)


class _Search:
    """The volumes of A classes, ranked side by side.

    Args:
        group: the classes.
        shares: what their pixels add.
        smooth: the g of the formulas.
    """

    def __init__(self, group: Group, shares: Shares, smooth: float) -> None:
        self.group, self.shares, self.smooth = group, shares, smooth
        self.counts, self.support = shares.counts, shares.counts.support
        number, height, width = shares.kernel.shape
        self.step = max(1, shares.chunk // (number * max(height, NODES)))
        self.rows = max(1, shares.chunk // (number * width))

    def best(self, low: Bound, high: Bound, most: int) -> Mask:
        """The best masks between the bounds (B, C), the smaller one included, or empty ones; fields (A,).

        A single class is ranked in pieces of at most ``most`` pixels.
        """
        group, smallest = self.group, high.at(self.group.place)
        running, top = self.shares.of_mask(group, smallest), smallest.at(group.wanted)
        n, s, best = top.n, top.s, self._scored(top, running)
        for ends in group.pieces(low, high, most):
            p, (below, above) = self._ranked(*ends), (end.at(group.wanted) for end in ends)
            if (above.n > n).any():
                # A run of equal probabilities that was too long to be ranked; of a single class.
                value = (above.s - s) / (above.n - n)
                running = running + (above.n - n) * self.shares.of_each(value.unsqueeze(1))[:, 0]
                n, s = above.n, above.s
                best = best.or_better(self._scored(above, running), _TIE)
            following = torch.cat([p[:, 1:], below.threshold.unsqueeze(1)], 1)
            for part in self._chunks(p.shape[1], n):
                sums = self.shares.of_each(p[:, part]).cumsum(1).add_(running.unsqueeze(1))
                # Equal probabilities are taken together or not at all.
                scores = self._score(sums, n + 1).masked_fill_(p[:, part] == following[:, part], -torch.inf)
                best = best.or_better(_best_prefix(scores, p[:, part], following[:, part], n, s), _TIE)
                running, n, s = sums[:, -1].clone(), n + scores.shape[1], s + p[:, part].sum(1)
                del sums  # before the next ones are made
        if self.smooth:
            nothing = (self.smooth * self.counts.pmf / (self.support + self.smooth)).sum(1)
            best = empty_masks(nothing).or_better(best, _TIE)
        return best

    def _ranked(self, below: Bound, above: Bound) -> Tensor:
        """Probabilities between the bounds (b, c) in falling order, (A, K).

        The lower bound fills up the rows of classes with fewer. It lies below all pixels and is equal to what follows
        the last one, so that it takes no part.
        """
        values, row = self.group.pixels_between(below.threshold, above.threshold)
        row, order = row.sort()
        number = row.bincount(minlength=len(self.support))
        column = torch.arange(len(row), device=row.device) - (number.cumsum(0) - number).index_select(0, row)
        p = below.threshold[self.group.wanted].unsqueeze(1).repeat(1, int(number.max()))
        p[row, column] = values.index_select(0, order).double()
        return p.sort(1, descending=True).values

    def _chunks(self, size: int, n: Tensor) -> Iterator[slice]:
        """Slices of ``size`` ranked pixels that follow masks of ``n`` pixels, (A,)."""
        start, base = 0, n + 1 + self.smooth + self.support[:, 0]
        while start < size:
            # The denominator grows to twice its size at most, so that few points give its reciprocal exactly; where
            # there are no more values than points, they are computed themselves.
            stop = start + min(self.step, max(NODES, int(base.min()) + start))
            yield slice(start, min(stop, size))
            start = stop

    def _scored(self, bound: Bound, sums: Tensor) -> Mask:
        """The masks of a bound (A,) with their scores, from the sums (A, M) of their pixels' shares."""
        return Mask(bound.threshold, bound.n, bound.s, self._score(sums.unsqueeze(1), bound.n)[:, 0])

    def _score(self, sums: Tensor, n: Tensor) -> Tensor:
        """Scores (A, K) of masks of n (A,), n + 1, ... pixels, with the sums (A, K, M) of their pixels' shares."""
        volume = n.unsqueeze(1) + torch.arange(sums.shape[1], dtype=torch.float64, device=sums.device)
        taken = 2 * self._mean_reciprocal(volume + 1 + self.smooth, self.shares.kernel).mul_(sums).sum(2)
        if not self.smooth:
            return taken
        return taken + self.smooth * self._mean_reciprocal(volume + self.smooth, self.counts.pmf.unsqueeze(1))[..., 0]

    def _mean_reciprocal(self, a: Tensor, kernel: Tensor) -> Tensor:
        """``sum_z kernel[m, z] / (a + z)`` (A, K, M) over the support, for a (A, K) above ``-support[0]``.

        As a function of a it is smooth: many values, which have to rise in equal steps, the same for every class, are
        interpolated from a few points between their ends. The error is below 1e-15 as long as ``a + z`` does not grow
        to more than about twice its first value.
        """
        if a.shape[1] <= NODES:
            parts = [
                (1 / (self.support.unsqueeze(1) + part.unsqueeze(2))) @ kernel.mT for part in a.split(self.rows, 1)
            ]
            return torch.cat(parts, 1)
        width = a[:1, -1:] - a[:1, :1]
        ends = self._mean_reciprocal(a[:, :1] + width * points(a.device), kernel)
        return interpolation((a[0] - a[0, 0]) / width[0]) @ ends


def _best_prefix(scores: Tensor, p: Tensor, following: Tensor, n: Tensor, s: Tensor) -> Mask:
    """The best prefixes of ranked pixels p (A, K), the shortest where equal, after masks of n pixels and sum s."""
    best = scores.amax(1, keepdim=True)
    position = torch.arange(scores.shape[1], device=scores.device)
    index = torch.where(scores >= best * (1 - _TIE), position, len(position)).amin(1, keepdim=True)
    threshold, taken = following.gather(1, index)[:, 0], p.cumsum(1).gather(1, index)[:, 0]
    return Mask(threshold, n + index[:, 0] + 1, s + taken, scores.gather(1, index)[:, 0])
