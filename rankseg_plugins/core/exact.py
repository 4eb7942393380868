"""The best mask by exact expected Dice or IoU, and the exact expected score of any given mask.

The best mask of each volume is the top of the ranking, and few volumes need to be scored: RMA's best score is a lower
bound of the exact optimum (Jensen), and :mod:`~rankseg_plugins.core.window` rules out what cannot reach it.

A run of equal probabilities is taken as a whole or not at all. No volume inside a run was ever found to score more than
both its ends; the tests compare with every mask.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rankseg_plugins.core.expectation import Terms, empty_scores, make_expectation, prefix_scores
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.passes import few_pixels_between, pixels_between, round_down, sum_powers
from rankseg_plugins.core.pieces import Bound, Mask, Place, best_of_pieces, room
from rankseg_plugins.core.quadrature import SMALL, Nodes, deviation, make_nodes, order
from rankseg_plugins.core.ranking import Ranking
from rankseg_plugins.core.rma import RowStatistics, Volumes, search_volumes
from rankseg_plugins.core.tiles import FEW, Tiles
from rankseg_plugins.core.window import find_window


def search_exact(tiles: Tiles, statistics: RowStatistics, objective: Objective, pruning_prob: float) -> Volumes:
    """Find the volume of largest exact expected score for every image and class.

    Args:
        tiles: the probabilities.
        statistics: their row statistics.
        objective: Dice or IoU.
        pruning_prob: a class whose largest probability is not above it stays empty.
    """
    approximate = search_volumes(tiles, statistics, objective, pruning_prob)
    mu, active = approximate.mu, approximate.active
    if not active.any():
        return approximate
    expectation = make_expectation(objective)
    mean, variance = _moments(tiles, active)
    lower = objective.score(approximate.s, approximate.n, mu)
    low, high = find_window(tiles, active, statistics, variance, lower, expectation)
    most = room(tiles, active)
    # Many small images would take long one by one.
    best = _best_between(tiles, active, low, high, (mean, variance), objective, max(most, FEW))
    if best is None:
        best = best_of_pieces(tiles, active, low, high, most, partial(_best_of_one, (mean, variance), objective))
    # The window is one of masks that hold a pixel. The empty one may be better, and far away from it.
    apart = active & (high.n > 0) & _empty_may_win(lower, mean, variance, objective.smooth)
    nothing = apart & (_empty_scores_of(tiles, apart, mean, variance, objective) >= best.score)
    threshold = round_down(best.threshold, tiles.dtype).masked_fill(nothing | ~active, torch.inf)
    kept = active & ~nothing
    return Volumes(threshold, best.n * kept, best.s * kept, mu, active)


def _best_of_one(
    moments: tuple[Tensor, Tensor], objective: Objective, tiles: Tiles, place: Place, low: Bound, high: Bound
) -> Mask:
    """:func:`_best_between` for a single class, which lies at this place of the moments' tables."""
    mean, variance = moments
    every = torch.ones_like(low.n, dtype=torch.bool)
    found = _best_between(tiles, every, low, high, (mean[place], variance[place]), objective)
    assert found is not None
    return found


def _best_between(
    tiles: Tiles,
    active: Tensor,
    low: Bound,
    high: Bound,
    moments: tuple[Tensor, Tensor],
    objective: Objective,
    most: int | None = None,
) -> Mask | None:
    """The best of the masks between the bounds, the upper one included; None if more than ``most`` have to be ranked.

    Args:
        tiles: the probabilities.
        active: (B, C) bool, the classes that matter.
        low: the largest mask.
        high: the smallest mask.
        moments: mean and variance of the number of foreground pixels.
        objective: Dice or IoU.
        most: number of pixels; None if all can be ranked.
    """
    expectation, (mean, variance) = make_expectation(objective), moments
    spread = deviation(variance)
    slowest, _ = expectation.rates(high.n, low.s, mean, spread)
    _, fastest = expectation.rates(low.n, high.s, mean, spread)
    nodes = make_nodes(slowest, fastest, active, _empty_counts(high.n, mean, objective))
    ranked = _rank(tiles, active, low, high, nodes, most)
    if ranked is None:
        return None
    terms, floor = ranked
    following = terms.ranking.following(floor.flatten())
    outside = following > high.threshold.flatten()[terms.row]
    score = prefix_scores(terms, expectation)
    score.masked_fill_((following == terms.ranking.values) | outside, -torch.inf)
    chosen = terms.ranking.best(score)
    return Mask(*(values[chosen].view_as(mean) for values in (following, terms.n, terms.s, score)))


