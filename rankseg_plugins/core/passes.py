"""Single passes over the probabilities, tile by tile, and the rounding that their comparisons rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rankseg_plugins.core.tiles import FEW, Tiles, row_sum

#: Pixels that are looked at together where few are wanted.
_BLOCK = 32

#: Work in float64 on several copies of a tile takes this share of it at a time.
_SHARE = 8

#: Sets the pixels outside a group to 0: (tile, images, classes, pixels) -> tile.
Group = Callable[[Tensor, slice, slice, slice], Tensor]


def count_above(tiles: Tiles, active: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Count and sum, each (B, C) float64, of the pixels above ``threshold`` (B, C); only active classes matter."""
    n, s = torch.zeros_like(threshold), torch.zeros_like(threshold)
    bound = round_down(threshold, tiles.dtype).unsqueeze(-1)
    for images, classes, pixels in tiles.passes(active):
        tile = tiles.load(images, classes, pixels)
        above = torch.gt(tile, bound[images, classes], out=tiles.scratch(0, tile.shape))
        # A tile has fewer than 2^24 pixels: float32 counts them exactly.
        n[images, classes].add_(above.sum(-1))
        s[images, classes].add_(row_sum(above.mul_(tile)))
    return n, s


def pixels_between(tiles: Tiles, active: Tensor, floor: Tensor, ceiling: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels with ``floor < p <= ceiling`` of the active classes.

    Returns:
        Their values (K,) in the tile's precision and rows (K,), which index ``floor.flatten()``.
    """
    found = few_pixels_between(tiles, active, floor, ceiling, tiles.probs.numel())
    assert found is not None
    return found


def few_pixels_between(
    tiles: Tiles, active: Tensor, floor: Tensor, ceiling: Tensor, room: int
) -> tuple[Tensor, Tensor] | None:
    """As :func:`pixels_between`, or None as soon as the pixels are more than ``room``."""
    bounds = round_down(torch.stack([floor, ceiling]), tiles.dtype).masked_fill_(~active, torch.inf)
    # NaN for inactive classes, where nothing lies near; a little more than half the width, for rounding.
    middle = (bounds[0] + bounds[1]).div_(2).unsqueeze(-1)
    reach = (bounds[1] - bounds[0]).div_(2).add_(4 * torch.finfo(tiles.dtype).eps).unsqueeze(-1)
    bounds = bounds.view(2, -1, 1)
    row = torch.arange(floor.numel(), device=floor.device).view(floor.shape)
    values, rows = [], []
    for images, classes, pixels in tiles.passes(active):
        part = images, classes
        tile = tiles.load(images, classes, pixels)
        for candidates, of in _candidates(tiles, tile, row[part], middle[part], reach[part]):
            low, high = bounds.index_select(1, of)
            inside = (candidates > low).logical_and_(candidates <= high).flatten()
            room -= int(inside.count_nonzero())
            if room < 0:
                return None
            found = inside.nonzero().squeeze(1)
            values.append(candidates.flatten().index_select(0, found))
            rows.append(of.index_select(0, found.div_(candidates.shape[1], rounding_mode="floor")))
    if not values:
        return floor.new_empty(0, dtype=tiles.dtype), row.new_empty(0)
    return torch.cat(values), torch.cat(rows)


def _candidates(
    tiles: Tiles, tile: Tensor, row: Tensor, middle: Tensor, reach: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of pixels (N, block) that may hold some within ``reach`` of the middle, and their rows (N,)."""
    if tile.numel() <= FEW:
        yield tile.flatten(0, 1), row.flatten()
        return
    distance = torch.sub(tile, middle, out=tiles.scratch(0, tile.shape)).abs_()
    for blocked, far in zip(_blocks(tile), _blocks(distance), strict=True):
        where = (far.amin(-1) <= reach).nonzero()
        # Where most blocks hold some, a copy of them all would double the memory: piece by piece.
        for piece in where.split(max(1, tiles.size // (16 * blocked.shape[-1]))):
            image, label, block = piece.unbind(1)
            yield blocked[image, label, block], row[image, label]


def _blocks(tile: Tensor) -> Iterator[Tensor]:
    """The pixels in blocks (images, classes, blocks, block), and those that fill no block one by one."""
    whole = tile.shape[-1] // _BLOCK * _BLOCK
    if whole:
        yield tile[..., :whole].unflatten(-1, (-1, _BLOCK))
    if whole < tile.shape[-1]:
        yield tile[..., whole:].unsqueeze(-1)


def sum_powers(tiles: Tiles, active: Tensor, group: Group, order: int) -> Tensor:
    """Sums of p, p^2, ..., p^order over a group of pixels: (B, C, order) float64.

    Args:
        tiles: the probabilities.
        active: (B, C) bool, the classes that matter.
        group: for a tile in float64 and where it lies, the tile with every pixel outside the group set to 0.
        order: the largest power.
    """
    sums = torch.zeros(*active.shape, order, dtype=torch.float64, device=active.device)
    tiles.release_scratch()
    for images, classes, pixels in tiles.passes(active, _SHARE):
        base = group(tiles.load(images, classes, pixels).double(), images, classes, pixels)
        power = base.clone()
        for k in range(order):
            sums[images, classes, k].add_(row_sum(power))
            power *= base
        del base, power  # before the next ones are made
    return sums


def round_down(threshold: Tensor, dtype: torch.dtype) -> Tensor:
    """Largest value of ``dtype`` not above ``threshold``: for p of that dtype, ``p > threshold`` stays the same."""
    rounded = threshold.to(dtype)
    below = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
    return torch.where(rounded > threshold, below, rounded)
