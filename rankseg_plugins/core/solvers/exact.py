"""The best mask by exact expected Dice or IoU, and the exact expected score of any given mask.

The best mask of each volume is the top of the ranking, and few volumes need to be scored: RMA's best score is a lower
bound of the exact optimum (Jensen), and :mod:`~rankseg_plugins.core.solvers.window` rules out what cannot reach it.

A run of equal probabilities is taken as a whole or not at all. No volume inside a run was ever found to score more than
both its ends; the tests compare with every mask.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.solvers.expectation import Expectation, Terms, empty_scores, make_expectation, prefix_scores
from rankseg_plugins.core.solvers.quadrature import SMALL, Nodes, deviation, make_nodes, order, reach_of
from rankseg_plugins.core.solvers.window import find_window
from rankseg_plugins.core.tiled.passes import count_above, pixels_between, sum_powers
from rankseg_plugins.core.tiled.pieces import Bound, Group, Mask, best_masks, groups, room
from rankseg_plugins.core.tiled.ranking import Ranking
from rankseg_plugins.core.tiled.rma import RowStatistics
from rankseg_plugins.core.tiled.tiles import FEW, Tiles
from rankseg_plugins.core.volumes import Volumes, round_down

#: The tables of nodes of a class take about the memory of so many ranked pixels.
_ROW = 32


def search_exact(tiles: Tiles, statistics: RowStatistics, volumes: Volumes, objective: Objective) -> Volumes:
    """Find the volume of largest exact expected score for every image and class.

    Args:
        tiles: the probabilities.
        statistics: their row statistics.
        volumes: what RMA finds, of at least one active class.
        objective: Dice or IoU.
    """
    mu, active, expectation = volumes.mu, volumes.active, make_expectation(objective)
    mean, variance = moments = _moments(tiles, active)
    lower = objective.score(volumes.s, volumes.n, mu)
    low, high = find_window(tiles, active, statistics, variance, lower, expectation)
    # Many small images would take long one by one.
    most = room(tiles, active, FEW)
    ranked = _number_ranked(tiles, active, low, high, moments, expectation)
    best = best_masks(tiles, active, low, high, ranked, most, partial(_best_of_group, moments, expectation))
    # The window is one of masks that hold a pixel. The empty one may be better, and far away from it.
    apart = active & (high.n > 0) & _empty_may_win(lower, mean, variance, expectation.smooth)
    nothing = apart & (_empty_scores_of(tiles, apart, moments, expectation, most) >= best.score)
    threshold = round_down(best.threshold, tiles.dtype).masked_fill(nothing | ~active, torch.inf)
    kept = active & ~nothing
    return Volumes(threshold, best.n * kept, best.s * kept, mu, active)


def _number_ranked(
    tiles: Tiles, active: Tensor, low: Bound, high: Bound, moments: tuple[Tensor, Tensor], expectation: Expectation
) -> Tensor:
    """How many pixels :func:`_rank` ranks, (B, C), between the bounds and beyond; the tables of nodes count as some."""
    slowest, _, to_the_end = _rates(low, high, *moments, expectation)
    small = SMALL / reach_of(slowest, to_the_end)
    large, _ = count_above(tiles, active & (small < 1), small)
    return torch.maximum(low.n, large) - high.n + torch.minimum(high.n, large) + _ROW


def _rates(
    low: Bound, high: Bound, mean: Tensor, variance: Tensor, expectation: Expectation
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`~rankseg_plugins.core.solvers.quadrature.make_nodes` needs for masks between bounds; elementwise."""
    spread = deviation(variance)
    slowest, _ = expectation.rates(high.n, low.s, mean, spread)
    _, fastest = expectation.rates(low.n, high.s, mean, spread)
    return slowest, fastest, _empty_counts(high.n, mean, expectation.smooth)


