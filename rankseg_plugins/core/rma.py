"""Reciprocal moment approximation: the best volume of every class, found without sorting.

The best mask of a ratio of linear functions is ``{p > threshold}``, and Dinkelbach's iteration finds the threshold
from the count and the sum of the pixels above the current one. One pass over the data decides all pixels but the
few between a lower bound of the threshold and the ceiling of :class:`~rankseg_plugins.core.objectives.Objective`;
the iteration then runs on those alone. Dice with ``smooth > 0`` is not a ratio: there the few undecided pixels, and
only those, are sorted.

Source: Wang & Dai, "RankSEG-RMA", NeurIPS 2025 (the objective); Dinkelbach, "On nonlinear fractional programming",
Management Science 13 (1967) (the iteration).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.probabilities import check_range
from rankseg_plugins.core.tiles import TILE, Tiles, row_sum


@dataclass
class RowStatistics:
    """Largest probability and sum of probabilities of every image and class, each (B, C) float64."""

    maximum: Tensor
    mu: Tensor


@dataclass
class Volumes:
    """The chosen mask of every image and class, each field (B, C): ``{p > threshold}``.

    ``threshold`` is in the precision in which probabilities are compared, rounded towards zero so that the
    comparison gives what the float64 threshold would. A class that is not active has threshold infinity.
    """

    threshold: Tensor
    n: Tensor
    s: Tensor
    mu: Tensor
    active: Tensor


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
        for pixels in tiles.pixels((images.stop - images.start) * classes):
            tile = tiles.load(images, slice(classes), pixels)
            # torch.maximum carries NaN on, as amax does.
            maximum[images] = torch.maximum(maximum[images], tile.amax(-1))
            minimum[images] = torch.minimum(minimum[images], tile.amin(-1))
            mu[images] += row_sum(tile)
    if batch and not tiles.clamp:
        tiles.clamp = check_range(minimum.amin().item(), maximum.amax().item())
        if tiles.clamp:
            return row_statistics(tiles)
    return RowStatistics(maximum.double(), mu)


def search_volumes(tiles: Tiles, statistics: RowStatistics, objective: Objective, pruning_prob: float) -> Volumes:
    """Find the volume of largest score for every image and class.

    Args:
        tiles: the probabilities.
        statistics: their :func:`row_statistics`.
        objective: Dice or IoU.
        pruning_prob: a class whose largest probability is not above it stays empty.
    """
    mu, active = statistics.mu, statistics.maximum > pruning_prob
    if not active.any():
        nothing = torch.zeros_like(mu)
        return Volumes(torch.full_like(mu, torch.inf, dtype=tiles.dtype), nothing, nothing, mu, active)
    ceiling = objective.ceiling(mu)
    base_n, base_s = _count_above(tiles, active, ceiling)
    floor = objective.threshold(base_s, base_n, mu)
    room = max(TILE, int(active.sum()) * tiles.shape[2] // 16)
    while (undecided := _undecided(tiles, active, floor, ceiling, room)) is None:
        # Too many pixels are undecided to be worth keeping: raise the floor by one more pass over the data.
        n, s = _count_above(tiles, active, floor)
        raised = torch.maximum(floor, objective.threshold(s, n, mu))
        if torch.equal(raised, floor):
            # The floor is as high as it gets. For a ratio it is the threshold: nothing is undecided any more.
            room = active.numel() * tiles.shape[2]
            if objective.is_ratio:
                ceiling, base_n, base_s = floor, n, s
        floor = raised
    search = _dinkelbach if objective.is_ratio else _best_prefix
    threshold, n, s = search(*undecided, objective, mu, base_n, base_s, floor)
    threshold = round_down(threshold, tiles.dtype).masked_fill(~active, torch.inf)
    return Volumes(threshold, n * active, s * active, mu, active)


def _count_above(tiles: Tiles, active: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Count and sum, each (B, C) float64, of the pixels above ``threshold`` (B, C); only active classes matter."""
    n, s = torch.zeros_like(threshold), torch.zeros_like(threshold)
    bound = round_down(threshold, tiles.dtype).unsqueeze(-1)
    for images, classes, pixels in tiles.passes(active):
        tile = tiles.load(images, classes, pixels)
        above = torch.gt(tile, bound[images, classes], out=tiles.scratch(0, tile.shape))
        n[images, classes] += row_sum(above)
        s[images, classes] += row_sum(above.mul_(tile))
    return n, s


