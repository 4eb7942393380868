"""Small tables, a few numbers of every class: tensors, or NumPy's arrays, by the same formulas.

An operation on a small array takes a third of the time of one on a tensor, which is what counts beside a small image. In
a graph and on an accelerator tables are tensors. What both know by the same name is called by it; the rest is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.tracing import is_blind

#: A tensor or an array.
Table: TypeAlias = Any


def read_table(tensor: Tensor, device: torch.device) -> Table:
    """A tensor as tables on a device are held: an array of the same memory, or the tensor there."""
    return tensor.detach().numpy() if device.type == "cpu" and not is_blind() else tensor.to(device)


def to_tensor(table: Table) -> Tensor:
    """The tensor of a table, in its memory."""
    return torch.from_numpy(table) if isinstance(table, np.ndarray) else table


def library(table: Table) -> Any:
    """The module whose functions serve the table.

    Example:
        >>> table = np.array([[0.25, 4.0]])
        >>> library(table).minimum(table, 1 / table)
        array([[0.25, 0.25]])
    """
    return np if isinstance(table, np.ndarray) else torch


def like(table: Table, numbers: Sequence[Any]) -> Table:
    """A table of these numbers, of the kind and precision of another."""
    if isinstance(table, np.ndarray):
        return np.array(numbers, dtype=table.dtype)
    return torch.tensor(numbers, dtype=table.dtype, device=table.device)


def at_least(table: Table, low: float) -> Table:
    """No number below ``low``."""
    return np.maximum(table, low) if isinstance(table, np.ndarray) else table.clamp(min=low)


def within(table: Table, low: float, high: float) -> Table:
    """No number outside of [low, high]."""
    if isinstance(table, np.ndarray):
        return np.minimum(np.maximum(table, low), high)
    return table.clamp(low, high)
