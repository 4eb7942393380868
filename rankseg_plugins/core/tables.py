"""Small tables, some numbers of every image and class: tensors, or NumPy's arrays, by the same formulas.

An operation on a small array takes a third of the time of one on a tensor, which counts beside a small image. In a
graph and on an accelerator tables are tensors. What both know by the same name is called by it; the rest is here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.tracing import is_blind

#: A tensor or an array.
Table: TypeAlias = Any


#: Turns a tensor that needs no gradient into a table.
Reader: TypeAlias = Callable[[Tensor], Table]


def reader(device: torch.device) -> Reader:
    """For decisions on a device: arrays, of the memory of the tensors, or tensors there."""
    return Tensor.numpy if device.type == "cpu" and not is_blind() else partial(Tensor.to, device=device)


def reader_like(table: Table) -> Reader:
    """What gives tables of the kind of another."""
    return Tensor.numpy if isinstance(table, np.ndarray) else partial(Tensor.to, device=table.device)


def to_tensor(table: Table) -> Tensor:
    """The tensor of a table, in its memory."""
    return torch.from_numpy(table) if isinstance(table, np.ndarray) else table


def may_look(table: Table) -> bool:
    """Whether what is done may depend on the values; see :func:`~rankseg_plugins.core.tracing.is_blind`."""
    return isinstance(table, np.ndarray) or not is_blind()


def library(table: Table) -> Any:
    """The module whose functions serve the table.

    Example:
        >>> table = np.array([[0.25, 4.0]])
        >>> library(table).minimum(table, 1 / table)
        array([[0.25, 0.25]])
    """
    return np if isinstance(table, np.ndarray) else torch


def filled(table: Table, number: float) -> Table:
    """The same number for every image, (B, 1), likewise; a graph may not know it."""
    if isinstance(table, np.ndarray):
        return np.full((len(table), 1), number, dtype=table.dtype)
    return torch.full_like(table[:, :1], number)


def precise(table: Table) -> Table:
    """The same in float64."""
    return table.astype(np.float64) if isinstance(table, np.ndarray) else table.double()


def largest(table: Table) -> Table:
    """The largest number of every image, (B, 1)."""
    return np.maximum.reduce(table, 1, keepdims=True) if isinstance(table, np.ndarray) else table.amax(1, keepdim=True)


def at_least(table: Table, low: float) -> Table:
    """No number below ``low``."""
    return np.maximum(table, low) if isinstance(table, np.ndarray) else table.clamp(min=low)


def at_most(table: Table, high: float) -> Table:
    """No number above ``high``."""
    return np.minimum(table, high) if isinstance(table, np.ndarray) else table.clamp(max=high)
