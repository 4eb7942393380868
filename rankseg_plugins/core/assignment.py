"""From one mask per class to the decision: overlapping masks as they are, or one label per pixel.

A pixel that exactly one class selected keeps it. These pixels fix, for each class, a mask of ``t`` pixels that sum
to ``m``; a pixel that several classes selected goes to the one of them that gains most by it, and a pixel that no
class selected to the active class that gains most (Wang & Dai, NeurIPS 2025, the greedy multiclass rule). Equal
gains: the lowest class index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from rankseg_plugins.core import dense
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.rma import Volumes
from rankseg_plugins.core.tiles import FEW, Tiles

#: Mark of the pixels that several classes selected, until they are settled. Those that nobody selected are negative
#: too.
_CONTESTED = -1

#: The first pass works on so many values for each pixel at a time.
_ROWS = 4

#: Gains of a pixel take about this many times the memory of its probabilities.
_SHARE = 24


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
        objective: Dice or IoU, whose gain settles the contested pixels.
        void_index: label of the pixels that no class selected; None gives them to a class.
    """
    batch, classes, pixels = tiles.shape
    if batch * classes * pixels <= FEW:
        everything = tiles.load(slice(0, batch), slice(0, classes), slice(0, pixels))
        return dense.assign_labels(everything, volumes, objective, void_index)
    labels = torch.empty(batch, pixels, dtype=torch.int64, device=tiles.probs.device)
    # Where pruning left no class at all, every class competes for every pixel.
    eligible = volumes.active | ~volumes.active.any(1, keepdim=True)
    undisputed = replace(volumes, n=volumes.n.clone(), s=volumes.s.clone())
    tiles.release_scratch()
    for images in tiles.groups():
        _label_undisputed(tiles, images, eligible, undisputed, labels)
    for images in tiles.groups():
        _settle_contested(tiles, images, eligible, undisputed, objective, void_index, labels)
    return labels


def _label_undisputed(tiles: Tiles, images: slice, eligible: Tensor, volumes: Volumes, labels: Tensor) -> None:
    """Label the pixels that one class selected, and take all others out of the ``n`` and ``s`` of the volumes."""
    classes = eligible[images].any(0).nonzero().flatten()
    threshold = volumes.threshold[images, classes]
    n, s = torch.zeros_like(threshold, dtype=torch.float64), torch.zeros_like(threshold, dtype=torch.float64)
    # A pixel adds up one code per class that selected it: from the sum, a single class reads off its own index.
    one, indices = _power_above(tiles.shape[1]), classes.tolist()
    for pixels in tiles.pixels(_ROWS * len(threshold)):
        index = _add_codes(tiles, images, indices, pixels, volumes.threshold, one).sub_(one)
        labels[images, pixels] = index
        for image, pixel in _pieces(index >= one, tiles.size // len(classes)):
            labels[images, pixels][image, pixel] = _CONTESTED
            p = tiles.gather(image + images.start, classes, pixel + pixels.start)
            overlap = p > _of(threshold, image)
            n.index_add_(0, image, overlap.double())
            s.index_add_(0, image, (overlap * p).double())
    volumes.n[images, classes] -= n
    volumes.s[images, classes] -= s


def _settle_contested(
    tiles: Tiles,
    images: slice,
    eligible: Tensor,
    undisputed: Volumes,
    objective: Objective,
    void_index: int | None,
    labels: Tensor,
) -> None:
    """Give every pixel that no class or several classes selected to the one that gains most."""
    classes = eligible[images].any(0).nonzero().flatten()
    threshold, allowed = undisputed.threshold[images, classes], eligible[images, classes]
    m, t, mu = (table[images, classes] for table in (undisputed.s, undisputed.n, undisputed.mu))
    for pixels in tiles.pixels(_ROWS * len(threshold)):
        for image, pixel in _pieces(labels[images, pixels] < 0, tiles.size // len(classes)):
            p = tiles.gather(image + images.start, classes, pixel + pixels.start)
            selected = p > _of(threshold, image)
            nobody = ~selected.any(1, keepdim=True)
            gain = objective.gain(p.double(), _of(m, image), _of(t, image), _of(mu, image))
            gain.masked_fill_(~(selected | (nobody & _of(allowed, image))), -torch.inf)
            winner = classes[gain.max(1).indices]
            if void_index is not None:
                winner = winner.masked_fill(nobody.squeeze(1), void_index)
            labels[images, pixels][image, pixel] = winner


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


def _add_codes(tiles: Tiles, images: slice, classes: list[int], pixels: slice, threshold: Tensor, one: int) -> Tensor:
    """Sum of ``one + class`` over the classes that selected a pixel, (images, pixels) in the tiles' precision."""
    shape = images.stop - images.start, pixels.stop - pixels.start
    total, selected = torch.zeros(shape, dtype=tiles.dtype, device=threshold.device), tiles.scratch(0, shape)
    for label in classes:
        p = tiles.load(images, slice(label, label + 1), pixels)[:, 0]
        total.add_(torch.gt(p, threshold[images, label, None], out=selected), alpha=one + label)
    return total
