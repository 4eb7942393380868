"""From one mask per class to the decision: overlapping masks as they are, or one label per pixel.

A pixel that exactly one class selected keeps it. These pixels fix, for each class, a mask of ``t`` pixels that sum
to ``m``; a pixel that several classes selected goes to the one of them that gains most by it, and a pixel that no
class selected to the active class that gains most (Wang & Dai, NeurIPS 2025, the greedy multiclass rule). Equal
gains: the lowest class index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.rma import Volumes
from rankseg_plugins.core.tiles import Tiles

_CONTESTED = -1


def assign_masks(tiles: Tiles, volumes: Volumes) -> Tensor:
    """The masks themselves, (B, C, d) bool."""
    masks = torch.zeros(tiles.shape, dtype=torch.bool, device=tiles.probs.device)
    for images in tiles.groups():
        classes = volumes.active[images].any(0).nonzero().flatten()
        threshold = volumes.threshold[images, classes].unsqueeze(-1)
        if len(classes):
            for pixels in tiles.pixels(threshold.numel()):
                masks[images, classes, pixels] = tiles.load(images, classes, pixels) > threshold
    return masks


def assign_labels(tiles: Tiles, volumes: Volumes, objective: Objective, void_index: int | None) -> Tensor:
    """One label per pixel, (B, d) int64.

    Args:
        tiles: the probabilities.
        volumes: the mask of every image and class.
        objective: Dice or IoU, whose gain settles the contested pixels.
        void_index: label of the pixels that no class selected; None gives them to a class.
    """
    batch, _, pixels = tiles.shape
    labels = torch.empty(batch, pixels, dtype=torch.int64, device=tiles.probs.device)
    # Where pruning left no class at all, every class competes for every pixel.
    eligible = volumes.active | ~volumes.active.any(1, keepdim=True)
    for images in tiles.groups():
        _assign_group(tiles, images, volumes, eligible, objective, void_index, labels)
    return labels


def _assign_group(
    tiles: Tiles,
    images: slice,
    volumes: Volumes,
    eligible: Tensor,
    objective: Objective,
    void_index: int | None,
    labels: Tensor,
) -> None:
    classes = eligible[images].any(0).nonzero().flatten()
    threshold = volumes.threshold[images, classes]
    m, t = volumes.s[images, classes].clone(), volumes.n[images, classes].clone()
    mu, eligible = volumes.mu[images, classes], eligible[images, classes]
    # Row 0 of the product counts the classes that selected a pixel, row 1 adds up their indices.
    count_and_index = torch.stack([torch.ones_like(classes), classes]).to(threshold.dtype)

    for pixels in tiles.pixels(threshold.numel()):
        tile = tiles.load(images, classes, pixels)
        selected = torch.gt(tile, threshold.unsqueeze(-1), out=torch.empty_like(tile))
        count, index = (count_and_index @ selected).unbind(1)
        labels[images, pixels] = index.masked_fill_(count != 1, _CONTESTED).long()
        image, pixel = (count > 1).nonzero(as_tuple=True)
        overlap = selected[image, :, pixel]
        m.index_add_(0, image, -(overlap * tile[image, :, pixel]).double())
        t.index_add_(0, image, -overlap.double())

    for pixels in tiles.pixels(threshold.numel()):
        image, pixel = (labels[images, pixels] == _CONTESTED).nonzero(as_tuple=True)
        if len(image) == 0:
            continue
        p = tiles.load(images, classes, pixels)[image, :, pixel]
        selected = p > threshold[image]
        nobody = ~selected.any(1, keepdim=True)
        gain = objective.gain(p.double(), m[image], t[image], mu[image])
        allowed = selected | (nobody & eligible[image])
        winner = classes[gain.masked_fill_(~allowed, -torch.inf).argmax(1)]
        if void_index is not None:
            winner = winner.masked_fill(nobody.squeeze(1), void_index)
        labels[images, pixels][image, pixel] = winner
