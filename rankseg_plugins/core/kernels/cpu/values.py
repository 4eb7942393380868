"""The passes of :mod:`~rankseg_plugins.core.kernels.cpu.moments`, over all tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu import moments
from rankseg_plugins.core.kernels.cpu.reading import Source
from rankseg_plugins.core.kernels.cpu.rows import Plan
from rankseg_plugins.core.kernels.cpu.source import scratch
from rankseg_plugins.core.kernels.cpu.threads import run
from rankseg_plugins.core.volumes import round_down

#: Values that one call of a kernel works on, at least; fewer are not worth a thread.
_CALL = 1 << 16


class CpuValues:
    """In kernels.

    Args:
        source: the probabilities; of each class alone.
        plan: how they are cut.
        peaks: (B, C, chunks), largest probability of every chunk, in the precision of the probabilities.
    """

    def __init__(self, source: Source, plan: Plan, peaks: np.ndarray) -> None:
        self._source, self._plan, self._peaks = source, plan, peaks
        self.shape = torch.Size((peaks.shape[0], source.classes, source.pixels))
        self.dtype = torch.from_numpy(peaks[:0]).dtype

    def within(self, label: int, mask: Tensor) -> CpuValues:
        """See :class:`~rankseg_plugins.core.values.Values`."""
        # The peaks of all pixels are as good as those of some, where chunks are passed over.
        source, first = self._source, label * self._source.strides[1]
        memory = {"values": source.values[first:], "bits": source.bits[first:]}
        valid = mask.contiguous().view(torch.uint8).flatten().numpy()
        source = source._replace(**memory, classes=1, direct=False, valid=valid, per_image=True)
        return CpuValues(source, self._plan, self._peaks[:, label : label + 1])

    def count_above(self, active: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`~rankseg_plugins.core.values.Values`."""
        n, s = np.zeros((2, *self._tables()))
        self._pass(moments.count_above, self._peaks, self._bound(active, threshold), n, s)
        return self._joined(n), self._joined(s)

    def between(self, active: Tensor, low: Tensor, high: Tensor) -> tuple[np.ndarray, Tensor]:
        """See :class:`~rankseg_plugins.core.values.Values`."""
        bounds = self._bound(active, low), self._bound(active, high)
        counts = np.zeros(self._tables(), np.int64)
        self._pass(moments.pick, self._peaks, *bounds, counts, scratch((0,), self.dtype))
        # Row by row, and in a row task by task.
        ordered = counts.reshape(self.shape[0], self._plan.tasks, -1).swapaxes(1, 2)
        ends = (ordered.cumsum() - ordered.ravel()).reshape(ordered.shape).swapaxes(1, 2).reshape(counts.shape).copy()
        values = scratch((int(counts.sum()),), self.dtype)
        if values.size:
            self._pass(moments.pick, self._peaks, *bounds, ends, values)
        return values, self._joined(counts)

    def power_sums(self, active: Tensor, low: Tensor, high: Tensor, orders: Tensor) -> Tensor:
        """See :class:`~rankseg_plugins.core.values.Values`."""
        most = int((orders * active).max()) if active.numel() else 0
        return self._series(active, low, high, orders, most, chebyshev=False)

    def chebyshev_sums(self, active: Tensor, low: Tensor, order: int) -> Tensor:
        """See :class:`~rankseg_plugins.core.values.Values`."""
        return self._series(active, low, torch.ones_like(low), torch.full(active.shape, order), order, chebyshev=True)

    def _series(
        self, active: Tensor, low: Tensor, high: Tensor, orders: Tensor, most: int, chebyshev: bool
    ) -> Tensor:
        bounds = self._bound(active, low), self._bound(active, high)
        sums = np.zeros((*self._tables(), most))
        self._pass(moments.add_series, self._peaks, *bounds, orders.numpy(), chebyshev, sums)
        return self._joined(sums)

    def _tables(self) -> tuple[int, int]:
        return self.shape[0] * self._plan.tasks, self.shape[1]

    def _bound(self, active: Tensor, threshold: Tensor) -> np.ndarray:
        return round_down(threshold, self.dtype).masked_fill(~active, torch.inf).contiguous().numpy()

    def _pass(self, kernel: Callable[..., object], *arguments: Any) -> None:
        values = self._source.classes * self._source.pixels // self._plan.tasks
        run(
            lambda *part: kernel(*part, self._source, self._plan, *arguments),
            self._tables()[0],
            max(1, _CALL // max(1, values)),
        )

    def _joined(self, tables: np.ndarray) -> Tensor:
        """Sums over the tasks of each image: (tasks, ...) to (B, ...); in order."""
        return torch.from_numpy(tables.reshape(self.shape[0], self._plan.tasks, *tables.shape[1:]).sum(1))