def _best_of_group(
    moments: tuple[Tensor, Tensor], expectation: Expectation, group: Group, low: Bound, high: Bound
) -> Mask:
    """The best of the masks between the bounds (b, c), the upper one included, of every class (A,).

    Args:
        moments: (B, C), mean and variance of the number of foreground pixels.
        expectation: Dice or IoU.
        group: the classes.
        low: the largest mask.
        high: the smallest mask.
    """
    mean, variance = map(group.of, moments)
    nodes = make_nodes(*_rates(low.at(group.wanted), high.at(group.wanted), mean, variance, expectation))
    terms, floor = _rank(group, low, high, nodes)
    following = terms.ranking.following(floor)
    outside = following > high.threshold[group.wanted][terms.row]
    score = prefix_scores(terms, expectation)
    score.masked_fill_((following == terms.ranking.values) | outside, -torch.inf)
    chosen = terms.ranking.best(score)
    return Mask(*(values[chosen] for values in (following, terms.n, terms.s, score)))


def _moments(tiles: Tiles, active: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the number of foreground pixels, in float64 throughout."""
    mean, square = sum_powers(tiles, active, lambda tile, *_: tile, 2).unbind(-1)
    return mean, (mean - square).clamp(min=0)


def _empty_counts(n: Tensor, mu: Tensor, smooth: float) -> Tensor:
    """Where the probability that no pixel is foreground matters: beyond a mean of 800 it is 0 in float64."""
    return (n == 0) & (smooth > 0) & (mu < 800)


def _empty_may_win(score: Tensor, mu: Tensor, variance: Tensor, smooth: float) -> Tensor:
    """Where ``E[g / (g + Z)]`` can reach ``score``; (B, C) bool.

    It is at most ``g / (g + mu) + var / (g + mu)^2``, and at most ``P(Z = 0) + g / (g + 1)`` with P(Z = 0) <= exp(-mu).
    """
    if smooth == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    by_moments = smooth / (smooth + mu) + variance / (smooth + mu) ** 2
    return torch.minimum(by_moments, torch.exp(-mu) + smooth / (smooth + 1)) >= score * (1 - 1e-6)


def _empty_scores_of(
    tiles: Tiles, wanted: Tensor, moments: tuple[Tensor, Tensor], expectation: Expectation, most: int
) -> Tensor:
    """Exact expected score (B, C) of the empty mask of the wanted classes, (B, C) bool."""
    zero, scores = torch.zeros_like(moments[0]), torch.zeros_like(moments[0])
    nothing = Bound(torch.ones_like(zero), zero, zero)
    rates = slowest, _, to_the_end = _rates(nothing, nothing, *moments, expectation)
    floor = SMALL / reach_of(slowest, to_the_end)
    large, _ = count_above(tiles, wanted, floor)
    for group in groups(tiles, wanted, (large + _ROW) / most):
        nodes, small = make_nodes(*map(group.of, rates)), floor[group.place]
        rest = _sums_between(group, torch.zeros_like(small), small, order(SMALL))
        ranking = Ranking(*group.pixels_between(small, torch.ones_like(small)), len(rest))
        base = torch.zeros_like(ranking.values)
        terms = Terms(ranking, nodes, base, base, rest, torch.zeros_like(rest))
        scores[group.place][group.wanted] = empty_scores(terms, expectation.smooth)
    return scores


def _rank(group: Group, low: Bound, high: Bound, nodes: Nodes) -> tuple[Terms, Tensor]:
    """Rank the pixels between the bounds; of the others, the large ones one by one, the rest enters by power sums.

    Returns:
        The terms, which are right for the masks between the bounds, and the threshold (A,) below the last ranked pixel.
    """
    reach = torch.ones_like(low.threshold).masked_scatter_(group.wanted, nodes.reach)
    # Power sums converge up to here; a class whose pixels are nearly all larger has few of them.
    small = SMALL / reach
    floor, ceiling = torch.minimum(low.threshold, small), torch.maximum(high.threshold, small)
    above = group.pixels_between(ceiling, torch.ones_like(ceiling))
    between = group.pixels_between(floor, high.threshold)
    largest = torch.where(high.threshold < small, small.clamp(max=1), floor)
    terms = order(float((reach * largest)[group.wanted].max()))
    rest = _sums_between(group, torch.zeros_like(floor), floor, terms)
    base = _sums_between(group, high.threshold, ceiling, terms)

    values, rows = (torch.cat(both) for both in zip(above, between, strict=True))
    ranking = Ranking(values, rows, len(rest))
    own = torch.bincount(above[1], minlength=len(rest))
    n = (high.n[group.wanted] - own)[ranking.rows] + ranking.position
    s = base[:, 0][ranking.rows] + ranking.cumulate(ranking.values)
    return Terms(ranking, nodes, n, s, rest, base), floor[group.wanted]


def _sums_between(group: Group, floor: Tensor, ceiling: Tensor, order: int) -> Tensor:
    """Power sums (A, order) of the pixels with ``floor < p <= ceiling`` (b, c)."""
    low, high = (round_down(bound, group.tiles.dtype).unsqueeze(-1) for bound in (floor, ceiling))

    def between(tile: Tensor, images: slice, classes: slice, pixels: slice) -> Tensor:
        return tile * ((tile > low[images, classes]) & (tile <= high[images, classes]))

    return sum_powers(group.tiles, group.wanted, between, order)[group.wanted]


def expected_scores(tiles: Tiles, masks: Tensor, objective: Objective) -> Tensor:
    """Exact expected score of given masks, (B, C) float64.

    Args:
        tiles: the probabilities.
        masks: (B, C, d) bool; pixels that are not valid belong to no mask.
        objective: Dice or IoU.
    """
    expectation = make_expectation(objective)
    scores = torch.zeros(masks.shape[:2], dtype=torch.float64, device=masks.device)
    # Several copies of the probabilities are needed: of a few classes at a time.
    for images, classes in tiles.rows():
        scores[images, classes] = _scores_of_masks(tiles.part(images, classes), masks[images, classes], expectation)
    return scores


def _scores_of_masks(tiles: Tiles, masks: Tensor, expectation: Expectation) -> Tensor:
    others = ~masks
    if tiles.valid is not None:
        masks, others = masks & tiles.valid.unsqueeze(1), others & tiles.valid.unsqueeze(1)
    inside, outside = tiles.masked(masks), tiles.masked(others)
    n, every = masks.sum(-1).double(), masks.new_ones(masks.shape[:2])
    (s, inner), (rest_s, outer) = _moments(inside, every), _moments(outside, every)
    mu, variance = s + rest_s, inner + outer
    slowest, fastest = expectation.rates(n, s, mu, deviation(variance))
    to_the_end = _empty_counts(n, mu, expectation.smooth)
    nodes = make_nodes(slowest.flatten(), fastest.flatten(), to_the_end.flatten())

    small = (SMALL / nodes.reach).view_as(n)
    bound = round_down(small, tiles.dtype).double().unsqueeze(-1)
    terms = order(float((nodes.reach * small.flatten().clamp(max=1)).max()))
    base, rest = (
        sum_powers(part, every, lambda tile, i, c, _: tile * (tile <= bound[i, c]), terms).flatten(0, 1)
        for part in (inside, outside)
    )
    # The large pixels of the mask go first, so that one prefix is the mask.
    large = [pixels_between(part, every, small, torch.ones_like(small)) for part in (inside, outside)]
    values, rows = (torch.cat(both) for both in zip(*large, strict=True))
    ranking = Ranking(values, rows, n.numel(), ahead=torch.arange(len(rows), device=rows.device) < len(large[0][0]))
    row = ranking.rows
    own = torch.bincount(large[0][1], minlength=n.numel())
    prefix_n = n.flatten()[row] - own[row] + ranking.position
    scores = prefix_scores(Terms(ranking, nodes, prefix_n, s.flatten()[row], rest, base), expectation)
    return scores[ranking.first + own].view_as(n)
