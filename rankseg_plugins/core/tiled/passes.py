"""Single passes over the probabilities, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from rankseg_plugins.core.tiled.tiles import FEW, Tiles, in_blocks, row_sum
from rankseg_plugins.core.volumes import round_down

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
    bounds = round_down(torch.stack([floor, ceiling]), tiles.dtype).masked_fill_(~active, torch.inf)
    found = collect(_candidates(tiles, active, bounds), bounds.flatten(1), tiles.probs.numel())
    assert found is not None
    return found


def collect(candidates: Iterable[tuple[Tensor, Tensor]], bounds: Tensor, room: int) -> tuple[Tensor, Tensor] | None:
    """The pixels with ``bounds[0] < p <= bounds[1]``, or None as soon as they are more than ``room``.

    Args:
        candidates: pixels (N, block) and the rows (N,) that they belong to.
        bounds: (2, rows), in the precision of the pixels.
        room: number of pixels.

    Returns:
        Values (K,) and rows (K,).
    """
    values, rows = [bounds.new_empty(0)], [torch.empty(0, dtype=torch.int64, device=bounds.device)]
    for pixels, row in candidates:
        low, high = bounds.index_select(1, row).unsqueeze(2)
        found = (pixels > low).logical_and_(pixels <= high).flatten().nonzero().squeeze(1)
        room -= len(found)
        if room < 0:
            return None
        values.append(pixels.flatten().index_select(0, found))
        rows.append(row.index_select(0, found.div_(pixels.shape[1], rounding_mode="floor")))
    return torch.cat(values), torch.cat(rows)


def _candidates(tiles: Tiles, active: Tensor, bounds: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of pixels (N, block) that may hold some between the bounds (2, B, C), and their rows (N,)."""
    # NaN for inactive classes, where nothing lies near; a little more than half the width, for rounding.
    middle = (bounds[0] + bounds[1]).div_(2).unsqueeze(-1)
    reach = (bounds[1] - bounds[0]).div_(2).add_(4 * torch.finfo(tiles.dtype).eps).unsqueeze(-1)
    row = torch.arange(active.numel(), device=active.device).view(active.shape)
    for images, classes, pixels in tiles.passes(active):
        tile, rows = tiles.load(images, classes, pixels), row[images, classes]
        if tile.numel() <= FEW:
            yield tile.flatten(0, 1), rows.flatten()
            continue
        distance = torch.sub(tile, middle[images, classes], out=tiles.scratch(0, tile.shape)).abs_()
        for blocked, far in zip(in_blocks(tile), in_blocks(distance), strict=True):
            where = (far.amin(-1) <= reach[images, classes]).nonzero()
            # Where most blocks hold some, a copy of them all would double the memory: piece by piece.
            for piece in where.split(max(1, tiles.size // (16 * blocked.shape[-1]))):
                image, label, block = piece.unbind(1)
                yield blocked[image, label, block], rows[image, label]


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
