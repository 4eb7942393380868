"""What scores are made of: areas of labels and masks, and probabilities in bins, for their calibration."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.extremes import lead
from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, kernel
from rankseg_plugins.core.kernels.cpu.ground.source import CALL
from rankseg_plugins.core.kernels.cpu.ground.threads import run

#: Rows that one call of a kernel fills in turns: no bin has to wait for what was added to it just before.
_ROWS = 4


def counted(prediction: Tensor, truth: Tensor, classes: int, ignore_index: int | None) -> Tensor:
    """Counts (3, B, C) int64: pixels of the intersection, of the prediction and of the truth.

    Args:
        prediction: (B, *spatial) int64, or (B, C, *spatial) bool; labels outside 0 to C - 1 count for no class.
        truth: (B, *spatial) int64, likewise.
        classes: C.
        ignore_index: label of the truth whose pixels count nowhere.
    """
    truth, prediction = truth.flatten(1), prediction.flatten(1 if prediction.dtype != torch.bool else 2)
    images, pixels = truth.shape
    pieces = max(1, -(-pixels // CALL))
    found = np.zeros((images, pieces, 3, classes), np.int64)
    count = _of_masks if prediction.dtype == torch.bool else _of_labels
    # No label of 64 bits is wider than this.
    leaves, nowhere = ignore_index is not None, ignore_index or 0
    both = prediction.contiguous().numpy(), truth.contiguous().numpy()
    run(lambda first, last: count(first, last, *both, leaves, nowhere, found), images * pieces)
    return torch.from_numpy(found.sum(1)).transpose(0, 1)


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


@kernel
def _of_labels(first, last, prediction, truth, leaves, nowhere, found):
    pieces, classes = found.shape[1], np.uint64(found.shape[3])
    for task in range(first, last):
        image, start = task // pieces, task % pieces * CALL
        decided, true = prediction[image, start : start + CALL], truth[image, start : start + CALL]
        table = found[image, task % pieces]
        for i in range(len(true)):
            if leaves and true[i] == nowhere:
                continue
            # Without a sign: what is below 0 is no class either.
            label, other = np.uint64(true[i]), np.uint64(decided[i])
            if other < classes:
                table[1, other] += 1
            if label < classes:
                table[2, label] += 1
                table[0, label] += label == other


@kernel
def _of_masks(first, last, prediction, truth, leaves, nowhere, found):
    pieces, classes = found.shape[1], np.uint64(found.shape[3])
    for task in range(first, last):
        image, start = task // pieces, task % pieces * CALL
        masks, true = prediction[image, :, start : start + CALL], truth[image, start : start + CALL]
        table = found[image, task % pieces]
        for row in range(len(masks)):
            mask, number = masks[row], 0
            for i in range(len(true)):
                number += mask[i] & ((not leaves) | (true[i] != nowhere))
            table[1, row] += number
        for i in range(len(true)):
            label = np.uint64(true[i])
            if label < classes and not (leaves and true[i] == nowhere):
                table[2, label] += 1
                table[0, label] += masks[label, i]


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
    lead(probs, first, top[first:last], winner[first:last])
    for i in range(first, last):
        used[i] = kept[i] & (top[i] > 0)


@kernel
def _hit(probs, labels, used, top, winner, correct):
    """Add the pixels of every class, and those that the largest probability decides rightly, to their bins."""
    classes, bins = np.uint64(len(probs)), correct.shape[1]
    for i in range(len(labels)):
        label = np.uint64(labels[i])
        # A label that is no class must not write beyond the table.
        if used[i] and label < classes:
            correct[label, _bin_of(np.float64(probs[label, i]), bins)] += 1
            if np.uint64(winner[i]) == label:
                correct[classes, _bin_of(np.float64(top[i]), bins)] += 1
