"""Pixels of many rows (one row per image and class) in falling order, and the prefixes of every row."""

from __future__ import annotations

import torch
from torch import Tensor


class Ranking:
    """Values sorted by falling probability inside each row.

    A sentinel of value infinity opens every row: it stands for the empty prefix, so that position k of a row is its
    prefix of k pixels.

    Args:
        values: (K,) probabilities, any order.
        rows: (K,) int64, the row of each value.
        count: number of rows R; rows without values are allowed.
        ahead: (K,) bool, values that go before all others of their row; None for none.

    Attributes:
        values: (K + R,) float64, sentinels included, row after row.
        rows: (K + R,) int64.
        first: (R,) where each row begins.
        position: (K + R,) number of pixels in the prefix that ends here.
    """

    def __init__(self, values: Tensor, rows: Tensor, count: int, ahead: Tensor | None = None) -> None:
        opening = torch.arange(count, device=rows.device)
        rows = torch.cat([opening, rows])
        key = values = torch.cat([values.new_full((count,), torch.inf, dtype=torch.float64), values.double()])
        if ahead is not None:
            key = values + 2 * torch.cat([ahead.new_ones(count), ahead])
        order = key.argsort(descending=True, stable=True)
        order = order[rows[order].argsort(stable=True)]
        self.values, self.rows = values[order], rows[order]
        self.first = torch.searchsorted(self.rows, opening)
        self._start = self.first[self.rows]
        self.position = torch.arange(len(rows), device=rows.device) - self._start

    def cumulate(self, terms: Tensor) -> Tensor:
        """Running sums (K + R,) of ``terms`` inside each row; those of the sentinels count as 0.

        Rows with the same terms get the same sums, whatever lies before them: the leading digits of the terms add up
        without rounding.
        """
        terms = terms.masked_fill(self.position == 0, 0)
        # Not below the normal numbers, where a quotient by it is infinite.
        exponent = (torch.frexp(terms.abs().sum()).exponent - 52).clamp(min=-1022)
        unit = torch.ldexp(terms.new_ones(1), exponent)
        leading = (terms / unit).round() * unit
        running = torch.stack([leading, terms - leading]).cumsum(1)
        return (running - running[:, self._start]).sum(0)

    def totals(self, running: Tensor) -> Tensor:
        """Last running sum of every row, (R,)."""
        return running[self._last()]

    def following(self, floor: Tensor) -> Tensor:
        """The next smaller value (K + R,) in the row, and ``floor`` (R,) after its last."""
        following = self.values.roll(-1)
        following[self._last()] = floor
        return following

    def best(self, score: Tensor) -> Tensor:
        """Index (R,) of the shortest prefix of largest ``score`` (K + R,) in every row."""
        best = torch.full_like(self.first, -torch.inf, dtype=score.dtype).scatter_reduce(0, self.rows, score, "amax")
        found = score == best[self.rows]
        index = torch.full_like(self.first, len(self.rows))
        return index.scatter_reduce(0, self.rows[found], found.nonzero().flatten(), "amin")

    def _last(self) -> Tensor:
        # Where the next row begins, less one: -1, the very last, for the last row.
        return self.first.roll(-1) - 1
