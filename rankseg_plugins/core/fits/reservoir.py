"""A uniform sample of the pixels of a data set, of fixed memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.fits.processes import gather, seed_of_process


class Reservoir:
    """Keeps the pixels with the smallest random keys: every pixel seen so far is kept with the same probability.

    Images count by their size, the order in which they come does not matter, and two reservoirs are joined by keeping
    the smallest keys of both. As long as the capacity is not reached, all pixels are kept. Where images are numbered,
    the keys of each are its own, so that several processes keep what a single one does.

    Args:
        capacity: pixels to keep, at least 1.
        columns: numbers of each pixel.
        seed: of the keys.

    Source: bottom-k sampling; Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC 2007.

    Example:
        >>> reservoir = Reservoir(capacity=2, columns=1)
        >>> reservoir.add(torch.tensor([[0.1], [0.2], [0.3]]))
        >>> len(reservoir.rows), reservoir.seen
        (2, 3)
    """

    def __init__(self, capacity: int, columns: int, seed: int = 0) -> None:
        self.capacity, self.seen, self._seed = capacity, 0, seed
        # Keys are drawn on the CPU, so that the device of the rows does not change which of them are kept.
        self._generator = torch.Generator("cpu").manual_seed(seed_of_process(seed))
        self.keys = torch.empty(0, dtype=torch.float64, device="cpu")
        self.rows = torch.empty(0, columns, device="cpu")

    def add(self, rows: Tensor, number: int | None = None) -> None:
        """Offer rows (N, columns), of a numbered image or not; what is kept is copied as float32 to the CPU."""
        if number is None:
            keys = torch.rand(len(rows), dtype=torch.float64, generator=self._generator, device="cpu")
        else:
            keys = torch.from_numpy(np.random.default_rng([self._seed % 2**64, number]).random(len(rows)))
        if len(self.keys) == self.capacity:
            chosen = (keys < self.keys.max()).nonzero().squeeze(1)
        else:
            chosen = keys.topk(min(len(keys), self.capacity), largest=False, sorted=False).indices
        self.seen += len(rows)
        self.join(keys[chosen], rows[chosen.to(rows.device)].float().cpu())

    def join(self, keys: Tensor, rows: Tensor) -> None:
        """Take in rows whose keys were drawn already, such as those that another process kept."""
        self.keys, self.rows = torch.cat([self.keys, keys]), torch.cat([self.rows, rows])
        if len(self.keys) > self.capacity:
            self.keys, kept = self.keys.topk(self.capacity, largest=False)
            self.rows = self.rows[kept]


def gathered(capacity: int, ours: Reservoir | None) -> Tensor | None:
    """The rows of one reservoir that saw what those of all processes saw; None without any. Each must call it."""
    parts = gather(None if ours is None else (ours.keys, ours.rows))
    held = [part for part in parts if part is not None and len(part[1])]
    return join(capacity, held) if held else None


def join(capacity: int, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The rows of one reservoir that saw what several saw, in the order of their keys: that of arrival does not matter.

    Args:
        capacity: of each of them.
        parts: keys and rows of at least one; those of a single one are put into this order, too.
    """
    keys, rows = parts[0] if len(parts) == 1 else (torch.cat(each) for each in zip(*parts, strict=True))
    order = keys.argsort(stable=True)
    # In place, a column at a time, as rows are most of the memory; inference mode may have made them.
    with torch.inference_mode():
        keys.copy_(keys[order])
        for column in rows.T:
            column.copy_(column[order])
    return rows[:capacity]
