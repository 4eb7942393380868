"""Probabilities at a temperature, in one pass over them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, fast, kernel
from rankseg_plugins.core.kernels.cpu.ground.reading import as_bits, as_float, clamp, copy, exponential
from rankseg_plugins.core.kernels.cpu.ground.source import CALL, decision, scratch
from rankseg_plugins.core.kernels.cpu.ground.threads import run


def rescaled(probs: Tensor, temperature: Tensor, competes: bool) -> tuple[Tensor, bool]:
    """softmax(log p / T) times the sum of p, or sigmoid(logit(p) / T) where classes do not compete.

    Args:
        probs: (B, C, *spatial) float32 or float64; what lies a little outside of [0, 1] is moved into it.
        temperature: (1,) or (C,).
        competes: whether the classes of a pixel do.

    Returns:
        (B, C, *spatial), and whether all were probabilities.
    """
    found = decision(tuple(probs.shape), probs.dtype)
    values, into = probs.detach().contiguous().flatten(2).numpy(), found.flatten(2).numpy()
    divisor = temperature.detach().to("cpu", probs.dtype).expand(values.shape[1]).contiguous().numpy()
    width = max(1, CALL // values.shape[1])
    tasks = len(values) * -(-values.shape[2] // width)
    odd = np.zeros(tasks, np.int64)

    def work(first: int, last: int) -> None:
        _at_temperature(first, last, values, divisor, competes, into, odd, scratch((3, width), probs.dtype))

    run(work, tasks)
    return found, not odd.any()


@kernel
def _at_temperature(first, last, values, divisor, competes, into, odd, work):
    width = work.shape[1]
    pieces = -(-values.shape[2] // width)
    for task in range(first, last):
        image, start = task // pieces, task % pieces * width
        end = min(start + width, values.shape[2])
        for label in range(values.shape[1]):
            row = into[image, label, start:end]
            copy(values[image, label, start:end], row)
            odd[task] += clamp(row)
            if not competes:
                _alone(row, divisor[label])
        if competes:
            _competing(into[image], divisor, start, end, work)


@fast
def _competing(rows, divisor, start, end, work):
    """Of some pixels of all classes, (C, N), in place."""
    size = end - start
    top, total, power = work[0, :size], work[1, :size], work[2, :size]
    for i in range(size):
        top[i], total[i], power[i] = -np.inf, 0, 0
    for label in range(len(rows)):
        row, by = rows[label, start:end], divisor[label]
        for i in range(size):
            total[i] += row[i]
            row[i] = logarithm(row[i]) / by
            top[i] = row[i] if row[i] > top[i] else top[i]
    for i in range(size):
        # Of a pixel without any probability nothing is subtracted from minus infinity.
        top[i] = top[i] if total[i] > 0 else 0
    for label in range(len(rows)):
        row = rows[label, start:end]
        for i in range(size):
            row[i] = exponential(row[i] - top[i])
            power[i] += row[i]
    for i in range(size):
        power[i] = total[i] / power[i] if power[i] > 0 else power[i]
    for label in range(len(rows)):
        row = rows[label, start:end]
        for i in range(size):
            x = row[i] * power[i]
            row[i] = x if x < 1 else 1


@fast
def _alone(row, by):
    """Of some pixels of one class, (N,), in place."""
    one = row.dtype.type(1)
    for i in range(len(row)):
        logit = logarithm(row[i] / (one - row[i])) / by
        # From the side where nothing overflows.
        small = exponential(-logit if logit > 0 else logit)
        share = small / (small + one)
        row[i] = one - share if logit > 0 else share


def logarithm(x: Any) -> Any:
    """``log(x)`` of a number that is not negative, to a unit in the last place; of 0 it is minus infinity."""
    raise NotImplementedError


@overload(logarithm)
def _logarithm(x):
    if x != types.float32:
        return lambda x: math.log(x) if x > 0 else -np.inf
    return lambda x: logarithm32(x)


@exact
def logarithm32(x):
    """In operations that a compiler does for many numbers at once: e log 2 + log m, with m near 1.

    Source: the series of log((1 + s) / (1 - s)) in FreeBSD's ``e_logf.c``, and its coefficients.
    """
    # Below the normal numbers the exponent says nothing.
    tiny = x < np.float32(1.17549435e-38)
    bits = as_bits(x * np.float32(33554432.0) if tiny else x)
    # From sqrt(1/2) to sqrt(2).
    shifted = np.uint32(bits + np.uint32(0x3F800000 - 0x3F3504F3))
    e = np.float32(np.int32(shifted >> np.uint32(23)) - np.int32(152 if tiny else 127))
    f = as_float(np.uint32((shifted & np.uint32(0x007FFFFF)) + np.uint32(0x3F3504F3))) - np.float32(1)
    s = f / (np.float32(2) + f)
    z = s * s
    w = z * z
    rest = w * (np.float32(0.40000972) + w * np.float32(0.24279079))
    rest += z * (np.float32(0.66666663) + w * np.float32(0.28498787))
    half = np.float32(0.5) * f * f
    found = s * (half + rest) + e * np.float32(9.0580006e-06) - half + f + e * np.float32(0.69313812)
    found = found if x < np.float32(np.inf) else x
    return found if x > 0 else np.float32(-np.inf)
