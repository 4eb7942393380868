"""Intervals of the ranking: described by their ends, and searched in groups or pieces that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rankseg_plugins.core.tiled.passes import count_above, pixels_between
from rankseg_plugins.core.tiled.tiles import Tiles
from rankseg_plugins.core.volumes import round_down

#: Pixels that are ranked at a time in any case, and the share of all pixels of the active classes: a ranked pixel
#: takes about 200 bytes.
_LEAST, _SHARE = 1 << 12, 128

#: Which part of a (B, C) table: slices of images and classes, a bool mask (B, C) of A classes, or an index.
Place = tuple[slice, slice] | Tensor | int

_Bound = TypeVar("_Bound", bound="Bound")


@dataclass
class Bound:
    """One end of an interval of the ranking: the mask ``{p > threshold}``, its count and sum.

    All fields are float64 tables of one shape: (B, C), or (A,) for some of the classes.
    """

    threshold: Tensor
    n: Tensor
    s: Tensor

    def at(self: _Bound, place: Place) -> _Bound:
        """That of a part of the images and classes."""
        return type(self)(*(table[place] for table in vars(self).values()))

    def where(self: _Bound, condition: Tensor, other: _Bound) -> _Bound:
        """This one where the condition holds, and the other one elsewhere."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return type(self)(*(torch.where(condition, this, that) for this, that in pairs))


@dataclass
class Mask(Bound):
    """A mask with its score."""

    score: Tensor

    def or_better(self, other: Mask, by: float = 0.0) -> Mask:
        """The other one where its score is larger, relatively by more than ``by``, and this one elsewhere."""
        return other.where(other.score > self.score * (1 + by), self)

    def put(self, place: Place, mask: Mask) -> None:
        """Write another one into a part of the images and classes."""
        for table, part in zip(vars(self).values(), vars(mask).values(), strict=True):
            table[place] = part


def empty_masks(score: Tensor) -> Mask:
    """Empty masks with these scores."""
    return Mask(torch.full_like(score, torch.inf), torch.zeros_like(score), torch.zeros_like(score), score)


def number_among(wanted: Tensor) -> Tensor:
    """The number of each wanted class, (B, C) bool, among the wanted ones: (B, C) int64, elsewhere without meaning."""
    return wanted.flatten().cumsum(0).sub_(1).view_as(wanted)


