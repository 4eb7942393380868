"""The first look at the active classes: what lies above a cut, and in which blocks the pixels below it may matter."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rankseg_plugins.core.tiled.passes import collect
from rankseg_plugins.core.tiled.tiles import BLOCK, Tiles, in_blocks, places, row_sum
from rankseg_plugins.core.volumes import round_down

#: Pixels that are looked at one by one take this share of a tile at a time.
_SHARE = 4


class Survey:
    """One pass over the active classes, which later finds the pixels between two bounds without another one.

    It remembers one number for each block of pixels. Few blocks hold pixels between the bounds, and only these are read
    again.

    Args:
        tiles: the probabilities.
        active: (B, C) bool, the classes that matter.
        cut: (B, C), where pixels are counted.
        ceiling: (B, C), the largest upper bound that will be asked for; at least the cut.

    Attributes:
        n: (B, C) float64, number of pixels above the cut, where a class is active.
        s: (B, C) float64, their sum.
    """

    def __init__(self, tiles: Tiles, active: Tensor, cut: Tensor, ceiling: Tensor) -> None:
        self._tiles, self._active = tiles, active
        self.n, self.s = torch.zeros_like(cut), torch.zeros_like(cut)
        bound, is_ceiling = round_down(cut, tiles.dtype).unsqueeze(-1), ~active | (cut == ceiling)
        every = torch.arange(cut.numel(), device=cut.device).view(cut.shape)
        # Rows of the (B, C) tables, and the largest probability up to the ceiling in each of their blocks.
        self._highest: list[tuple[Tensor, Tensor]] = []
        for images in tiles.groups():
            if runs := tiles.runs(images, active):
                rows = torch.cat([every[images, classes] for classes in runs], 1)
                highest = bound.new_empty(*rows.shape, -(-tiles.shape[2] // BLOCK))
                parts = highest.split([classes.stop - classes.start for classes in runs], 1)
                for classes, part in zip(runs, parts, strict=True):
                    self._look(images, classes, bound[images, classes], is_ceiling[images, classes], part)
                self._highest.append((rows.flatten(), highest.flatten(0, 1)))

    def _look(self, images: slice, classes: slice, cut: Tensor, is_ceiling: Tensor, highest: Tensor) -> None:
        only_below = is_ceiling.all()
        n, s = self.n[images, classes], self.s[images, classes]
        for pixels in self._tiles.pixels(cut.shape[0] * cut.shape[1]):
            tile = self._tiles.load(images, classes, pixels)
            above = torch.gt(tile, cut, out=self._tiles.scratch(0, tile.shape))
            # A tile has fewer than 2^24 pixels: float32 counts them exactly.
            n.add_(above.sum(-1))
            s.add_(row_sum(above.mul_(tile)))
            # Where the ceiling lies above the cut, what is above both counts too: more blocks than need be.
            below = torch.sub(tile, above, out=above) if only_below else tile
            first = pixels.start // BLOCK
            for blocks in in_blocks(below):
                torch.amax(blocks, -1, out=highest[..., first : first + blocks.shape[2]])
                first += blocks.shape[2]

    def between(self, floor: Tensor, ceiling: Tensor, room: int) -> tuple[Tensor, Tensor] | None:
        """The pixels with ``floor < p <= ceiling`` of the active classes, or None if they are more than ``room``.

        Returns:
            Their values (K,) in the tiles' precision and rows (K,), which index ``floor.flatten()``.
        """
        bounds = round_down(torch.stack([floor, ceiling]), self._tiles.dtype).masked_fill_(~self._active, torch.inf)
        self._tiles.release_scratch()
        return collect(self._blocks_above(bounds[0].flatten()), bounds.flatten(1), room)

    def _blocks_above(self, low: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The pixels (K, block) of blocks that reach above ``low`` (rows,), and the rows (K,) of the blocks."""
        most = max(1, self._tiles.size // (_SHARE * BLOCK))
        for rows, highest in self._highest:
            for place, block in places(highest > low.index_select(0, rows).unsqueeze(1), most):
                row = rows.index_select(0, place)
                yield self._tiles.blocks(row, block), row
