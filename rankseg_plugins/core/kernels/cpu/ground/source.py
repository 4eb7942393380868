"""A tensor as the kernels read it, and memory for what they write."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cpu.ground.reading import ACTIVATIONS, BFLOAT16, FLOAT16, FORM, WHOLE, Making, Source
from rankseg_plugins.core.kernels.cpu.ground.threads import run

#: Pixels of a chunk, at most: where the normalizers of softmax need all classes of a chunk, these fit a cache together.
_WIDTH, _NARROW, _CACHED = 2048, 256, 1 << 17
#: Images of so few pixels are one chunk.
_SMALL = 4096
#: Values of a task, and tasks of an image at most.
_TASK, _TASKS = 1 << 19, 64
#: Pixels of fewer bytes than these for each that would be kept are normalised anew in every pass.
_KEPT = 6

#: Values that one call of a kernel works on, at least; fewer are not worth a thread.
CALL = 1 << 16

#: Gives memory of a shape and a type.
Make = Callable[[tuple[int, ...], torch.dtype], Tensor]

_HALVES = {torch.float16: FLOAT16, torch.bfloat16: BFLOAT16}


class Plan(NamedTuple):
    """How the pixels of an image are cut: chunks that fit a cache, and tasks of neighbouring chunks.

    Args:
        width: pixels of a chunk.
        chunks: of an image.
        share: chunks of a task.
        tasks: of an image.
    """

    width: int
    chunks: int
    share: int
    tasks: int


def make_source(pixels: Pixels) -> tuple[Source, Making | None]:
    """The values where they lie: a copy is made only of pixels that lie in more than three dimensions of memory."""
    values = pixels.values.detach()
    if len(_collapsed(values)[0]) > 3:
        values = values.contiguous()
    sizes, strides = _collapsed(values)
    batch, classes, half = *values.shape[:2], _HALVES.get(values.dtype, WHOLE)
    memory, valid, number = _memory(values), pixels.valid, math.prod(sizes)
    flat = half == WHOLE and sizes[:2] == (1, 1) and strides[2] == 1
    form = {
        **dict(zip(("image", "label", "outer", "inner", "step"), (*values.stride()[:2], *strides), strict=True)),
        "lines": sizes[1],
        "length": sizes[2],
        "classes": classes,
        "pixels": number,
        "half": half,
        "activation": ACTIVATIONS[pixels.activation],
        "flat": flat,
        "clamps": False,
        "per_image": valid is not None and valid.ndim == values.ndim - 1,
        # In the precision in which the values are divided.
        "temperature": pixels.temperature if values.dtype == torch.float64 else np.float32(pixels.temperature),
    }
    whole = half == WHOLE
    source = Source(
        memory if whole else np.empty(0, np.float32),
        np.array([tuple(form[name] for name in FORM.names or ())], FORM)[0],
    )
    if flat and pixels.activation == "identity" and valid is None:
        return source, None
    norms = 2 if whole and pixels.activation == "softmax" else 1
    kept = pixels.compete and classes * values.element_size() >= _KEPT * norms * wide(values.dtype).itemsize
    return source, Making(
        bits=np.empty(0, np.uint16) if whole else memory,
        valid=np.empty(0, np.uint8) if valid is None else valid.contiguous().view(torch.uint8).flatten().numpy(),
        norms=scratch((norms, batch, number) if kept else (0, 0, 0), values.dtype),
    )


def nothing(dtype: torch.dtype) -> Making:
    """What makes probabilities of values that are probabilities."""
    return Making(np.empty(0, np.uint16), np.empty(0, np.uint8), scratch((0, 0, 0), dtype))


def make_plan(source: Source) -> Plan:
    """How the pixels are cut; it depends on the shape alone, and so do the sums."""
    width, pixels, classes = _WIDTH, source.pixels, source.classes
    while source.form["activation"] in (ACTIVATIONS["softmax"], ACTIVATIONS["normalize"]) and width > _NARROW:
        if width * classes <= _CACHED:
            break
        width //= 2
    width = pixels if pixels <= _SMALL else width
    chunks = -(-pixels // width)
    share = -(-chunks // min(chunks, _TASKS, -(-pixels * classes // _TASK)))
    return Plan(width, chunks, share, -(-chunks // share))


def over_tasks(work: Callable[[int, int], object], source: Source, plan: Plan, batch: int) -> None:
    """Call ``work(first, last)`` for the tasks of all images, in threads."""
    values = source.classes * source.pixels // plan.tasks
    run(work, batch * plan.tasks, max(1, CALL // max(1, values)))


def joined(tables: np.ndarray, plan: Plan) -> np.ndarray:
    """Sums over the tasks of each image: (B * tasks, ...) to (B, ...); in order."""
    found: np.ndarray = tables.reshape(-1, plan.tasks, *tables.shape[1:]).sum(1)
    return found


def scratch(shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """Uninitialised memory; for floating point in the precision in which probabilities of this type are compared."""
    # From PyTorch, whose profilers count it.
    return torch.empty(shape, dtype=wide(dtype), device="cpu").numpy()


def wide(dtype: torch.dtype) -> torch.dtype:
    """The precision in which probabilities of this type are compared; a type of whole numbers is itself."""
    return torch.promote_types(dtype, torch.float32) if dtype.is_floating_point else dtype


def decision(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for a decision; not an inference tensor even in inference mode, as a loss could not use one."""
    with torch.inference_mode(False):
        return torch.empty(shape, dtype=dtype, device="cpu")


def _memory(values: Tensor) -> np.ndarray:
    """All memory from the first value of a tensor to its last; half precision as its bits."""
    reach = sum((size - 1) * stride for size, stride in zip(values.shape, values.stride(), strict=True))
    flat = values.as_strided((reach + 1 if values.numel() else 0,), (1,))
    return flat.view(torch.int16).numpy().view(np.uint16) if values.dtype in _HALVES else flat.numpy()


def _collapsed(values: Tensor) -> tuple[Any, Any]:
    """Sizes and strides of the pixels in at least three dimensions, as few as describe them."""
    sizes, strides = [1], [0]
    for size, stride in zip(values.shape[2:], values.stride()[2:], strict=True):
        if size == 1:
            continue
        if strides[-1] == size * stride and sizes[-1] > 1:
            sizes[-1], strides[-1] = sizes[-1] * size, stride
        else:
            sizes, strides = [*sizes, size], [*strides, stride]
    missing = 3 - (len(sizes) - 1)
    return (*[1] * missing, *sizes[1:]), (*[0] * missing, *strides[1:])