def room(tiles: Tiles, active: Tensor, least: int | None = None) -> int:
    """How many pixels may be ranked at a time; ``least`` in any case, by default :data:`_LEAST`."""
    return max(_LEAST if least is None else least, int(active.sum()) * tiles.shape[2] // _SHARE)


class Group:
    """A of the classes of some images, which are searched together.

    Args:
        tiles: the probabilities of all.
        index: (A,) rising, the classes as places in the flattened tables (B, C).

    Attributes:
        place: the images and classes among which they lie, (b, c) of them.
        tiles: the probabilities there.
        wanted: (b, c) bool, the classes there.
    """

    def __init__(self, tiles: Tiles, index: Tensor) -> None:
        # Nothing here takes the time of a whole table: the groups may be many.
        images, labels = index // tiles.shape[1], index % tiles.shape[1]
        image, label, last_label = int(images[0]), int(labels.min()), int(labels.max())
        self.place = slice(image, int(images[-1]) + 1), slice(label, last_label + 1)
        self.tiles = tiles.part(*self.place)
        self.wanted = torch.zeros(self.tiles.shape[:2], dtype=torch.bool, device=index.device)
        self.wanted[images - image, labels - label] = True

    def of(self, table: Tensor) -> Tensor:
        """What a table (B, C) holds of them, (A,)."""
        return table[self.place][self.wanted]

    def pieces(self, low: Bound, high: Bound, most: int) -> Iterator[tuple[Bound, Bound]]:
        """Both ends (b, c) of what is ranked at a time, from bounds (B, C); only a single class goes in pieces."""
        ends = low.at(self.place), high.at(self.place)
        if self.wanted.numel() == 1:
            yield from split(self.tiles, *ends, most)
        else:
            yield ends

    def pixels_between(self, floor: Tensor, ceiling: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels with ``floor < p <= ceiling`` (b, c): their values (K,), and the numbers (K,) of their classes."""
        values, row = pixels_between(self.tiles, self.wanted, floor, ceiling)
        return values, number_among(self.wanted).flatten().index_select(0, row)


def groups(tiles: Tiles, wanted: Tensor, shares: Tensor, side_by_side: bool = False) -> Iterator[Group]:
    """The wanted classes in groups: as many as there is room for, or a single one.

    Args:
        tiles: the probabilities.
        wanted: (B, C) bool.
        shares: (B, C), which part of the room a class takes.
        side_by_side: whether every class of a group takes as much as the one that takes most, such as in a matrix.
    """
    index = wanted.flatten().nonzero().squeeze(1)
    start, total, largest = 0, 0.0, 0.0
    for stop, share in enumerate(shares[wanted].tolist()):
        total, largest = total + share, max(largest, share)
        if stop > start and ((stop + 1 - start) * largest if side_by_side else total) > 1:
            yield Group(tiles, index[start:stop])
            start, total, largest = stop, share, share
    if start < len(index):
        yield Group(tiles, index[start:])


def best_masks(
    tiles: Tiles,
    active: Tensor,
    low: Bound,
    high: Bound,
    ranked: Tensor,
    most: int,
    best_between: Callable[[Group, Bound, Bound], Mask],
) -> Mask:
    """The best mask of every image and class, however many pixels lie between the bounds, such as in a haze.

    Args:
        tiles: the probabilities.
        active: (B, C) bool, the classes that matter.
        low: the largest mask.
        high: the smallest mask.
        ranked: (B, C), how many pixels the search of a class ranks, or as many as take its memory.
        most: number of pixels that are ranked at a time.
        best_between: finds the best masks (A,) of a group between two bounds (b, c).
    """
    best = empty_masks(torch.full_like(low.n, -torch.inf))
    tiles.release_scratch()  # every group has its own
    for group in groups(tiles, active, ranked / most):
        there = best.at(group.place)
        for below, above in group.pieces(low, high, most):
            there.put(group.wanted, there.at(group.wanted).or_better(best_between(group, below, above)))
    return best


def split(tiles: Tiles, low: Bound, high: Bound, most: int) -> Iterator[tuple[Bound, Bound]]:
    """Cut ``low.threshold < p <= high.threshold`` of a single class into pieces of at most ``most`` pixels.

    Of a run of equal probabilities that is longer, the end alone: an interval without pixels.

    Args:
        tiles: a single class of a single image.
        low: the end at the smaller probabilities.
        high: the end at the larger ones.
        most: number of pixels, at least 1.

    Yields:
        Both ends of each piece, by falling probability.
    """
    pending: tuple[Bound, Bound] | None = None
    for below, above in _leaves(tiles, low, high, most):
        is_run = below.n - above.n > most
        if pending is not None:
            if not is_run and below.n - pending[1].n <= most:
                pending = below, pending[1]
                continue
            yield pending
        pending = (below, below) if is_run else (below, above)
    if pending is not None:
        yield pending


def _leaves(tiles: Tiles, low: Bound, high: Bound, most: int) -> Iterator[tuple[Bound, Bound]]:
    """Pieces by halving, some of them small; a longer run of equal probabilities stays whole."""
    every = torch.ones_like(low.n, dtype=torch.bool)
    waiting = [(low, high)]
    while waiting:
        low, high = waiting.pop()
        ends = [round_down(bound.threshold, tiles.dtype) for bound in (low, high)]
        middle = _halfway(*ends) if low.n - high.n > most else None
        if middle is None:
            yield low, high
            continue
        bound = Bound(middle, *count_above(tiles, every, middle))
        waiting += [(low, bound), (bound, high)]


def _halfway(low: Tensor, high: Tensor) -> Tensor | None:
    """A value halfway between two, counted in steps of their precision; None if there is none between them."""
    # The bits of floating point numbers that are not negative rise with them.
    integers = torch.int64 if low.dtype == torch.float64 else torch.int32
    below, above = low.view(integers), high.view(integers)
    middle = below + torch.div(above - below, 2, rounding_mode="floor")
    return None if torch.equal(middle, below) else middle.view(low.dtype).double()
