"""The class with the largest value, or the largest affine function of it, of every pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.ground.compiling import as_written, fast, kernel
from rankseg_plugins.core.kernels.cpu.ground.reading import copy
from rankseg_plugins.core.kernels.cpu.ground.source import CALL, decision, scratch
from rankseg_plugins.core.kernels.cpu.ground.threads import run


def argmax(values: Tensor) -> Tensor:
    """As ``values.argmax(1)``, in a fraction of the time: labels (B, *spatial) int64, the first of equal values.

    Args:
        values: (B, C, *spatial) float32 or float64 without NaN, contiguous, C at least 1.
    """
    return _by_pieces(_argmax, values, values.dtype)


def affine_argmax(values: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """As ``(scale * values - offset).argmax(1)`` in float32, 0 for a pixel without a value above 0.

    Args:
        values: as of ``argmax``.
        scale: (C,).
        offset: (C,).
    """
    return _by_pieces(_affine, values, torch.float32, torch.stack([scale, offset]).detach().float().numpy())


def _by_pieces(decide: Callable[..., None], values: Tensor, dtype: torch.dtype, *given: np.ndarray) -> Tensor:
    """Labels by a kernel, piece by piece; it gets two rows of scratch memory of a type, and one for labels."""
    labels = decision((len(values), *values.shape[2:]), torch.int64)
    flat, into = values.detach().flatten(2).numpy(), labels.flatten(1).numpy()
    width = max(1, CALL // values.shape[1])

    def work(first: int, last: int) -> None:
        # Numbers of equal size are compared together.
        decide(first, last, flat, into, *given, *scratch((2, width), dtype), np.empty(width, np.int32))

    run(work, len(values) * -(-flat.shape[2] // width))
    return labels


@kernel
def _argmax(first, last, values, labels, best, _, winner):
    width = len(best)
    pieces = -(-values.shape[2] // width)
    for task in range(first, last):
        image, start = task // pieces, task % pieces * width
        into = labels[image, start : start + width]
        lead(values[image], start, best[: len(into)], winner[: len(into)])
        for i in range(len(into)):
            into[i] = winner[i]


@fast
def lead(rows, start, best, winner):
    """Largest of the values (C, N) of every pixel from ``start`` on, and the first class that has it."""
    copy(rows[0, start : start + len(best)], best)
    for i in range(len(best)):
        winner[i] = 0
    for label in range(1, len(rows)):
        row = rows[label, start : start + len(best)]
        for i in range(len(best)):
            winner[i] = label if row[i] > best[i] else winner[i]
            best[i] = row[i] if row[i] > best[i] else best[i]


@kernel
def _affine(first, last, values, labels, rule, best, top, winner):
    width = len(best)
    pieces = -(-values.shape[2] // width)
    for task in range(first, last):
        image, start = task // pieces, task % pieces * width
        into = labels[image, start : start + width]
        lead_affine(values[image], start, rule, best[: len(into)], top, winner)
        for i in range(len(into)):
            into[i] = winner[i] if top[i] > 0 else 0


@as_written
def lead_affine(rows, start, rule, best, top, winner):
    """As ``lead``, of affine functions, and with the largest value itself."""
    for i in range(len(best)):
        winner[i], top[i] = 0, np.float32(rows[0, start + i])
        best[i] = rule[0, 0] * top[i] - rule[1, 0]
    for label in range(1, len(rows)):
        row, scale, offset = rows[label, start : start + len(best)], rule[0, label], rule[1, label]
        for i in range(len(best)):
            p = np.float32(row[i])
            score = scale * p - offset
            winner[i] = label if score > best[i] else winner[i]
            best[i] = score if score > best[i] else best[i]
            top[i] = p if p > top[i] else top[i]