def _undecided(tiles: Tiles, active: Tensor, floor: Tensor, ceiling: Tensor, room: int) -> tuple[Tensor, Tensor] | None:
    """The pixels with ``floor < p <= ceiling`` of the active classes.

    Returns:
        Their values (K,) in the tile's precision and rows (K,), which index ``floor.flatten()``; None when they are
        more than ``room``.
    """
    low = round_down(floor, tiles.dtype).masked_fill(~active, torch.inf).unsqueeze(-1)
    high = round_down(ceiling, tiles.dtype).masked_fill(~active, torch.inf).unsqueeze(-1)
    row = torch.arange(floor.numel(), device=floor.device).view(*floor.shape, 1)
    values, rows = [], []
    for images, classes, pixels in tiles.passes(active):
        tile = tiles.load(images, classes, pixels)
        inside = torch.gt(tile, low[images, classes], out=tiles.scratch(0, tile.shape))
        inside.sub_(torch.gt(tile, high[images, classes], out=tiles.scratch(1, tile.shape)))
        # Most blocks of 32 pixels hold none: find the blocks first, then the pixels in them.
        blocks = (-1, math.gcd(tile.shape[-1], 32))
        image, label, block = inside.unflatten(-1, blocks).amax(-1).nonzero(as_tuple=True)
        kept = inside.unflatten(-1, blocks)[image, label, block] > 0
        values.append(tile.unflatten(-1, blocks)[image, label, block][kept])
        rows.append(row[images, classes][image, label].expand_as(kept)[kept])
        room -= len(values[-1])
        if room < 0:
            return None
    return torch.cat(values), torch.cat(rows)


def _dinkelbach(
    values: Tensor, rows: Tensor, objective: Objective, mu: Tensor, base_n: Tensor, base_s: Tensor, floor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold, count and sum of the best mask of a ratio, from the undecided pixels and the decided rest."""
    base = torch.stack([base_n.flatten(), base_s.flatten()], dim=1)
    values = values.double()
    terms = torch.stack([torch.ones_like(values), values], dim=1)
    threshold, mu = floor.flatten(), mu.flatten()
    while True:
        above = values > threshold[rows]
        n, s = base.index_add(0, rows, terms * above.unsqueeze(1)).unbind(1)
        raised = torch.maximum(threshold, objective.threshold(s, n, mu))
        if torch.equal(raised, threshold):
            return threshold.view_as(floor), n.view_as(floor), s.view_as(floor)
        threshold = raised


def _best_prefix(
    values: Tensor, rows: Tensor, objective: Objective, mu: Tensor, base_n: Tensor, base_s: Tensor, floor: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Threshold, count and sum of the best mask of any objective: all volumes of the undecided pixels are scored.

    Within a run of equal probabilities the score falls, rises, or falls and then rises, so that the best volume
    lies at an end of the run and a threshold describes it.
    """
    # Sort by falling value inside each row. A sentinel of value infinity opens every row: the empty prefix.
    opening = torch.arange(mu.numel(), device=mu.device)
    rows = torch.cat([opening, rows])
    values = torch.cat([torch.full_like(mu, torch.inf).flatten(), values.double()])
    order = values.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    values, rows = values[order], rows[order]
    first = torch.searchsorted(rows, opening)

    position = torch.arange(len(rows), device=mu.device) - first[rows]
    total = values.masked_fill(position == 0, 0).cumsum(0)
    n = base_n.flatten()[rows] + position
    s = base_s.flatten()[rows] + (total - total[first][rows])
    following = torch.cat([values[1:], values.new_tensor([-torch.inf])])
    last = torch.cat([first[1:], first.new_tensor([len(rows)])]) - 1
    following[last] = floor.flatten()

    score = objective.score(s, n, mu.flatten()[rows]).masked_fill(following == values, -torch.inf)
    best = torch.full_like(mu.flatten(), -torch.inf).scatter_reduce(0, rows, score, "amax")
    is_best = score == best[rows]
    # Of equal scores the smallest volume, which comes first.
    chosen = torch.full_like(first, len(rows)).scatter_reduce(0, rows[is_best], is_best.nonzero().flatten(), "amin")
    return following[chosen].view_as(mu), n[chosen].view_as(mu), s[chosen].view_as(mu)


def round_down(threshold: Tensor, dtype: torch.dtype) -> Tensor:
    """Largest value of ``dtype`` not above ``threshold``: for p of that dtype, ``p > threshold`` stays the same."""
    rounded = threshold.to(dtype)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded.double() > threshold, below, rounded)
