"""Cache-sized pieces of a probability tensor.

Every pass over the data reads it tile by tile, so that the several cheap operations on a tile find it in the
processor's cache, half-precision input needs no float32 copy of the whole, and extra memory stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

#: Values in a tile, at most and at least: 2 MiB of float32, which stays in a processor's cache, for large inputs, and
#: in proportion for small ones, so that extra memory stays near half of the input or below.
TILE, _SMALLEST_TILE = 1 << 19, 1 << 15

#: Values that are read in less time than it takes to begin another slice.
_CHEAP = 1 << 15

#: So few values cost less to work on all together than to pick those out that matter.
FEW = 1 << 14

#: Values that are added up in the input's own precision before float64 takes over. The sums are then the same for
#: every number of threads, and as exact as the float32 input deserves.
_RUN = 64

#: Pixels that are summarised together, and looked at together where few are wanted.
BLOCK = 32

#: Slices of pixels begin at multiples of this, which is a multiple of both: no run and no block is cut in two.
_STEP = 1024


class Tiles:
    """A (B, C, d) view of probabilities, served in tiles of at most about ``size`` values.

    Args:
        probs: (B, C, *spatial), floating point, any memory layout.
        valid_mask: optional (B, *spatial) or (*spatial), bool; probabilities of pixels marked False read as 0.
    """

    def __init__(self, probs: Tensor, valid_mask: Tensor | None = None) -> None:
        #: (B, C, d); or (B, C, *spatial), such as a crop, where no view has that shape.
        self.probs = _flat_view(probs)
        self.shape = torch.Size([*probs.shape[:2], math.prod(probs.shape[2:])])
        self.valid = None if valid_mask is None else valid_mask.expand(probs.shape[0], *probs.shape[2:]).flatten(1)
        self.dtype = torch.float64 if probs.dtype == torch.float64 else torch.float32
        self.clamp = False
        self._are_views = self.probs.ndim == 3 and self.probs.stride(-1) == 1 and probs.dtype == self.dtype
        share = probs.numel() * probs.element_size() // (22 if self.are_copies else 11)
        self.size = max(_SMALLEST_TILE, min(TILE, share))
        self._scratch: dict[int, Tensor] = {}

    @property
    def are_copies(self) -> bool:
        """Whether a tile is a copy in scratch memory instead of a view."""
        return not self._are_views or self.valid is not None or self.clamp

    @property
    def reach(self) -> int:
        """As ``size``, for passes that need no scratch memory of their own: a view takes none."""
        return self.size if self.are_copies else TILE

    def groups(self) -> Iterator[slice]:
        """Slices of images: several small images at a time, or one large image."""
        batch, classes, pixels = self.shape
        step = max(1, TILE // (classes * pixels))
        for start in range(0, batch, step):
            yield slice(start, min(start + step, batch))

    def rows(self) -> Iterator[tuple[slice, slice]]:
        """Slices of images and classes that together fill about a tile, or hold a single class."""
        batch, classes, pixels = self.shape
        number = max(1, self.size // pixels)
        images, step = max(1, number // classes), min(number, classes)
        for image in range(0, batch, images):
            for start in range(0, classes, step):
                yield slice(image, min(image + images, batch)), slice(start, min(start + step, classes))

    def part(self, images: slice, classes: slice) -> Tiles:
        """Some classes of some images."""
        tiles = Tiles(self.probs[images, classes])
        tiles.valid = None if self.valid is None else self.valid[images]
        tiles.clamp = self.clamp
        return tiles

    def pixels(self, rows: int, size: int | None = None) -> Iterator[slice]:
        """Slices of pixels, such that ``rows`` of them fill a tile of ``size`` values, by default the usual one."""
        total = self.shape[2]
        tiles = math.ceil(total * max(rows, 1) / (size or self.size))
        step = math.ceil(math.ceil(total / tiles) / _STEP) * _STEP
        for start in range(0, total, step):
            yield slice(start, min(start + step, total))

    def runs(self, images: slice, wanted: Tensor) -> list[slice]:
        """The classes that some of the images want, (B, C) bool, as slices of consecutive classes: views, not copies.

        A slice may span unwanted classes: a few, where reading them costs less than one more slice, and all of them
        where the classes of a pixel lie side by side in memory (channels last).
        """
        gap = _CHEAP // ((images.stop - images.start) * self.shape[2])
        if self.probs.stride(-1) != 1:
            gap = self.shape[1]
        runs: list[slice] = []
        for index, is_wanted in enumerate(wanted[images].any(0).tolist()):
            if not is_wanted:
                continue
            if runs and index - runs[-1].stop <= gap:
                runs[-1] = slice(runs[-1].start, index + 1)
            else:
                runs.append(slice(index, index + 1))
        return runs

    def passes(self, wanted: Tensor, share: int = 1) -> Iterator[tuple[slice, slice, slice]]:
        """Images, classes and pixels of every tile, with the classes that some image of its group wants: (B, C).

        The tiles are smaller by the factor ``share``.
        """
        for images in self.groups():
            for classes in self.runs(images, wanted):
                for pixels in self.pixels((images.stop - images.start) * (classes.stop - classes.start) * share):
                    yield images, classes, pixels

    def load(self, images: slice, classes: slice, pixels: slice) -> Tensor:
        """One tile, (images, classes, pixels) in float32 or float64, invalid pixels 0, clamped if need be.

        It is a view of the input, never to be written to, or a piece of scratch memory that the next call reuses.
        """
        if not self.are_copies:
            return self.probs[images, classes, pixels]
        source = self.probs[images, classes]
        tile = self.scratch(1, (*source.shape[:2], pixels.stop - pixels.start))
        _copy_pixels(source, pixels.start, pixels.stop, tile)
        if self.valid is not None:
            tile.masked_fill_(~self.valid[images, None, pixels], 0.0)
        return tile.clamp_(0.0, 1.0) if self.clamp else tile

    def scratch(self, slot: int, shape: Sequence[int]) -> Tensor:
        """Uninitialised memory of this shape, one of two pieces (slot 0 or 1) that are the same at every call.

        Fresh memory for every tile would cost more than the work on it, as the system has to map each page.
        """
        size = math.prod(shape)
        if slot not in self._scratch or len(self._scratch[slot]) < size:
            self._scratch.pop(slot, None)  # before the larger piece is made
            self._scratch[slot] = torch.empty(size, dtype=self.dtype, device=self.probs.device)
        return self._scratch[slot][:size].view(shape)

    def release_scratch(self) -> None:
        """Give the scratch memory back, before something else needs memory."""
        self._scratch = {}

    def masked(self, masks: Tensor) -> Tiles:
        """The same pixels with all probabilities outside ``masks`` (B, C, d), bool, set to 0; a copy."""
        tiles = Tiles(self.probs.flatten(2).masked_fill(~masks, 0.0))
        tiles.clamp = self.clamp
        return tiles

    def gather(self, image: Tensor, classes: Tensor, pixel: Tensor) -> Tensor:
        """Probabilities of single pixels, (K, len(classes)), for their images (K,) and positions (K,)."""
        image, pixel = image.unsqueeze(1), pixel.unsqueeze(1)
        if self.probs.ndim > 3 or self.valid is not None or self.clamp:
            values = self._at(image, classes, pixel)
            return values.clamp_(0.0, 1.0) if self.clamp else values
        # The same, in a third of the time.
        strides = self.probs.stride()
        place = image * strides[0] + pixel * strides[2] + classes * strides[1]
        return self._memory(1).index_select(0, place.flatten()).view(place.shape).to(self.dtype)

    def blocks(self, row: Tensor, block: Tensor) -> Tensor:
        """Probabilities of blocks of pixels, (K, block), from their rows (K,) of B times C and positions (K,).

        A last block that is shorter begins with zeros.
        """
        total, first = self.shape[2], block * BLOCK
        width = min(BLOCK, total)
        if total % width:
            first = first.clamp_max(total - width)
        values = self._stretches(row, first, width)
        if total % width:
            # It begins early: what it shares with the one before it does not count twice.
            values[block == total // width, : width - total % width] = 0.0
        return values.clamp_(0.0, 1.0) if self.clamp else values

    def _stretches(self, row: Tensor, first: Tensor, width: int) -> Tensor:
        """Probabilities of neighbouring pixels, (K, width), from rows (K,) and first positions (K,); a copy."""
        image = row // self.shape[1]
        label = row - image * self.shape[1]
        if self.probs.ndim > 3:
            pixel = first.unsqueeze(1) + torch.arange(width, device=first.device)
            return self._at(image.unsqueeze(1), label.unsqueeze(1), pixel)
        strides = self.probs.stride()
        if strides[2] == 1:
            # Overlapping views: picking rows of a matrix is several times faster than picking elements.
            start = image * strides[0] + label * strides[1] + first
            values = self._memory(width).index_select(0, start).to(self.dtype)
        else:
            values = self.probs.unfold(2, width, 1)[image, label, first].to(self.dtype)
        if self.valid is not None:
            values.masked_fill_(~self.valid.unfold(1, width, 1)[image, first], 0.0)
        return values

    def _memory(self, width: int) -> Tensor:
        """Every stretch of ``width`` values as they lie in memory, (places, width)."""
        length = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.probs.stride(), strict=True))
        return self.probs.as_strided((length - width + 1, width), (1, 1))

    def _at(self, image: Tensor, label: Tensor, pixel: Tensor) -> Tensor:
        """Single probabilities, from their images, classes and positions, which are broadcast; a copy."""
        place: list[Tensor] = []
        rest = pixel
        for size in reversed(self.probs.shape[3:]):
            place.insert(0, rest % size)
            rest = rest // size
        values = self.probs[(image, label, rest, *place)].to(self.dtype)
        if self.valid is not None:
            values.masked_fill_(~self.valid[image, pixel], 0.0)
        return values


def places(where: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Row and column (K,) of the elements of a bool matrix that are True, in pieces of at most ``most``."""
    # All of them at once would take up to 16 times the memory of the matrix.
    columns, pieces = where.shape[1], math.ceil(int(where.count_nonzero()) / most)
    step = max(1, columns // max(1, pieces))
    for start in range(0, columns if pieces else 0, step):
        row, column = where[:, start : start + step].nonzero(as_tuple=True)
        if len(row):
            yield from zip(row.split(most), column.add_(start).split(most), strict=True)


def _flat_view(probs: Tensor) -> Tensor:
    try:
        return probs.view(*probs.shape[:2], -1) if probs.numel() else probs.flatten(2)
    except RuntimeError:
        return probs


def _copy_pixels(source: Tensor, start: int, stop: int, to: Tensor) -> None:
    """Copy pixels start to stop, in the order of ``source.flatten(2)``, into ``to`` (images, classes, stop - start)."""
    if source.ndim == 3:
        to.copy_(source[..., start:stop])
        return
    # Part of one line, whole lines, and part of another; a line is all that lies at one place of the first dimension.
    length = math.prod(source.shape[3:])
    first, last = -(-start // length), stop // length
    if first > last:
        _copy_pixels(source[:, :, last], start - last * length, stop - last * length, to)
        return
    head, tail = first * length - start, stop - last * length
    if head:
        _copy_pixels(source[:, :, first - 1], length - head, length, to[..., :head])
    if first < last:
        lines = to[..., head : stop - start - tail]
        lines.unflatten(-1, (last - first, *source.shape[3:])).copy_(source[:, :, first:last])
    if tail:
        _copy_pixels(source[:, :, last], 0, tail, to[..., stop - start - tail :])


def row_sum(tile: Tensor) -> Tensor:
    """Sum over the last dimension, in float64: short runs in the tile's own precision, then their sums."""
    length = tile.shape[-1] // _RUN * _RUN
    runs = tile[..., :length].unflatten(-1, (-1, _RUN)).sum(-1).sum(-1, dtype=torch.float64)
    return runs if length == tile.shape[-1] else runs + tile[..., length:].sum(-1, dtype=torch.float64)


def in_blocks(tile: Tensor) -> Iterator[Tensor]:
    """The pixels of a tile in blocks, (images, classes, blocks, :data:`BLOCK`), and the rest as one shorter block."""
    whole = tile.shape[-1] // BLOCK * BLOCK
    if whole:
        yield tile[..., :whole].unflatten(-1, (-1, BLOCK))
    if whole < tile.shape[-1]:
        yield tile[..., whole:].unsqueeze(-2)
