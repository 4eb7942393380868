"""What solvers look at on a CPU."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.ground.reading import Making, Source
from rankseg_plugins.core.kernels.cpu.ground.source import Plan, joined, nothing, over_tasks, scratch
from rankseg_plugins.core.kernels.cpu.solvers import moments
from rankseg_plugins.core.volumes import round_down


class CpuValues:
    """In kernels.

    Args:
        source: the probabilities; of each class alone.
        making: what makes them, or None.
        plan: how they are cut.
        peaks: (B, C, chunks), largest probability of every chunk, in the precision of the probabilities.
    """

    def __init__(self, source: Source, making: Making | None, plan: Plan, peaks: np.ndarray) -> None:
        self._source, self._making, self._plan, self._peaks = source, making, plan, peaks
        self.shape = torch.Size((peaks.shape[0], source.classes, source.pixels))
        self.dtype = torch.from_numpy(peaks[:0]).dtype

    def within(self, label: int, mask: Tensor) -> CpuValues:
        """See ``rankseg_plugins.core.values.Values``."""
        # The peaks of all pixels are as good as those of some, where chunks are passed over.
        source, making = self._source.but(classes=1, per_image=True), self._making or nothing(self.dtype)
        first = label * int(source.form["label"])
        source = source._replace(values=source.values[first:])
        making = making._replace(bits=making.bits[first:], valid=mask.contiguous().view(torch.uint8).flatten().numpy())
        return CpuValues(source, making, self._plan, self._peaks[:, label : label + 1].copy())

    def count_above(self, active: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """See ``rankseg_plugins.core.values.Values``."""
        n, s = self._look(active, threshold, torch.full_like(threshold, math.inf))
        return self._joined(n).double(), self._joined(s)[..., 0]

    def between(self, active: Tensor, low: Tensor, high: Tensor) -> tuple[np.ndarray, Tensor]:
        """See ``rankseg_plugins.core.values.Values``."""
        counts, _ = self._look(active, low, high)
        # Row by row, and in a row task by task.
        ordered = counts.reshape(self.shape[0], self._plan.tasks, -1).swapaxes(1, 2)
        begins = (ordered.cumsum() - ordered.ravel()).reshape(ordered.shape).swapaxes(1, 2).reshape(counts.shape)
        values = scratch((int(counts.sum()),), self.dtype)
        if values.size:
            self._look(active, low, high, counts=begins.copy(), values=values)
        return values, self._joined(counts)

    def power_sums(self, active: Tensor, low: Tensor, high: Tensor, orders: Tensor) -> Tensor:
        """See ``rankseg_plugins.core.values.Values``."""
        return self._joined(self._look(active, low, high, orders)[1])

    def chebyshev_sums(self, active: Tensor, low: Tensor, order: int) -> Tensor:
        """See ``rankseg_plugins.core.values.Values``."""
        orders = torch.full_like(active, order, dtype=torch.int64)
        return self._joined(self._look(active, low, torch.ones_like(low), orders, chebyshev=True)[1])

    def _look(
        self,
        active: Tensor,
        low: Tensor,
        high: Tensor,
        orders: Tensor | None = None,
        chebyshev: bool = False,
        counts: np.ndarray | None = None,
        values: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Counts (tasks, C) and sums (tasks, C, most) of ``moments.look``."""
        bounds = (round_down(each, self.dtype).masked_fill(~active, torch.inf) for each in (low, high))
        orders = torch.zeros_like(active, dtype=torch.int64) if orders is None else orders
        tables = self.shape[0] * self._plan.tasks, self.shape[1]
        sums = np.zeros((*tables, max(1, int(orders.max()) if orders.numel() else 0)))
        counts = np.zeros(tables, np.int64) if counts is None else counts
        values = scratch((0,), self.dtype) if values is None else values
        # In one memory layout, as kernels are compiled for each.
        tables_in = (each.contiguous().numpy() for each in (*bounds, orders))
        arguments = (self._peaks, *tables_in, chebyshev, counts, sums, values)
        over_tasks(
            lambda *part: moments.look(
                *part,
                self._source,
                self._making,
                self._plan,
                *arguments,
                np.empty((4, self._plan.width + 1), self._peaks.dtype),
                np.empty((3, moments.BLOCK)),
            ),
            self._source,
            self._plan,
            self.shape[0],
        )
        return counts, sums

    def _joined(self, tables: np.ndarray) -> Tensor:
        return torch.from_numpy(joined(tables, self._plan))
