"""Which implementation decides: the one place where device and tracing state matter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from rankseg_plugins.core.dense import GraphSteps
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.kernels import has_numba, has_triton, uses_numba
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.rma import Steps

#: More classes than the kernels for a CPU count in 32 bits.
_MOST_CLASSES = 1 << 14
#: Where the score is no ratio, the kernels for a GPU compare every undecided pixel with every other. These are few, but
#: in a haze of equal probabilities, which this keeps out.
_LEAST_PRUNING = 0.05


def make_steps(
    pixels: Pixels,
    objective: Objective,
    pruning: float | Tensor,
    looks: bool = False,
    make: Callable[[tuple[int, ...], torch.dtype], Tensor] | None = None,
) -> Steps:
    """The steps of a decision, by the implementation that serves it best.

    Args:
        pixels: what is decided on.
        objective: Dice or IoU.
        pruning: see ``rankseg_plugins.core.volumes.Classes``.
        looks: whether a solver will look at the values.
        make: gives the kernels for a CPU the memory for a decision, of a shape and a type; None: new memory.
    """
    path = choose_path(pixels.values, objective, pruning, looks)
    if path == "cuda":
        from rankseg_plugins.core.kernels.cuda.steps import CudaSteps

        return CudaSteps(pixels)
    if path == "cpu":
        from rankseg_plugins.core.kernels.cpu.steps import CpuSteps

        return CpuSteps(pixels) if make is None else CpuSteps(pixels, make)
    if pixels.values.device.type == "cpu" and not is_blind():
        # Not an assertion, which says less.
        pixels.check()
    return GraphSteps(pixels)


def choose_path(values: Tensor, objective: Objective, pruning: float | Tensor, looks: bool = False) -> str:
    """Name of the implementation for these values and options; see ``make_steps``.

    - ``"cpu"``: kernels in numba, on the CPU.
    - ``"cuda"``: a chain of Triton kernels, on an NVIDIA GPU.
    - ``"graph"``: whole-tensor operations, under ``torch.compile``, ``torch.export``, ``torch.jit.trace`` and
      ``torch.func``, and wherever there are no kernels.
    """
    if is_blind() or not values.numel():
        return "graph"
    if values.device.type == "cpu":
        return "cpu" if values.shape[1] <= _MOST_CLASSES and has_numba() else "graph"
    if looks or not _can_fuse(values.device):
        return "graph"
    is_pruned = not isinstance(pruning, Tensor) and pruning >= _LEAST_PRUNING
    return "cuda" if objective.is_ratio or is_pruned else "graph"


def argmax(values: Tensor) -> Tensor:
    """The first class with the largest value of every pixel, by the implementation that serves it best.

    Args:
        values: (B, C, *spatial), floating point, without NaN where values may be looked at.
    """
    whole = values.is_contiguous() and values.dtype in (torch.float32, torch.float64)
    if whole and values.device.type == "cpu" and not is_blind() and values.numel() and uses_numba():
        from rankseg_plugins.core.kernels.cpu.extremes import argmax as by_kernel

        return by_kernel(values)
    # The same as argmax(1), which takes 2 to 20 times as long on a CPU.
    return values.max(1).indices


@cache
def _can_fuse(device: torch.device) -> bool:
    # Triton's own lower limit.
    is_nvidia = device.type == "cuda" and torch.version.cuda is not None
    return is_nvidia and torch.cuda.get_device_capability(device) >= (7, 0) and has_triton()
