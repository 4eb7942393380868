"""Which implementation decides: the one place where device and tracing state matter."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from rankseg_plugins.core.dense import assert_range, is_transforming
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.probabilities import check_range

#: Where the score is no ratio, the fused path compares every undecided pixel with every other. These are few, but in a
#: haze of equal probabilities, which this keeps out.
_LEAST_PRUNING = 0.05


def is_blind() -> bool:
    """Whether a compiler, an exporter, a tracer or a transform is at work, which does not look at values."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transforming()


def check_values(probs: Tensor) -> None:
    """Raise a ``ValueError`` unless all values are probabilities; in a graph it is an assertion."""
    if is_blind():
        assert_range(probs)
    elif probs.numel():
        smallest, largest = torch.aminmax(probs)
        check_range(smallest.item(), largest.item())


def choose_path(probs: Tensor, solver: str, objective: Objective | None, pruning: float | Tensor) -> str:
    """Name of the path for these probabilities and options.

    - ``"tiled"`` looks at values, in pieces that fit a processor's cache: on the CPU, and for every solver but RMA.
    - ``"dense"`` is one graph of whole-tensor operations: under ``torch.compile``, ``torch.export``,
      ``torch.jit.trace`` and ``torch.func``, and on accelerators that the third cannot serve.
    - ``"fused"`` is a chain of Triton kernels: RMA on an NVIDIA GPU.

    Args:
        probs: (B, C, *spatial), or the values that they are made of.
        solver: of the decoder.
        objective: what RMA maximises; None for other solvers.
        pruning: of the decoder; a table may hold anything.

    Raises:
        RuntimeError: if the solver looks at values where it cannot.
    """
    blind = is_blind()
    if objective is None and solver not in ("argmax", "TR"):
        if blind:
            raise RuntimeError(
                f"solver={solver!r} looks at the values it decides on and cannot be compiled, exported or "
                "mapped; use solver='RMA'"
            )
        return "tiled"
    if not blind and probs.device.type == "cpu":
        return "tiled"
    if blind or objective is None or not probs.numel() or not _has_kernels(probs.device):
        return "dense"
    is_pruned = not isinstance(pruning, Tensor) and pruning >= _LEAST_PRUNING
    return "fused" if objective.is_ratio or is_pruned else "dense"


@cache
def _has_kernels(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.cuda is None or find_spec("triton") is None:
        return False
    # Triton's own lower limit.
    return torch.cuda.get_device_capability(device) >= (7, 0)
