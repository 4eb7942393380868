"""What the solvers ask of the probabilities: single passes over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.volumes import round_down


class Values(Protocol):
    """The probabilities (B, C, d) of every row, which is a class of an image.

    All tables (B, C) are float64 in the memory of the CPU. Where ``active`` (B, C) bool is False, a row takes no part:
    what is said of it has no meaning.
    """

    @property
    def shape(self) -> torch.Size:
        """(B, C, d)."""

    @property
    def dtype(self) -> torch.dtype:
        """In which probabilities are compared."""

    def within(self, label: int, mask: Tensor) -> Values:
        """Of a single class the pixels of a mask (B, d) bool; the others are 0, as are those that are not valid."""

    def count_above(self, active: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """Count and sum, each (B, C), of the pixels above ``threshold`` (B, C)."""

    def between(self, active: Tensor, low: Tensor, high: Tensor) -> tuple[np.ndarray, Tensor]:
        """The pixels with ``low < p <= high`` (B, C).

        Returns:
            Their values (K,) in this precision, row after row, and how many they are in each row, (B, C) int64.
        """

    def power_sums(self, active: Tensor, low: Tensor, high: Tensor, orders: Tensor) -> Tensor:
        """Sums (B, C, most) of p, p^2, ... over the pixels with ``low < p <= high``: at least ``orders`` (B, C)."""

    def chebyshev_sums(self, active: Tensor, low: Tensor, order: int) -> Tensor:
        """Sums (B, C, order) of ``p T_k(2 p - 1)`` over the pixels above ``low``, with Chebyshev's polynomials T_k."""


class JoinedValues:
    """Of a single row, the pixels of several ``Values`` together, which are looked at one after the other.

    Args:
        parts: begins anew with the first of them; each (1, 1, d).
        dtype: of all of them.

    Example:
        >>> p = torch.tensor([[[0.5, 0.25, 1.0]]])
        >>> joined = JoinedValues(lambda: map(GraphValues, p.split(2, 2)), p.dtype)
        >>> all_of_it = torch.tensor([[True]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])
        >>> joined.power_sums(*all_of_it, torch.tensor([[2]]))
        tensor([[[1.7500, 1.3125]]], dtype=torch.float64)
        >>> joined.between(*all_of_it)
        (array([0.5 , 0.25, 1.  ], dtype=float32), tensor([[3]]))
    """

    def __init__(self, parts: Callable[[], Iterator[Values]], dtype: torch.dtype) -> None:
        self._parts, self.dtype = parts, dtype

    def between(self, active: Tensor, low: Tensor, high: Tensor) -> tuple[np.ndarray, Tensor]:
        """See ``Values``."""
        values, numbers = zip(*(part.between(active, low, high) for part in self._parts()), strict=True)
        return np.concatenate(values), sum(numbers[1:], numbers[0])

    def power_sums(self, active: Tensor, low: Tensor, high: Tensor, orders: Tensor) -> Tensor:
        """See ``Values``."""
        first, *others = (part.power_sums(active, low, high, orders) for part in self._parts())
        return sum(others, first)


class GraphValues:
    """In whole-tensor operations.

    Args:
        p: (B, C, d), float32 or float64 in [0, 1], on any device.
    """

    def __init__(self, p: Tensor) -> None:
        self._p, self.shape, self.dtype = p, p.shape, p.dtype

    def within(self, label: int, mask: Tensor) -> GraphValues:
        """See ``Values``."""
        return GraphValues(self._p[:, label : label + 1] * mask.unsqueeze(1))

    def count_above(self, active: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Values``."""
        above = self._p > self._bound(active, threshold)
        return above.count_nonzero(-1).double().cpu(), (self._p * above).sum(-1, dtype=torch.float64).cpu()

    def between(self, active: Tensor, low: Tensor, high: Tensor) -> tuple[np.ndarray, Tensor]:
        """See ``Values``."""
        inside = self._inside(active, low, high)
        return self._p[inside].cpu().numpy(), inside.count_nonzero(-1).cpu()

    def power_sums(self, active: Tensor, low: Tensor, high: Tensor, orders: Tensor) -> Tensor:
        """See ``Values``."""
        p = (self._p * self._inside(active, low, high)).double()
        power, sums = p, []
        for _ in range(int((orders * active).max()) if active.numel() else 0):
            sums.append(power.sum(-1).cpu())
            power = power * p
        return torch.stack(sums, -1) if sums else p.new_zeros(*active.shape, 0).cpu()

    def chebyshev_sums(self, active: Tensor, low: Tensor, order: int) -> Tensor:
        """See ``Values``."""
        p = (self._p * self._inside(active, low, torch.ones_like(low))).double()
        x = 2 * p - 1
        before, current, sums = x * p, p, []
        for _ in range(order):
            sums.append(current.sum(-1).cpu())
            before, current = current, 2 * x * current - before
        return torch.stack(sums, -1)

    def _inside(self, active: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return (self._p > self._bound(active, low)) & (self._p <= self._bound(active, high))

    def _bound(self, active: Tensor, threshold: Tensor) -> Tensor:
        bound = round_down(threshold, self.dtype).masked_fill(~active, torch.inf)
        return bound.unsqueeze(-1).to(self._p.device)
