"""Pixels of every class in labels and in what was decided, and those that both share, in one look at each of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.compiling import kernel
from rankseg_plugins.core.kernels.cpu.source import CALL
from rankseg_plugins.core.kernels.cpu.threads import run


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
