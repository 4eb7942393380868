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
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core.expectation import make_expectation
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.passes import count_above, pixels_between, round_down, sum_powers
from rankseg_plugins.core.pieces import Bound, room, split
from rankseg_plugins.core.poisson_binomial import RefinedNormal
from rankseg_plugins.core.rma import RowStatistics, Volumes, search_volumes
from rankseg_plugins.core.tiles import Tiles, row_sum, single
from rankseg_plugins.core.window import find_window

SOLVERS = ("BA", "TRNA", "BA+TRNA")

#: "BA+TRNA": the largest deviation of Z at which TRNA is used (Cohen's d of one pixel, 1 / deviation, at least 0.2).
_TRNA_DEVIATION = 5.0

#: Points at which a smooth function is computed; between them it is the polynomial through them.
_NODES = 24

#: Entries of the largest intermediate matrices: in any case, and as a share of the probabilities.
_LEAST_CHUNK, _SHARE = 1 << 14, 64

#: A pass in float64 over several copies of a tile takes this share of it at a time.
_TILE_SHARE = 16


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
    blind = blind.view_as(mu)
    chunk = max(_LEAST_CHUNK, tiles.probs.numel() // _SHARE)
    threshold, n, s = (table.clone() for table in (volumes.threshold, volumes.n, volumes.s))
    first, last = (ends.view_as(mu) for ends in counts.interval(eps, tiles.shape[2]))
    most = room(tiles, active)
    tiles.release_scratch()
    for image, label in active.nonzero().tolist():
        place, alone = (image, label), single(image, label)
        count = RefinedNormal(mu[place], variance[place], third[place])
        support = torch.arange(float(first[place]), float(last[place]) + 1, dtype=torch.float64, device=mu.device)
        row = _Row(tiles.part(*alone), count, support, objective.smooth, bool(blind[place]), chunk)
        best = row.best(low.at(alone), high.at(alone), most)
        if best is None:
            threshold[place], n[place], s[place] = torch.inf, 0, 0
        else:
            n[place], s[place] = best.n, best.s
            threshold[place] = round_down(best.threshold, tiles.dtype)
    return Volumes(threshold, n, s, mu, active)


@dataclass
class _Mask:
    """``{p > threshold}`` of ``n`` pixels that sum to ``s``, with its score."""

    score: float
    threshold: Tensor
    n: float
    s: float


class _Row:
    """The volumes of a single class of an image.

    Args:
        tiles: its probabilities.
        count: distribution of the number of foreground pixels.
        support: (W,) the counts of the sums.
        smooth: the g of the formulas.
        blind: BA, else TRNA.
        chunk: entries of the largest intermediate matrices.
    """

    def __init__(
        self, tiles: Tiles, count: RefinedNormal, support: Tensor, smooth: float, blind: bool, chunk: int
    ) -> None:
        self.tiles, self.support, self.smooth = tiles, support, smooth
        self.full = _normalise(count.pmf(support))
        self.shares: _Shares
        if blind:
            self.shares = _Blind(self.full)
        elif count.variance < 1:
            self.shares = _Each(count, support, chunk)
        else:
            self.shares = _Smooth(count, support, chunk)
        self.step = max(1, chunk // max(len(self.shares.kernel), _NODES))
        self.rows = max(1, chunk // len(support))

    def best(self, low: Bound, high: Bound, most: int) -> _Mask | None:
        """The best mask between the bounds, the smaller one included; None if the empty mask is better."""
        n, s = float(high.n), float(high.s)
        running = self.shares.of_all_above(self.tiles, high.threshold)
        best = _Mask(float(self._score(running.unsqueeze(0), n)), high.threshold.flatten(), n, s)
        for below, above in split(self.tiles, low, high, most):
            if above.n > n:
                # A run of equal probabilities that was too long to be ranked.
                value = (above.s.view(1) - s) / (above.n.view(1) - n)
                running = running + (above.n.view(1) - n) * self.shares.of_each(value)[0]
                n, s = float(above.n), float(above.s)
                score = float(self._score(running.unsqueeze(0), n))
                best = max(best, _Mask(score, above.threshold.flatten(), n, s), key=lambda mask: mask.score)
            for p, following in self._chunks(below, above, n):
                sums = self.shares.of_each(p).cumsum(0).add_(running)
                # Equal probabilities are taken together or not at all.
                scores = self._score(sums, n + 1).masked_fill_(p == following, -torch.inf)
                index = int((scores == scores.max()).nonzero()[0])
                if scores[index] > best.score:
                    taken = float(p[: index + 1].sum())
                    best = _Mask(float(scores[index]), following[index : index + 1], n + index + 1, s + taken)
                running, n, s = sums[-1].clone(), n + len(p), s + float(p.sum())
                del sums  # before the next ones are made
        if self.smooth and float((self.smooth * self.full / (self.support + self.smooth)).sum()) >= best.score:
            return None
        return best

    def _chunks(self, below: Bound, above: Bound, n: float) -> Iterator[tuple[Tensor, Tensor]]:
        """Probabilities (K,) between the bounds in falling order, and those that follow each of them."""
        every = torch.ones_like(below.n, dtype=torch.bool)
        values = pixels_between(self.tiles, every, below.threshold, above.threshold)[0].double()
        p = values.sort(descending=True).values
        following = torch.cat([p[1:], below.threshold.flatten()])
        start = 0
        while start < len(p):
            # At most twice the denominator, so that few points give its reciprocal exactly.
            stop = start + min(self.step, int(n + start + 1 + self.smooth + float(self.support[0])))
            yield p[start:stop], following[start:stop]
            start = stop

    def _score(self, sums: Tensor, n: float) -> Tensor:
        """Scores (K,) of the masks of n, n + 1, ... pixels, with the sums (K, M) of their pixels' shares."""
        volume = n + torch.arange(len(sums), dtype=torch.float64, device=sums.device)
        taken = 2 * self._mean_reciprocal(volume + 1 + self.smooth, self.shares.kernel).mul_(sums).sum(1)
        if not self.smooth:
            return taken
        return taken + self.smooth * self._mean_reciprocal(volume + self.smooth, self.full.unsqueeze(0))[:, 0]

    def _mean_reciprocal(self, a: Tensor, kernel: Tensor) -> Tensor:
        """``sum_z kernel[m, z] / (a + z)`` (K, M) for rising a (K,), all above ``-support[0]``, over z in the support.

        As a function of a it is smooth: where a has many values, it is computed at a few points between its ends. The
        error is below 1e-15 as long as ``a + z`` does not grow to more than about twice its first value.
        """
        if len(a) <= _NODES:
            return torch.cat([(1 / (self.support + part.unsqueeze(1))) @ kernel.T for part in a.split(self.rows)])
        width = a[-1] - a[0]
        points = self._mean_reciprocal(a[0] + width * _points(a.device), kernel)
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
    terms = x.unsqueeze(1) - _points(x.device)
    on_point = terms == 0
    torch.div(weights, terms.masked_fill_(on_point, 1.0), out=terms)
    terms.masked_fill_(on_point.any(1, keepdim=True), 0.0).masked_fill_(on_point, 1.0)
    return terms.div_(terms.sum(1, keepdim=True))


class _Blind:
    """BA: the distribution of Z serves for every pixel.

    Like its siblings it writes ``p_j P(Z_-j = z)`` as a sum over the rows of a kernel (M, W): the shares (M,) of pixel
    j are the factors of these rows.
    """

    def __init__(self, full: Tensor) -> None:
        self.kernel = full.unsqueeze(0)

    def of_each(self, p: Tensor) -> Tensor:
        """Shares (K, M) of pixels with probabilities p (K,)."""
        return p.unsqueeze(1)

    def of_all_above(self, tiles: Tiles, threshold: Tensor) -> Tensor:
        """Sum (M,) of the shares of all pixels above the threshold (1, 1)."""
        return count_above(tiles, torch.ones_like(threshold, dtype=torch.bool), threshold)[1].view(1)


class _Smooth:
    """TRNA where Z has a variance of at least 1: the distribution without a pixel is smooth in its probability.

    The polynomial through a few points gives it to more than 9 digits.
    """

    def __init__(self, count: RefinedNormal, support: Tensor, chunk: int) -> None:
        self.points = _points(support.device)
        parts = self.points.split(max(1, chunk // len(support)))
        self.kernel = torch.cat([_without(count, part, support) for part in parts])

    def of_each(self, p: Tensor) -> Tensor:
        """See :class:`_Blind`."""
        return _interpolation(p).mul_(p.unsqueeze(1))

    def of_all_above(self, tiles: Tiles, threshold: Tensor) -> Tensor:
        """See :class:`_Blind`; by sums of Chebyshev's polynomials T_k, of which Lagrange's are made up."""
        every, bound = torch.ones_like(threshold, dtype=torch.bool), round_down(threshold, tiles.dtype).double()
        sums = torch.zeros(_NODES, dtype=torch.float64, device=threshold.device)
        for images, classes, pixels in tiles.passes(every, _TILE_SHARE):
            p = tiles.load(images, classes, pixels).double().flatten()
            p = p * (p > bound.flatten())
            x = 2 * p - 1
            before, current = x, torch.ones_like(x)
            for k in range(_NODES):
                sums[k] += row_sum(p * current)
                before, current = current, (2 * x * current).sub_(before)
        angles = torch.acos((2 * self.points - 1).clamp(-1, 1))
        orders = torch.arange(_NODES, dtype=torch.float64, device=sums.device)
        sums[0] /= 2
        return torch.cos(angles.unsqueeze(1) * orders) @ sums * (2 / _NODES)


class _Each:
    """TRNA where Z has a small variance: its support is short, and each pixel gets its own distribution."""

    def __init__(self, count: RefinedNormal, support: Tensor, chunk: int) -> None:
        self.count, self.support, self.step = count, support, max(1, chunk // len(support))
        self.kernel = torch.eye(len(support), dtype=torch.float64, device=support.device)

    def of_each(self, p: Tensor) -> Tensor:
        """See :class:`_Blind`."""
        return _without(self.count, p, self.support).mul_(p.unsqueeze(1))

    def of_all_above(self, tiles: Tiles, threshold: Tensor) -> Tensor:
        """See :class:`_Blind`."""
        every, bound = torch.ones_like(threshold, dtype=torch.bool), round_down(threshold, tiles.dtype)
        total = torch.zeros_like(self.support)
        for images, classes, pixels in tiles.passes(every, _TILE_SHARE):
            tile = tiles.load(images, classes, pixels).flatten()
            for p in tile[tile > bound.flatten()].double().split(self.step):
                total += self.of_each(p).sum(0)
        return total


_Shares = _Blind | _Smooth | _Each


def _without(count: RefinedNormal, p: Tensor, support: Tensor) -> Tensor:
    """Distribution (K, W) of Z without one pixel, for each probability p (K,)."""
    spread = p * (1 - p)
    rest = RefinedNormal(count.mean - p, count.variance - spread, count.third - spread * (1 - 2 * p))
    columns = RefinedNormal(*(moment.unsqueeze(1) for moment in (rest.mean, rest.variance, rest.third)))
    return _normalise(columns.pmf(support))


def _normalise(pmf: Tensor) -> Tensor:
    return pmf / pmf.sum(-1, keepdim=True)
