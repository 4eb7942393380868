"""Intervals of the ranking: described by their ends, and cut into pieces that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rankseg_plugins.core.passes import count_above, round_down
from rankseg_plugins.core.tiles import Tiles, single

#: Pixels that are ranked at a time in any case, and the share of all pixels of the active classes: a ranked pixel
#: takes about 200 bytes.
_LEAST, _SHARE = 1 << 12, 128


@dataclass
class Bound:
    """One end of an interval of the ranking: the mask ``{p > threshold}``, its count and sum; each (B, C) float64."""

    threshold: Tensor
    n: Tensor
    s: Tensor

    def at(self, place: Place) -> Bound:
        """That of a part of the images and classes."""
        return Bound(self.threshold[place], self.n[place], self.s[place])

    def where(self, condition: Tensor, other: Self) -> Self:
        """This one where the condition holds, and the other one elsewhere."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return type(self)(*(torch.where(condition, this, that) for this, that in pairs))


@dataclass
class Mask(Bound):
    """A mask ``{p > threshold}`` with its count, sum and score."""

    score: Tensor

    def or_better(self, other: Mask) -> Mask:
        """The one with the larger score; this one where they are equal."""
        return other.where(other.score > self.score, self)

    def put(self, place: Place, mask: Mask) -> None:
        """Write another one into a part of the images and classes."""
        for table, part in zip(vars(self).values(), vars(mask).values(), strict=True):
            table[place] = part


#: Which part of a (B, C) table: slices of images and classes, a bool mask, or an index.
Place = tuple[slice, slice] | Tensor | int


def room(tiles: Tiles, active: Tensor) -> int:
    """How many pixels may be ranked at a time."""
    return max(_LEAST, int(active.sum()) * tiles.shape[2] // _SHARE)


def best_of_pieces(
    tiles: Tiles,
    active: Tensor,
    low: Bound,
    high: Bound,
    most: int,
    best_between: Callable[[Tiles, Place, Bound, Bound], Mask],
) -> Mask:
    """The best mask of every image and class where the pixels between the bounds are many, such as a haze.

    Args:
        tiles: the probabilities.
        active: (B, C) bool, the classes that matter.
        low: the largest mask.
        high: the smallest mask.
        most: number of pixels that are ranked at a time.
        best_between: finds the best mask between two bounds of a single class, which lies at the given place of the
            tables and whose probabilities it gets.
    """
    best = Mask(low.threshold.clone(), low.n.clone(), low.s.clone(), torch.full_like(low.n, -torch.inf))
    for image, label in active.nonzero().tolist():
        place = single(image, label)
        alone = tiles.part(*place)
        for below, above in split(alone, low.at(place), high.at(place), most):
            found = best_between(alone, place, below, above)
            if found.score > best.score[place]:
                best.put(place, found)
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
