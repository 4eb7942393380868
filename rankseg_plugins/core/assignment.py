"""From one mask per class to the decision: overlapping masks as they are, or one label per pixel.

A pixel that exactly one class selected keeps it. These pixels fix, for each class, a mask of ``t`` pixels that sum
to ``m``; a pixel that several classes selected goes to the one of them that gains most by it, and a pixel that no
class selected to the active class that gains most (Wang & Dai, NeurIPS 2025, the greedy multiclass rule). Equal
gains: the lowest class index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core import dense
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.rma import Volumes
from rankseg_plugins.core.tiles import FEW, Tiles

#: Mark of the pixels that no class or several classes selected, until they are settled.
_DISPUTED = -1

#: The first pass works on so many values for each pixel at a time.
_ROWS = 4

#: What is worked out about a disputed pixel takes about this many times the memory of its probabilities.
_SHARE = 12


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


def assign_masks(tiles: Tiles, volumes: Volumes) -> Tensor:
    """The masks themselves, (B, C, d) bool."""
    masks = torch.zeros(tiles.shape, dtype=torch.bool, device=tiles.probs.device)
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
    if batch * classes * pixels <= FEW:
        everything = tiles.load(slice(0, batch), slice(0, classes), slice(0, pixels))
        return dense.assign_labels(everything, volumes, objective, void_index)
    labels = torch.empty(batch, pixels, dtype=torch.int64, device=tiles.probs.device)
    tiles.release_scratch()
    for images in tiles.groups():
        _Group(tiles, images, volumes).label(objective, void_index, labels)
    return labels


class _Group:
    """Some images, and the classes that may label their pixels.

    The tables (images, classes) begin as those of the volumes; ``n`` and ``s`` lose the pixels that a class shares
    with others.
    """

    def __init__(self, tiles: Tiles, images: slice, volumes: Volumes) -> None:
        self.tiles, self.images = tiles, images
        active = volumes.active[images]
        # Where pruning left no class at all, every class competes for every pixel.
        eligible = active | ~active.any(1, keepdim=True)
        self.classes = eligible.any(0).nonzero().squeeze(1)
        self.allowed = eligible.index_select(1, self.classes)
        fields = volumes.threshold, volumes.n, volumes.s, volumes.mu
        self.threshold, self.n, self.s, self.mu = (field[images].index_select(1, self.classes) for field in fields)

    def label(self, objective: Objective, void_index: int | None, labels: Tensor) -> None:
        """Label the pixels that one class selected, then all others."""
        found, room = [], self.tiles.size // _SHARE
        for pixels in self.tiles.pixels(_ROWS * len(self.threshold)):
            index, is_disputed = self._first_choice(pixels)
            labels[self.images, pixels] = index.masked_fill_(is_disputed, _DISPUTED)
            for disputed in self._disputed(is_disputed, pixels):
                self.n.index_add_(0, disputed.image, disputed.selected.double(), alpha=-1)
                self.s.index_add_(0, disputed.image, (disputed.selected * disputed.p).double(), alpha=-1)
                room -= disputed.p.numel()
                if room >= 0:
                    found.append(disputed)
        for disputed in found if room >= 0 else self._find_again(labels):
            labels[self.images].index_put_((disputed.image, disputed.pixel), self._settle(disputed, objective, void_index))

    def _first_choice(self, pixels: slice) -> tuple[Tensor, Tensor]:
        """The class that selected a pixel, if it was one, and whether it was none or several: (images, pixels)."""
        # A pixel adds up one code per class that selected it: from the sum, a single class reads off its own index.
        one = _power_above(self.tiles.shape[1])
        shape = len(self.threshold), 1, pixels.stop - pixels.start
        total = torch.zeros(shape, dtype=self.tiles.dtype, device=self.threshold.device)
        selected = self.tiles.scratch(0, shape)
        for label, bound in zip(self.classes.tolist(), self.threshold.unsqueeze(-1).split(1, 1), strict=True):
            tile = self.tiles.load(self.images, slice(label, label + 1), pixels)
            total.add_(torch.gt(tile, bound, out=selected), alpha=one + label)
        index = total.sub_(one).squeeze(1)
        half = (one - 1) / 2
        return index, torch.sub(index, half, out=selected.squeeze(1)).abs_() > half

    def _find_again(self, labels: Tensor) -> Iterator[_Disputed]:
        for pixels in self.tiles.pixels(_ROWS * len(self.threshold)):
            yield from self._disputed(labels[self.images, pixels] == _DISPUTED, pixels)

    def _disputed(self, where: Tensor, pixels: slice) -> Iterator[_Disputed]:
        for image, pixel in _pieces(where, self.tiles.size // len(self.classes)):
            pixel = pixel + pixels.start
            p = self.tiles.gather(image + self.images.start, self.classes, pixel)
            yield _Disputed(image, pixel, p, p > _of(self.threshold, image))

    def _settle(self, disputed: _Disputed, objective: Objective, void_index: int | None) -> Tensor:
        """The class that gains most by a pixel, of those that selected it or, if none did, of all."""
        image, selected = disputed.image, disputed.selected
        nobody = ~selected.any(1, keepdim=True)
        gain = objective.gain(disputed.p.double(), _of(self.s, image), _of(self.n, image), _of(self.mu, image))
        gain.masked_fill_(~(selected | (nobody & _of(self.allowed, image))), -torch.inf)
        winner = self.classes.index_select(0, gain.max(1).indices)
        return winner if void_index is None else winner.masked_fill(nobody.squeeze(1), void_index)


def _pieces(where: Tensor, pixels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and positions of the pixels that are True, in pieces that take a fraction of a tile's memory."""
    size, number = max(1, pixels // _SHARE), where.shape[1]
    # Their positions alone would take much memory where nearly all are True.
    step = max(1, math.ceil(number / max(1, math.ceil(int(where.count_nonzero()) / size))))
    for start in range(0, number, step):
        image, pixel = where[:, start : start + step].nonzero(as_tuple=True)
        if len(image):
            yield from zip(image.split(size), (pixel + start).split(size), strict=True)


def _of(table: Tensor, image: Tensor) -> Tensor:
    """Rows of a table per image (images, classes) for pixels of these images; a single row is left to broadcasting."""
    return table if len(table) == 1 else table[image]


def _power_above(number: int) -> int:
    """Smallest power of two above ``number``."""
    return 1 << number.bit_length()
