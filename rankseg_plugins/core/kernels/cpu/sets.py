"""The best set of classes of every image; see :mod:`rankseg_plugins.core.presence.rule`.

Written for numba, and runs without it, in many times the time.
"""

from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.compiling import exact, kernel


@kernel
def best_sets(
    expected: np.ndarray,
    q: np.ndarray,
    odds: np.ndarray,
    x: np.ndarray,
    weights: np.ndarray,
    order: np.ndarray,
    product: np.ndarray,
    chosen: np.ndarray,
    value: np.ndarray,
) -> None:
    """Choose classes (B, C) and say what they score (B,), from what ``rule.best_set`` has of them.

    ``order`` (C,) and ``product`` (K,) are scratch memory.
    """
    classes = q.shape[1]
    for image in range(q.shape[0]):
        _sort(odds[image], order)
        total = 0.0
        for label in range(classes):
            total += expected[image, label]
        product[:] = 1.0
        value[image], least = -1.0, 0.0
        for place in range(classes):
            label = order[place]
            moment = 0.0
            for node in range(len(x)):
                moment += product[node] * weights[place, node]
                product[node] *= 1.0 - q[image, label] * (1.0 - x[node])
            if moment * total > value[image]:
                value[image], least = moment * total, odds[image, label]
            total -= expected[image, label]
        for label in range(classes):
            chosen[image, label] = odds[image, label] >= least


@exact
def _sort(numbers: np.ndarray, order: np.ndarray) -> None:
    """Where the numbers are, from the smallest to the largest; they are few."""
    for label in range(len(numbers)):
        place = label
        while place > 0 and numbers[order[place - 1]] > numbers[label]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = label
