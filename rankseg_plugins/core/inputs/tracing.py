"""Whether values may be looked at, and small tables worked out either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def is_blind() -> bool:
    """Whether a compiler, an exporter, a tracer or a transform is at work, which does not look at values."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # not in the stubs
    return torch.compiler.is_compiling() or tracing or is_transforming()


def is_transforming() -> bool:
    """Whether a transform of ``torch.func``, such as vmap, is at work."""
    return torch._C._functorch.maybe_current_level() is not None


def log(table: Tensor) -> Tensor:
    """Natural logarithms of a small float64 table."""
    return _elementwise(np.log, torch.log, table)


def exp(table: Tensor) -> Tensor:
    """Exponentials of one."""
    return _elementwise(np.exp, torch.exp, table)


def _elementwise(by_numpy: Any, by_torch: Callable[[Tensor], Tensor], table: Tensor) -> Tensor:
    # PyTorch calls all threads for a hundred numbers, and waits for them, on a machine that may be busy.
    if is_blind() or table.device.type != "cpu":
        return by_torch(table)
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.asarray(by_numpy(table.numpy())))