def _moments(tiles: Tiles, active: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the number of foreground pixels, in float64 throughout."""
    mean, square = sum_powers(tiles, active, lambda tile, *_: tile, 2).unbind(-1)
    return mean, (mean - square).clamp(min=0)


def _empty_counts(n: Tensor, mu: Tensor, objective: Objective) -> Tensor:
    """Where the probability that no pixel is foreground matters: beyond a mean of 800 it is 0 in float64."""
    return (n == 0) & (objective.smooth > 0) & (mu < 800)


def _empty_may_win(score: Tensor, mu: Tensor, variance: Tensor, smooth: float) -> Tensor:
    """Where ``E[g / (g + Z)]`` can reach ``score``; (B, C) bool.

    It is at most ``g / (g + mu) + var / (g + mu)^2``, and at most ``P(Z = 0) + g / (g + 1)`` with P(Z = 0) <= exp(-mu).
    """
    if smooth == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    by_moments = smooth / (smooth + mu) + variance / (smooth + mu) ** 2
    return torch.minimum(by_moments, torch.exp(-mu) + smooth / (smooth + 1)) >= score * (1 - 1e-6)


def _empty_scores_of(tiles: Tiles, wanted: Tensor, mean: Tensor, variance: Tensor, objective: Objective) -> Tensor:
    """Exact expected score (B, C) of the empty mask of the wanted classes, (B, C) bool."""
    zero = torch.zeros_like(mean)
    if not wanted.any():
        return zero
    slowest, fastest = make_expectation(objective).rates(zero, zero, mean, deviation(variance))
    nodes = make_nodes(slowest, fastest, wanted, _empty_counts(zero, mean, objective))
    floor = SMALL / nodes.reach.view_as(mean)
    bound = round_down(floor, tiles.dtype).double().unsqueeze(-1)
    rest = sum_powers(tiles, wanted, lambda tile, i, c, _: tile * (tile <= bound[i, c]), order(SMALL)).flatten(0, 1)
    ranking = Ranking(*pixels_between(tiles, wanted, floor, torch.ones_like(floor)), mean.numel())
    nothing = torch.zeros_like(ranking.values)
    terms = Terms(ranking, nodes, nothing, nothing, rest, torch.zeros_like(rest))
    return empty_scores(terms, objective.smooth).view_as(mean)


def _rank(
    tiles: Tiles, active: Tensor, low: Bound, high: Bound, nodes: Nodes, most: int | None
) -> tuple[Terms, Tensor] | None:
    """Rank the pixels between the bounds; of the others, the large ones one by one, the rest enters by power sums.

    Returns:
        The terms, which are right for the masks between the bounds, and the threshold (B, C) below the last ranked
        pixel; None if more than ``most`` pixels would be ranked.
    """
    reach = nodes.reach.view_as(low.threshold)
    # Power sums converge up to here; a class whose pixels are nearly all larger has few of them.
    small = SMALL / reach
    floor, ceiling = torch.minimum(low.threshold, small), torch.maximum(high.threshold, small)
    parts = []
    for ends in ((ceiling, torch.ones_like(ceiling)), (floor, high.threshold)):
        part = few_pixels_between(tiles, active, *ends, tiles.probs.numel() if most is None else most)
        if part is None:
            return None
        parts.append(part)
    below, between, above = (
        round_down(bound, tiles.dtype).double().unsqueeze(-1) for bound in (floor, high.threshold, ceiling)
    )
    largest = torch.where(high.threshold < small, small.clamp(max=1), floor)
    terms = order(float((reach * largest)[active].max()))
    rest = sum_powers(tiles, active, lambda tile, i, c, _: tile * (tile <= below[i, c]), terms).flatten(0, 1)
    base = sum_powers(
        tiles, active, lambda tile, i, c, _: tile * ((tile > between[i, c]) & (tile <= above[i, c])), terms
    ).flatten(0, 1)

    values, rows = (torch.cat(both) for both in zip(*parts, strict=True))
    ranking = Ranking(values, rows, floor.numel())
    own = torch.bincount(parts[0][1], minlength=floor.numel())
    n = (high.n.flatten() - own)[ranking.rows] + ranking.position
    s = base[:, 0][ranking.rows] + ranking.cumulate(ranking.values)
    return Terms(ranking, nodes, n, s, rest, base), floor


def expected_scores(tiles: Tiles, masks: Tensor, objective: Objective) -> Tensor:
    """Exact expected score of given masks, (B, C) float64.

    Args:
        tiles: the probabilities.
        masks: (B, C, d) bool; pixels that are not valid belong to no mask.
        objective: Dice or IoU.
    """
    scores = torch.zeros(masks.shape[:2], dtype=torch.float64, device=masks.device)
    # Several copies of the probabilities are needed: of a few classes at a time.
    for images, classes in tiles.rows():
        scores[images, classes] = _scores_of_masks(tiles.part(images, classes), masks[images, classes], objective)
    return scores


def _scores_of_masks(tiles: Tiles, masks: Tensor, objective: Objective) -> Tensor:
    expectation = make_expectation(objective)
    others = ~masks
    if tiles.valid is not None:
        masks, others = masks & tiles.valid.unsqueeze(1), others & tiles.valid.unsqueeze(1)
    inside, outside = tiles.masked(masks), tiles.masked(others)
    n, every = masks.sum(-1).double(), masks.new_ones(masks.shape[:2])
    (s, inner), (rest_s, outer) = _moments(inside, every), _moments(outside, every)
    mu, variance = s + rest_s, inner + outer
    slowest, fastest = expectation.rates(n, s, mu, deviation(variance))
    nodes = make_nodes(slowest, fastest, every, _empty_counts(n, mu, objective))

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
