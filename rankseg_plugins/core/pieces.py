"""Intervals of the ranking: described by their ends, and cut into pieces that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rankseg_plugins.core.passes import count_above, round_down
from rankseg_plugins.core.tiles import Tiles

#: Pixels that are ranked at a time in any case, and the share of all pixels of the active classes: a ranked pixel
#: takes about 200 bytes.
_LEAST, _SHARE = 1 << 12, 128


@dataclass
class Bound:
    """One end of an interval of the ranking: the mask ``{p > threshold}``, its count and sum; each (B, C) float64."""

    threshold: Tensor
    n: Tensor
    s: Tensor

    def at(self, place: tuple[slice, slice]) -> Bound:
        """That of a part of the images and classes."""
        return Bound(self.threshold[place], self.n[place], self.s[place])


def room(tiles: Tiles, active: Tensor) -> int:
    """How many pixels may be ranked at a time."""
    return max(_LEAST, int(active.sum()) * tiles.shape[2] // _SHARE)


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
