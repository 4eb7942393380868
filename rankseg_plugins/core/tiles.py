"""Cache-sized pieces of a probability tensor.

Every pass over the data reads it tile by tile, so that the several cheap operations on a tile find it in the
processor's cache, half-precision input needs no float32 copy of the whole, and extra memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

#: Values in a tile: 1 MiB of float32, which two operands of fit into a typical cache.
TILE = 1 << 18

#: Values that are added up in the input's own precision before float64 takes over. The sums are then the same for
#: every number of threads, and as exact as the float32 input deserves.
_RUN = 1024


class Tiles:
    """A (B, C, d) view of probabilities, served in tiles of at most about :data:`TILE` values.

    Args:
        probs: (B, C, *spatial), floating point, any memory layout.
        valid_mask: optional (B, *spatial) or (*spatial), bool; probabilities of pixels marked False read as 0.
    """

    def __init__(self, probs: Tensor, valid_mask: Tensor | None = None) -> None:
        self.probs = probs.flatten(2)
        self.shape = self.probs.shape
        self.valid = None if valid_mask is None else valid_mask.expand(probs.shape[0], *probs.shape[2:]).flatten(1)
        self.dtype = torch.float64 if probs.dtype == torch.float64 else torch.float32
        self.clamp = False

    def groups(self) -> Iterator[slice]:
        """Slices of images: several small images at a time, or one large image."""
        batch, classes, pixels = self.shape
        step = max(1, TILE // (classes * pixels))
        for start in range(0, batch, step):
            yield slice(start, min(start + step, batch))

    def pixels(self, rows: int) -> Iterator[slice]:
        """Slices of pixels, such that ``rows`` of them fill a tile."""
        total = self.shape[2]
        step = max(_RUN, TILE // max(rows, 1) // _RUN * _RUN)
        for start in range(0, total, step):
            yield slice(start, min(start + step, total))

    def load(self, images: slice, classes: Tensor | None, pixels: slice) -> Tensor:
        """One tile, (images, classes, pixels) in float32 or float64, invalid pixels 0, clamped if need be.

        Args:
            images: slice of the batch.
            classes: indices of the classes, or None for all.
            pixels: slice of the flattened pixels.
        """
        tile = self.probs[images, :, pixels]
        if classes is not None:
            tile = tile.index_select(1, classes)
        if tile.stride(-1) != 1:
            tile = tile.contiguous()
        tile = tile.to(self.dtype)
        if self.valid is not None:
            tile = tile.masked_fill(~self.valid[images, None, pixels], 0.0)
        return tile.clamp(0.0, 1.0) if self.clamp else tile


def row_sum(tile: Tensor) -> Tensor:
    """Sum over the last dimension, in float64: short runs in the tile's own precision, then their sums."""
    length = tile.shape[-1] // _RUN * _RUN
    total = tile[..., length:].sum(-1, dtype=torch.float64)
    if length:
        total += tile[..., :length].unflatten(-1, (-1, _RUN)).sum(-1).sum(-1, dtype=torch.float64)
    return total
