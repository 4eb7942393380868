"""Intervals of the ranking: described by their ends, cut into pieces that fit the memory, and searched in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from rankseg_plugins.core.passes import count_above, round_down
from rankseg_plugins.core.tiles import Tiles, single

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
    best = empty_masks(torch.full_like(low.n, -torch.inf))
    tiles.release_scratch()  # every class has its own
    for image, label in active.nonzero().tolist():
        place = single(image, label)
        alone = tiles.part(*place)
        for below, above in split(alone, low.at(place), high.at(place), most):
            best.put(place, best.at(place).or_better(best_between(alone, place, below, above)))
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
