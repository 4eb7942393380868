"""Intervals of the ranking: described by their ends, and ranked in groups of rows, or pieces, that fit the memory.

A row is a class of an image; all tables (B, C) are float64, and a row is known by its place in the flattened table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.ground.threads import run
from rankseg_plugins.core.values import JoinedValues, Values
from rankseg_plugins.core.volumes import round_down

#: Pixels that are ranked at a time in any case, and the share of all pixels of the active rows.
_LEAST, _SHARE = 1 << 14, 8
#: Pixels that are sorted by one call, at least.
_CALL = 1 << 14

_Bound = TypeVar("_Bound", bound="Bound")


@dataclass
class Bound:
    """One end of an interval of the ranking: the mask ``{p > threshold}``, its count and sum."""

    threshold: Tensor
    n: Tensor
    s: Tensor

    def where(self: _Bound, condition: Tensor, other: _Bound) -> _Bound:
        """This one where the condition holds, and the other one elsewhere."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return type(self)(*(torch.where(condition, this, that) for this, that in pairs))

    def at(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the tables hold of some rows."""
        return tuple(table.flatten().numpy()[rows] for table in vars(self).values())


@dataclass
class Mask(Bound):
    """A mask with its score."""

    score: Tensor

    def put(self, rows: np.ndarray, found: np.ndarray) -> None:
        """Write those of some rows, (4, A)."""
        for table, part in zip(vars(self).values(), found, strict=True):
            table.view(-1)[torch.from_numpy(rows)] = torch.from_numpy(part)


def nothing(like: Tensor) -> Bound:
    """Empty masks."""
    zero = torch.zeros_like(like)
    return Bound(torch.ones_like(zero), zero, zero)


class Piece(NamedTuple):
    """Pixels of A rows.

    Args:
        values: (K,) rising in each row, row after row.
        ends: (A + 1,) where the rows begin, and where the last one ends.
        times: how many pixels each value stands for.
        floor: (A,) what the pixels lie above, and none of the following ones does.
    """

    values: np.ndarray
    ends: np.ndarray
    times: int
    floor: np.ndarray


def room(values: Values, active: Tensor) -> int:
    """How many pixels may be ranked at a time."""
    return max(_LEAST, int(active.sum()) * values.shape[2] // _SHARE)


def groups(wanted: Tensor, sizes: Tensor, most: int) -> Iterator[np.ndarray]:
    """The wanted rows in groups: as many as there is room for, or a single one.

    Args:
        wanted: (B, C) bool.
        sizes: (B, C), how many pixels a row takes the memory of.
        most: how many there is room for.
    """
    rows = wanted.flatten().nonzero().squeeze(1).numpy()
    start, total = 0, 0.0
    for stop, size in enumerate(sizes[wanted].tolist()):
        total += size
        if stop > start and total > most:
            yield rows[start:stop]
            start, total = stop, size
    if start < len(rows):
        yield rows[start:]


def ranked(values: Values | JoinedValues, rows: np.ndarray, low: Tensor, high: Tensor) -> Piece:
    """The pixels with ``low < p <= high`` (B, C) of some rows."""
    found, number = values.between(_only(rows, low), low, high)
    ends = np.concatenate([[0], number.flatten().numpy()[rows].cumsum()])

    def sort(first: int, last: int) -> None:
        for row in range(first, last):
            found[ends[row] : ends[row + 1]].sort()

    run(sort, len(rows), max(1, len(rows) * _CALL // max(1, len(found))))
    return Piece(found, ends, 1, low.flatten().numpy()[rows])


def pieces(values: Values, rows: np.ndarray, low: Bound, high: Bound, most: int) -> Iterator[Piece]:
    """What lies between two bounds, by falling probability; of a single row at most ``most`` pixels at a time.

    Of a run of equal probabilities that is longer, a single value that stands for all.
    """
    if len(rows) > 1 or (low.n - high.n).flatten()[rows[0]] <= most:
        yield ranked(values, rows, low.threshold, high.threshold)
        return
    for below, above in split(values, rows, low, high, most):
        number = int((below.n - above.n).flatten()[rows[0]])
        if number > most:
            value = round_down(above.threshold, values.dtype).flatten().numpy()[rows]
            yield Piece(value, np.array([0, 1]), number, below.threshold.flatten().numpy()[rows])
        else:
            yield ranked(values, rows, below.threshold, above.threshold)


def split(values: Values, rows: np.ndarray, low: Bound, high: Bound, most: int) -> Iterator[tuple[Bound, Bound]]:
    """Both ends of pieces of at most ``most`` pixels of a single row, or of longer runs of equal probabilities."""
    pending: tuple[Bound, Bound] | None = None
    only = _only(rows, low.n)
    waiting = [(low, high)]
    while waiting:
        below, above = waiting.pop()
        ends = (round_down(bound.threshold, values.dtype)[only] for bound in (below, above))
        middle = _halfway(*ends) if _number(below, above, only) > most else None
        if middle is not None:
            threshold = torch.zeros_like(low.n).masked_scatter(only, middle)
            bound = Bound(threshold, *values.count_above(only, threshold))
            waiting += [(below, bound), (bound, above)]
        elif pending is not None and _number(below, pending[1], only) <= most:
            pending = below, pending[1]
        else:
            if pending is not None:
                yield pending
            pending = below, above
    if pending is not None:
        yield pending


def _number(low: Bound, high: Bound, only: Tensor) -> int:
    return int((low.n - high.n)[only])


def _only(rows: np.ndarray, like: Tensor) -> Tensor:
    """A table (B, C) bool of some rows."""
    table = torch.zeros_like(like, dtype=torch.bool)
    table.view(-1)[torch.from_numpy(rows)] = True
    return table


def _halfway(low: Tensor, high: Tensor) -> Tensor | None:
    """A value halfway between two, counted in steps of their precision; None if there is none between them."""
    # The bits of floating point numbers that are not negative rise with them.
    integers = torch.int64 if low.dtype == torch.float64 else torch.int32
    below, above = low.view(integers), high.view(integers)
    middle = below + torch.div(above - below, 2, rounding_mode="floor")
    return None if torch.equal(middle, below) else middle.view(low.dtype).double()
