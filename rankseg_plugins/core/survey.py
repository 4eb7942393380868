"""The first look at the active classes: what lies above a cut, and where the pixels are that may matter below it."""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg_plugins.core.passes import round_down
from rankseg_plugins.core.tiles import BLOCK, FEW, Tiles, row_sum

#: Pixels that are looked at together, as a share of a tile.
_SHARE = 16


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
        # Of every block, the largest probability up to the cut; up to the ceiling where that is another one.
        self._highest: list[tuple[slice, slice, Tensor | None]] = []
        bound, same = round_down(cut, tiles.dtype).unsqueeze(-1), bool((cut == ceiling)[active].all())
        for images in tiles.groups():
            for classes in tiles.runs(images, active):
                self._look(images, classes, bound[images, classes], same)

    def _look(self, images: slice, classes: slice, bound: Tensor, same: bool) -> None:
        tiles, rows, total = self._tiles, bound.shape[0] * bound.shape[1], self._tiles.shape[2]
        highest = None
        if rows * total > FEW:
            highest = bound.new_empty(*bound.shape[:2], -(-total // BLOCK))
        n, s = self.n[images, classes], self.s[images, classes]
        for pixels in tiles.pixels(rows):
            tile = tiles.load(images, classes, pixels)
            above = torch.gt(tile, bound, out=tiles.scratch(0, tile.shape))
            # A tile has fewer than 2^24 pixels: float32 counts them exactly.
            n.add_(above.sum(-1))
            s.add_(row_sum(above.mul_(tile)))
            if highest is not None:
                at = highest[..., pixels.start // BLOCK : -(-pixels.stop // BLOCK)]
                _block_maxima(torch.sub(tile, above, out=above) if same else tile, at)
        self._highest.append((images, classes, highest))

    def between(self, floor: Tensor, ceiling: Tensor, room: int) -> tuple[Tensor, Tensor] | None:
        """The pixels with ``floor < p <= ceiling`` of the active classes, or None if they are more than ``room``.

        Returns:
            Their values (K,) in the tiles' precision and rows (K,), which index ``floor.flatten()``.
        """
        bounds = round_down(torch.stack([floor, ceiling]), self._tiles.dtype).masked_fill_(~self._active, torch.inf)
        values, rows = [], []
        for images, classes, highest in self._highest:
            for candidates, row in self._candidates(images, classes, highest, bounds[0]):
                low, high = bounds.view(2, -1, 1).index_select(1, row)
                inside = (candidates > low).logical_and_(candidates <= high).flatten()
                room -= int(inside.count_nonzero())
                if room < 0:
                    return None
                found = inside.nonzero().squeeze(1)
                values.append(candidates.flatten().index_select(0, found))
                rows.append(row.index_select(0, found.div_(candidates.shape[1], rounding_mode="floor")))
        return torch.cat(values), torch.cat(rows)

    def _candidates(self, images: slice, classes: slice, highest: Tensor | None, low: Tensor):
        tiles, number = self._tiles, self._tiles.shape[1]
        if highest is None:
            tile = tiles.load(images, classes, slice(0, tiles.shape[2]))
            row = torch.arange(images.start, images.stop, device=low.device).unsqueeze(1) * number
            row = row + torch.arange(classes.start, classes.stop, device=low.device)
            yield tile.flatten(0, 1), row.flatten()
            return
        near = (highest > low[images, classes].unsqueeze(-1)).nonzero()
        for piece in near.split(max(1, tiles.size // (_SHARE * BLOCK))):
            image, label, block = piece.unbind(1)
            image, label = image + images.start, label + classes.start
            yield tiles.blocks(image, label, block), image * number + label


def _block_maxima(tile: Tensor, to: Tensor) -> None:
    whole = tile.shape[-1] // BLOCK
    if whole:
        torch.amax(tile[..., : whole * BLOCK].unflatten(-1, (whole, BLOCK)), -1, out=to[..., :whole])
    if whole < to.shape[-1]:
        torch.amax(tile[..., whole * BLOCK :], -1, out=to[..., whole])
