"""Numbers and sums of values in bins of equal width, for the calibration of probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.compiling import exact, kernel
from rankseg_plugins.core.kernels.cpu.source import CALL
from rankseg_plugins.core.kernels.cpu.threads import run

#: Rows that one call of a kernel fills in turns: no bin has to wait for what was added to it just before.
_ROWS = 4


def binned(values: Tensor, kept: Tensor, bins: int) -> Tensor:
    """Number and sum of the values that are kept in every bin, (2, R, bins) float64.

    Args:
        values: (R, N) float32 in [0, 1].
        kept: (R, N) or (1, N) bool.
        bins: their number.
    """
    return torch.from_numpy(_binned(values.contiguous().numpy(), kept.contiguous().numpy(), bins))


def labels_binned(probs: Tensor, labels: Tensor, kept: Tensor, bins: int) -> Tensor:
    """The fields of a calibration, for every class and the largest probability of every pixel: (3, C + 1, bins).

    Pixels without any probability are left out.

    Args:
        probs: (C, N) float32 in [0, 1].
        labels: (N,) int64, in 0 to C - 1 where they are kept.
        kept: (N,) bool.
        bins: their number.
    """
    classes, pixels = probs.shape
    rows, true, counts = (each.contiguous().numpy() for each in (probs, labels, kept))
    top, winner, used = np.empty((1, pixels), np.float32), np.empty(pixels, np.int32), np.empty((1, pixels), np.bool_)
    run(
        lambda first, last: _look(first, last, rows, counts, top[0], winner, used[0]),
        pixels,
        max(1, CALL // classes),
    )
    found = np.zeros((3, classes + 1, bins))
    found[:2, :classes], found[:2, classes:] = _binned(rows, used, bins), _binned(top, used, bins)
    _hit(rows, true, used[0], top[0], winner, found[2])
    return torch.from_numpy(found)


def _binned(values: np.ndarray, kept: np.ndarray, bins: int) -> np.ndarray:
    found = np.zeros((2, len(values), bins))
    grain = max(_ROWS, CALL // max(1, values.shape[1]))
    run(lambda first, last: _add(first, last, values, kept, *found), len(values), grain)
    return found


@exact
def _bin_of(x, bins):
    # Without a sign: no place is counted from the end.
    return min(np.uint32(np.int32(x * bins)), np.uint32(bins - 1))


@kernel
def _add(first, last, values, kept, number, total):
    bins = number.shape[1]
    for start in range(first, last, _ROWS):
        for i in range(values.shape[1]):
            for row in range(start, min(start + _ROWS, last)):
                if kept[row if len(kept) > 1 else 0, i]:
                    x = np.float64(values[row, i])
                    at = _bin_of(x, bins)
                    number[row, at] += 1
                    total[row, at] += x


@kernel
def _look(first, last, probs, kept, top, winner, used):
    """Of some pixels: the largest probability, its class, and whether there is any that counts."""
    best, which, counts = top[first:last], winner[first:last], used[first:last]
    for i in range(last - first):
        best[i], which[i] = 0, 0
    for label in range(len(probs)):
        p = probs[label, first:last]
        for i in range(len(p)):
            which[i] = label if p[i] > best[i] else which[i]
            best[i] = p[i] if p[i] > best[i] else best[i]
    for i in range(last - first):
        counts[i] = kept[first + i] & (best[i] > 0)


@kernel
def _hit(probs, labels, used, top, winner, correct):
    """Add the pixels of every class, and those that the largest probability decides rightly, to their bins."""
    classes, bins = len(probs), correct.shape[1]
    for i in range(len(labels)):
        if used[i]:
            label = labels[i]
            correct[label, _bin_of(np.float64(probs[label, i]), bins)] += 1
            if winner[i] == label:
                correct[classes, _bin_of(np.float64(top[i]), bins)] += 1
