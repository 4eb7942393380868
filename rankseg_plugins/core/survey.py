"""The first look at the active classes: what lies above a cut, and where the pixels are that may matter below it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rankseg_plugins.core.passes import round_down
from rankseg_plugins.core.tiles import BLOCK, Tiles, places, row_sum

#: Pixels that are looked at one by one take this share of a tile at a time.
_SHARE = 4


class Survey:
    """One pass over the active classes, which later finds the pixels between two bounds without another one.

    Args:
        tiles: the probabilities.
        active: (B, C) bool, the classes that matter.
        cut: (B, C), where pixels are counted.
        ceiling: (B, C), the largest upper bound that will be asked for; at least the cut.

    Attributes:
        n: (B, C) float64, number of pixels above the cut.
        s: (B, C) float64, their sum.
    """

    def __init__(self, tiles: Tiles, active: Tensor, cut: Tensor, ceiling: Tensor) -> None:
        self._tiles, self._active = tiles, active
        self.n, self.s = torch.zeros_like(cut), torch.zeros_like(cut)
        bound, below_cut = round_down(cut, tiles.dtype).unsqueeze(-1), torch.equal(cut[active], ceiling[active])
        #: Images, their classes, and of every block of these the largest probability up to the ceiling, or more.
        self._groups: list[tuple[slice, list[int], Tensor]] = []
        for images in tiles.groups():
            runs = tiles.runs(images, active)
            labels = [label for run in runs for label in range(run.start, run.stop)]
            highest = bound.new_empty(images.stop - images.start, len(labels), -(-tiles.shape[2] // BLOCK))
            for run, part in zip(runs, highest.split([run.stop - run.start for run in runs], 1), strict=True):
                self._look(images, run, bound[images, run], part, below_cut)
            if labels:
                self._groups.append((images, labels, highest))

    def _look(self, images: slice, classes: slice, bound: Tensor, highest: Tensor, below_cut: bool) -> None:
        n, s = self.n[images, classes], self.s[images, classes]
        for pixels in self._tiles.pixels(bound.shape[0] * bound.shape[1]):
            tile = self._tiles.load(images, classes, pixels)
            above = torch.gt(tile, bound, out=self._tiles.scratch(0, tile.shape))
            # A tile has fewer than 2^24 pixels: float32 counts them exactly.
            n.add_(above.sum(-1))
            s.add_(row_sum(above.mul_(tile)))
            blocks = highest[..., pixels.start // BLOCK : -(-pixels.stop // BLOCK)]
            _block_maxima(torch.sub(tile, above, out=above) if below_cut else tile, blocks)

    def between(self, floor: Tensor, ceiling: Tensor, room: int) -> tuple[Tensor, Tensor] | None:
        """The pixels with ``floor < p <= ceiling`` of the active classes, or None if they are more than ``room``.

        Returns:
            Their values (K,) in the tiles' precision and rows (K,), which index ``floor.flatten()``.
        """
        bounds = round_down(torch.stack([floor, ceiling]), self._tiles.dtype).masked_fill_(~self._active, torch.inf)
        self._tiles.release_scratch()
        values, rows = [], []
        for pixels, row in self._blocks_above(bounds[0]):
            low, high = bounds.view(2, -1, 1).index_select(1, row)
            inside = (pixels > low).logical_and_(pixels <= high).flatten()
            room -= int(inside.count_nonzero())
            if room < 0:
                return None
            found = inside.nonzero().squeeze(1)
            values.append(pixels.flatten().index_select(0, found))
            rows.append(row.index_select(0, found.div_(pixels.shape[1], rounding_mode="floor")))
        if not values:
            return floor.new_empty(0, dtype=self._tiles.dtype), torch.empty(0, dtype=torch.int64, device=floor.device)
        return torch.cat(values), torch.cat(rows)

    def _blocks_above(self, low: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The pixels (K, block) of blocks that reach above ``low``, and the rows (K,) of ``low.flatten()``."""
        most = max(1, self._tiles.size // (_SHARE * BLOCK))
        rows = torch.arange(low.numel(), device=low.device).view(low.shape)
        for images, labels, highest in self._groups:
            of = rows[images, labels].flatten()
            near = highest.flatten(0, 1) > low.flatten().index_select(0, of).unsqueeze(1)
            for place, block in places(near, most):
                row = of.index_select(0, place)
                yield self._tiles.blocks(row, block), row


def _block_maxima(tile: Tensor, to: Tensor) -> None:
    """The largest value of every block, the last of which may be shorter."""
    whole = tile.shape[-1] // BLOCK
    if whole:
        torch.amax(tile[..., : whole * BLOCK].unflatten(-1, (whole, BLOCK)), -1, out=to[..., :whole])
    if whole < to.shape[-1]:
        torch.amax(tile[..., whole * BLOCK :], -1, out=to[..., whole])
