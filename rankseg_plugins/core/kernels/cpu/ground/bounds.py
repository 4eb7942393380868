"""Values above a bound, or between two: counted, added up, picked out."""

from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.compiling import fast
from rankseg_plugins.core.kernels.cpu.ground.reading import as_bits

#: Values that are looked at together for one that counts.
_BLOCK = 64


@fast
def highest_bits(p):
    """The largest bits of some numbers: the largest number's, but those of NaN and of negative ones lie above."""
    # Of integers, several are compared at once.
    highest = as_bits(p[0])
    for i in range(len(p)):
        highest = max(highest, as_bits(p[i]))
    return highest


@fast
def above(values, bound):
    """Count and sum of the values above a bound."""
    count, total = 0, 0.0
    for i in range(len(values)):
        count += values[i] > bound
        total += values[i] if values[i] > bound else 0
    return count, total


@fast
def between(p, low, high):
    """Count and sum of the values with ``low < p <= high``."""
    count, total = 0, 0.0
    for i in range(len(p)):
        inside = (p[i] > low) & (p[i] <= high)
        count += inside
        total += p[i] if inside else 0
    return count, total


@fast
def keep_between(p, low, high, values, to):
    """Write the values with ``low < p <= high`` to ``values`` from ``to`` on; return where they end."""
    whole = len(p) // _BLOCK * _BLOCK
    for first in range(0, whole, _BLOCK):
        block, some = p[first : first + _BLOCK], np.int32(0)
        for i in range(_BLOCK):
            some |= np.int32((block[i] > low) & (block[i] <= high))
        if some:
            # Without a branch: each value is written, and the next one over it unless it counts.
            for i in range(_BLOCK):
                values[to] = block[i]
                to += (block[i] > low) & (block[i] <= high)
    for i in range(whole, len(p)):
        values[to] = p[i]
        to += (p[i] > low) & (p[i] <= high)
    return to
