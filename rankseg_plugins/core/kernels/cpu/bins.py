"""Numbers and sums of values in bins of equal width, for the calibration of probabilities."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.compiling import kernel
from rankseg_plugins.core.kernels.cpu.source import CALL
from rankseg_plugins.core.kernels.cpu.threads import run


def binned(values: Tensor, kept: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Number and sum of the values that are kept in every bin, each (R, bins) float64.

    Args:
        values: (R, N) float32 in [0, 1].
        kept: (R, N) or (1, N) bool.
        bins: their number.
    """
    number, total = np.zeros((len(values), bins)), np.zeros((len(values), bins))
    rows = values.contiguous().numpy(), kept.contiguous().numpy()
    grain = max(1, CALL // max(1, values.shape[1]))
    run(lambda first, last: _add(first, last, *rows, number, total), len(values), grain)
    return torch.from_numpy(number), torch.from_numpy(total)


@kernel
def _add(first, last, values, kept, number, total):
    bins = number.shape[1]
    for row in range(first, last):
        p, counts = values[row], kept[row % len(kept)]
        for i in range(len(p)):
            if counts[i]:
                x = np.float64(p[i])
                at = min(max(int(x * bins), 0), bins - 1)
                number[row, at] += 1
                total[row, at] += x
