"""From one mask per class to the decision: overlapping masks as they are, or one label per pixel.

A pixel that exactly one class selected keeps it. These pixels fix, for each class, a mask of ``t`` pixels that sum
to ``m``; a pixel that several classes selected goes to the one of them that gains most by it, and a pixel that no
class selected to the active class that gains most (Wang & Dai, NeurIPS 2025, the greedy multiclass rule). Equal
gains: the lowest class index.

A pixel without any probability, such as one outside of a crop, says nothing about the classes: it is labelled 0, as
argmax labels it, instead of going to the class that loses least by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core import dense
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.tiled.tiles import FEW, Tiles, places
from rankseg_plugins.core.volumes import Volumes

#: The first pass works on so many values for each pixel at a time.
_ROWS = 4

#: What is worked out about disputed pixels takes about this many times the memory of their probabilities. Fewer than
#: 2^15 values at a time, which PyTorch adds up in one thread: the same for every number of threads.
_SHARE = 17


@dataclass
class _Disputed:
    """Pixels that no class or several classes selected.

    Args:
        image: (K,), counted from the first one of the group.
        pixel: (K,), positions.
        p: (K, classes), their probabilities.
        selected: (K, classes) bool, by which classes.
    """

    image: Tensor
    pixel: Tensor
    p: Tensor
    selected: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(field.nbytes for field in (self.image, self.pixel, self.p, self.selected))


def assign_masks(tiles: Tiles, volumes: Volumes) -> Tensor:
    """The masks themselves, (B, C, d) bool."""
    masks = _decision(tiles.shape, torch.bool, tiles).zero_()
    threshold = volumes.threshold.unsqueeze(-1)
    for images, classes, pixels in tiles.passes(volumes.active):
        tile = tiles.load(images, classes, pixels)
        torch.gt(tile, threshold[images, classes], out=masks[images, classes, pixels])
    return masks


def assign_labels(tiles: Tiles, volumes: Volumes, objective: Objective, void_index: int | None) -> Tensor:
    """One label per pixel, (B, d) int64.

    Args:
        tiles: the probabilities.
        volumes: the mask of every image and class.
        objective: Dice or IoU, whose gain settles the disputed pixels.
        void_index: label of the pixels that no class selected; None gives them to a class.
    """
    batch, classes, pixels = tiles.shape
    labels = _decision((batch, pixels), torch.int64, tiles)
    if batch * classes * pixels <= FEW:
        everything = tiles.load(slice(0, batch), slice(0, classes), slice(0, pixels))
        return labels.copy_(dense.assign_labels(everything, volumes, objective, void_index))
    tiles.release_scratch()
    for images in tiles.groups():
        _Group(tiles, images, volumes, void_index, labels[images]).label(objective)
    return labels


def _decision(shape: tuple[int, ...], dtype: torch.dtype, tiles: Tiles) -> Tensor:
    """Memory for the decision; not an inference tensor even in inference mode, as a loss could not use one."""
    with torch.inference_mode(False):
        return torch.empty(shape, dtype=dtype, device=tiles.probs.device)


class _Group:
    """Some images, and the classes that may label their pixels.

    The tables (images, classes) begin as those of the volumes; ``n`` and ``s`` lose the pixels that a class shares
    with others.
    """

    def __init__(self, tiles: Tiles, images: slice, volumes: Volumes, void_index: int | None, labels: Tensor) -> None:
        self.tiles, self.images, self.void_index, self.labels = tiles, images, void_index, labels
        #: What a class adds to its index; more than any index.
        self.one = _power_above(tiles.shape[1])
        active = volumes.active[images]
        # Where pruning left no class at all, every class competes for every pixel.
        eligible = active | ~active.any(1, keepdim=True)
        competes = eligible.any(0)
        self.classes, self.others = (which.nonzero().squeeze(1) for which in (competes, ~competes))
        self.allowed = eligible.index_select(1, self.classes)
        fields = volumes.threshold, volumes.n, volumes.s, volumes.mu
        self.threshold, self.n, self.s, self.mu = (field[images].index_select(1, self.classes) for field in fields)

    def label(self, objective: Objective) -> None:
        """Label the pixels that one class selected, then all others."""
        # What was found is kept while it is little, half a byte for each value of a tile.
        found: list[_Disputed] = []
        room = self.tiles.size // 2
        for pixels in self.tiles.pixels(_ROWS * len(self.threshold)):
            for disputed in self._look_at(self._choose(pixels), pixels):
                _subtract(self.n, disputed.image, disputed.selected.double())
                _subtract(self.s, disputed.image, (disputed.selected * disputed.p).double())
                room -= disputed.nbytes
                found = [*found, disputed] if room >= 0 else []
        for disputed in found if room >= 0 else self._look_again():
            self.labels.index_put_((disputed.image, disputed.pixel), self._settle(disputed, objective))

    def _choose(self, pixels: slice) -> Tensor:
        """Label the pixels that one class selected; whether they are disputed, (images, pixels) bool."""
        # A pixel adds up one code per class that selected it: from the sum, a single class reads off its own index.
        shape = len(self.threshold), 1, pixels.stop - pixels.start
        total = torch.zeros(shape, dtype=self.tiles.dtype, device=self.threshold.device)
        selected = self.tiles.scratch(0, shape)
        for label, bound in zip(self.classes.tolist(), self.threshold.unsqueeze(-1).split(1, 1), strict=True):
            tile = self.tiles.load(self.images, slice(label, label + 1), pixels)
            total.add_(torch.gt(tile, bound, out=selected), alpha=self.one + label)
        index = total.sub_(self.one).squeeze(1)
        self.labels[:, pixels] = index
        return self._is_disputed(index)

    def _is_disputed(self, index: Tensor) -> Tensor:
        """Whether it is no index: negative where no class selected the pixel, ``one`` or more where several did."""
        return torch.clamp(index, 0, self.one - 1, out=self.tiles.scratch(0, index.shape)) != index

    def _look_again(self) -> Iterator[_Disputed]:
        for pixels in self.tiles.pixels(_ROWS * len(self.threshold)):
            yield from self._look_at(self._is_disputed(self.labels[:, pixels].to(self.tiles.dtype)), pixels)

    def _look_at(self, where: Tensor, pixels: slice) -> Iterator[_Disputed]:
        most = self.tiles.size // (_SHARE * len(self.classes))
        if self.tiles.valid is not None:
            where = where & self.tiles.valid[self.images, pixels]
        for image, pixel in places(where, max(1, most)):
            # Not views, which would keep the places of all other pieces in memory.
            image, pixel = image.clone(), pixel + pixels.start
            p = self.tiles.gather(image + self.images.start, self.classes, pixel)
            if self.void_index is None and len(bare := self._without_any(image, pixel, p)):
                self.labels[image[bare], pixel[bare]] = 0
                rest = torch.ones_like(image, dtype=torch.bool).index_fill_(0, bare, False)
                image, pixel, p = image[rest], pixel[rest], p[rest]
            yield _Disputed(image, pixel, p, p > _of(self.threshold, image))

    def _without_any(self, image: Tensor, pixel: Tensor, p: Tensor) -> Tensor:
        """Which of some pixels have no probability in any class, from their probabilities in ``self.classes``."""
        empty = (p.amax(1) == 0).nonzero().squeeze(1)
        if not len(empty) or not len(self.others):
            return empty
        # Few pieces come so far, unless most of their pixels are empty: all that lies between these is read.
        image, pixel = image[empty], pixel[empty]
        (first, last), (start, end) = (index.aminmax() for index in (image, pixel))
        offset, pixels = self.images.start, slice(int(start), int(end) + 1)
        images = slice(offset + int(first), offset + int(last) + 1)
        largest = torch.zeros_like(self.labels[first : last + 1, pixels], dtype=self.tiles.dtype).unsqueeze(1)
        for label in self.others.tolist():
            torch.maximum(largest, self.tiles.load(images, slice(label, label + 1), pixels), out=largest)
        return empty[largest[image - first, 0, pixel - start] == 0]

    def _settle(self, disputed: _Disputed, objective: Objective) -> Tensor:
        """The class that gains most by a pixel, of those that selected it or, if none did, of all."""
        image, selected = disputed.image, disputed.selected
        nobody = ~selected.any(1, keepdim=True)
        gain = objective.gain(disputed.p.double(), _of(self.s, image), _of(self.n, image), _of(self.mu, image))
        gain.masked_fill_((selected | nobody).logical_not_(), -torch.inf)
        if len(self.allowed) > 1:
            gain.masked_fill_(~self.allowed[image], -torch.inf)
        winner = self.classes.index_select(0, gain.max(1).indices)
        return winner if self.void_index is None else winner.masked_fill(nobody.squeeze(1), self.void_index)


def _of(table: Tensor, image: Tensor) -> Tensor:
    """Rows of a table per image (images, classes) for pixels of these images; a single row is left to broadcasting."""
    return table if len(table) == 1 else table[image]


def _subtract(table: Tensor, image: Tensor, values: Tensor) -> None:
    """Take the rows (K, classes) of pixels of these images (K,) out of the table (images, classes)."""
    if len(table) == 1:
        table.sub_(values.sum(0))
    else:
        table.index_add_(0, image, values, alpha=-1)


def _power_above(number: int) -> int:
    """Smallest power of two above ``number``."""
    return 1 << number.bit_length()
