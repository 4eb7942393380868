"""Reciprocal moment approximation: the best volume of every class, found without sorting.

The best mask of a ratio of linear functions is ``{p > threshold}``, and Dinkelbach's iteration finds the threshold
from the count and the sum of the pixels above the current one. One pass over the data decides all pixels but the
few between a lower bound of the threshold and the ceiling of :class:`~rankseg_plugins.core.objectives.Objective`;
the iteration then runs on those alone. Dice with ``smooth > 0`` is a ratio and a little more: its best mask lacks some
of the least probable pixels of the ratio's, if any, and only these are sorted.

Source: Wang & Dai, "RankSEG-RMA", NeurIPS 2025 (the objective); Dinkelbach, "On nonlinear fractional programming",
Management Science 13 (1967) (the iteration).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.probabilities import check_range
from rankseg_plugins.core.tiled.passes import count_above
from rankseg_plugins.core.tiled.pieces import Bound, Group, Mask, best_masks, room
from rankseg_plugins.core.tiled.ranking import Ranking
from rankseg_plugins.core.tiled.survey import Survey
from rankseg_plugins.core.tiled.tiles import Tiles, row_sum
from rankseg_plugins.core.volumes import Volumes, round_down

#: Undecided pixels that are kept in any case; of large inputs a small share.
_ROOM = 1 << 12


@dataclass
class RowStatistics:
    """Largest probability and sum of probabilities of every image and class, each (B, C) float64."""

    maximum: Tensor
    mu: Tensor


def row_statistics(tiles: Tiles) -> RowStatistics:
    """Read every probability once: check it, and find maximum and sum of every image and class.

    Raises:
        ValueError: for NaN, infinite or out-of-range probabilities.
    """
    batch, classes, _ = tiles.shape
    maximum = torch.zeros(batch, classes, dtype=tiles.dtype, device=tiles.probs.device)
    minimum = torch.ones_like(maximum)
    mu = torch.zeros_like(maximum, dtype=torch.float64)
    for images in tiles.groups():
        for pixels in tiles.pixels((images.stop - images.start) * classes, tiles.reach):
            tile = tiles.load(images, slice(classes), pixels)
            # torch.maximum carries NaN on, as amax does.
            torch.maximum(maximum[images], tile.amax(-1), out=maximum[images])
            torch.minimum(minimum[images], tile.amin(-1), out=minimum[images])
            mu[images].add_(row_sum(tile))
    if batch and not tiles.clamp:
        tiles.clamp = check_range(minimum.amin().item(), maximum.amax().item())
        if tiles.clamp:
            return row_statistics(tiles)
    return RowStatistics(maximum.double(), mu)


def search_volumes(tiles: Tiles, statistics: RowStatistics, objective: Objective, pruning: float | Tensor) -> Volumes:
    """Find the volume of largest score for every image and class.

    Args:
        tiles: the probabilities.
        statistics: their :func:`row_statistics`.
        objective: Dice or IoU.
        pruning: a class whose largest probability is not above it stays empty; one for all, or (B, C).
    """
    # In the precision of the probabilities: one that is equal to `pruning` as written is not above it.
    mu, active = statistics.mu, statistics.maximum.to(tiles.dtype) > pruning
    number = int(active.count_nonzero())
    if not number:
        nothing = torch.zeros_like(mu)
        return Volumes(torch.full_like(mu, torch.inf, dtype=tiles.dtype), nothing, nothing, mu, active)
    ceiling = objective.ceiling(mu)
    # Any mask gives a floor. Where nothing lies above the ceiling, the upper half of the probabilities is a good one.
    reaches = statistics.maximum > ceiling
    survey = Survey(tiles, active, torch.where(reaches, ceiling, statistics.maximum / 2), ceiling)
    base_n, base_s = survey.n * reaches, survey.s * reaches
    floor = objective.threshold(survey.s, survey.n, mu)
    most = max(_ROOM, number * tiles.shape[2] // 64)
    while (undecided := survey.between(floor, ceiling, most)) is None:
        # Too many pixels are undecided to be worth keeping: raise the floor by one more pass over the data.
        n, s = count_above(tiles, active, floor)
        raised = torch.maximum(floor, objective.threshold(s, n, mu))
        if torch.equal(raised, floor):
            # The floor is as high as it gets. For a ratio it is the threshold: nothing is undecided any more.
            lowered = objective.ceiling_beyond(base_n, floor, mu)
            if not objective.is_ratio and not (lowered < ceiling * (1 - 1e-6))[active].any():
                break
            ceiling = torch.minimum(ceiling, lowered)
            base_n, base_s = (n, s) if objective.is_ratio else count_above(tiles, active, ceiling)
        floor = raised
    tiles.release_scratch()
    if undecided is None:
        # A haze of equal probabilities, for example.
        low, high = Bound(floor, *count_above(tiles, active, floor)), Bound(ceiling, base_n, base_s)
        # Beside its pixels, a class takes the memory of about one in every table.
        search = partial(_best_of_group, mu, objective)
        best: Bound = best_masks(tiles, active, low, high, low.n - high.n + 1, room(tiles, active), search)
    else:
        best = _decide(*undecided, objective, mu, floor, Bound(ceiling, base_n, base_s))
    threshold = round_down(best.threshold, tiles.dtype).masked_fill(~active, torch.inf)
    return Volumes(threshold, best.n * active, best.s * active, mu, active)


def _best_of_group(mu: Tensor, objective: Objective, group: Group, low: Bound, high: Bound) -> Mask:
    """The best masks (A,) between the bounds of a group."""
    floor = low.threshold[group.wanted]
    return _best_prefix(
        *group.pixels_between(low.threshold, high.threshold), objective, group.of(mu), high.at(group.wanted), floor
    )


def _decide(values: Tensor, rows: Tensor, objective: Objective, mu: Tensor, floor: Tensor, high: Bound) -> Bound:
    """The best mask, from the undecided pixels and the mask above them."""
    ratio = _dinkelbach(values, rows, objective, mu, floor, high)
    if objective.is_ratio:
        return ratio
    # That is the best mask of the ratio part. The best one of all may lack the least probable pixels of it, no others.
    ceiling = torch.minimum(high.threshold, objective.ceiling_beyond(high.n, ratio.threshold, mu))
    values = values.double()
    above = (values > ratio.threshold.flatten().index_select(0, rows)).nonzero().squeeze(1)
    values, rows = values.index_select(0, above), rows.index_select(0, above)
    sure = values > ceiling.flatten().index_select(0, rows)
    if sure.all():
        return ratio
    n = (high.n.flatten() + rows[sure].bincount(minlength=mu.numel())).view_as(mu)
    s = high.s.flatten().index_add(0, rows[sure], values[sure]).view_as(mu)
    return _best_prefix(values[~sure], rows[~sure], objective, mu, Bound(ceiling, n, s), ratio.threshold)


def _dinkelbach(values: Tensor, rows: Tensor, objective: Objective, mu: Tensor, floor: Tensor, high: Bound) -> Bound:
    """The best mask of a ratio, from the undecided pixels and the mask above them."""
    values = values.double()
    base_n, base_s = high.n.flatten(), high.s.flatten()
    threshold, mu = floor.flatten(), mu.flatten()
    while True:
        n = base_n + rows.bincount(minlength=len(base_n))
        s = base_s.index_add(0, rows, values)
        threshold = torch.maximum(threshold, objective.threshold(s, n, mu))
        # It only grows: what is below it now will not come back.
        above = (values > threshold.index_select(0, rows)).nonzero().squeeze(1)
        if len(above) == len(values):
            return Bound(*(table.view_as(floor) for table in (threshold, n, s)))
        values, rows = values.index_select(0, above), rows.index_select(0, above)


def _best_prefix(values: Tensor, rows: Tensor, objective: Objective, mu: Tensor, high: Bound, floor: Tensor) -> Mask:
    """The best mask for any objective, from the pixels above ``floor`` and the mask above them; all are scored.

    Within a run of equal probabilities the score falls, rises, or falls and then rises, so that the best volume
    lies at an end of the run and a threshold describes it.
    """
    ranking = Ranking(values, rows, mu.numel())
    row = ranking.rows
    n = high.n.flatten()[row] + ranking.position
    s = high.s.flatten()[row] + ranking.cumulate(ranking.values)
    following = ranking.following(floor.flatten())
    score = objective.score(s, n, mu.flatten()[row]).masked_fill(following == ranking.values, -torch.inf)
    chosen = ranking.best(score)
    return Mask(*(values[chosen].view_as(mu) for values in (following, n, s, score)))
