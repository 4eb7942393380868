"""Whether values may be looked at, and the check of probabilities either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.probabilities import TOLERANCE, check_range, extent


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


def check_values(probs: Tensor) -> bool:
    """Raise a ``ValueError`` unless all values are probabilities; in a graph it is an assertion.

    Returns:
        Whether some may lie a little outside of [0, 1].
    """
    if is_blind():
        assert_range(probs)
        return True
    if not probs.numel():
        return False
    return check_range(*extent(probs))


def assert_range(p: Tensor) -> None:
    """An assertion that these are probabilities, a part of the graph; ``torch.func`` has none."""
    if p.numel() and not is_transforming():
        fits = ((p >= -TOLERANCE) & (p <= 1 + TOLERANCE)).all()
        torch._assert_async(fits, "probs must be finite and lie in [0, 1]")
