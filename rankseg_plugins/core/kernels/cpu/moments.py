"""Passes over the probabilities of all rows, a row being a class of an image: counts, sums, and pixels picked out.

Per task and row, as in :mod:`~rankseg_plugins.core.kernels.cpu.rows`; what is added up over the tasks in order is the
same for every number of threads. A row whose lower bound is infinity takes no part.
"""

from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.compiling import fast
from rankseg_plugins.core.kernels.cpu.reading import normalizers, probs_at
from rankseg_plugins.core.kernels.cpu.rows import above, count_between, keep_between

#: Pixels whose powers are added up at a time: three rows of float64 stay in the nearest cache.
_BLOCK = 512


@fast
def count_above(first, last, source, plan, peaks, bounds, n, s):
    """Count and sum (tasks, C) of the pixels above ``bounds`` (B, C)."""
    top, inverse = np.empty(plan.width, peaks.dtype), np.empty(plan.width, peaks.dtype)
    row = np.empty(plan.width, peaks.dtype)
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.pixels - start)
            for label in range(source.classes):
                if peaks[image, label, chunk] > bounds[image, label]:
                    if not known:
                        normalizers(source, image, start, row, top[:size], inverse[:size])
                        known = True
                    p = probs_at(source, image, label, start, top[:size], inverse[:size], row[:size])
                    count, total = above(p, bounds[image, label])
                    n[task, label] += count
                    s[task, label] += total


@fast
def pick(first, last, source, plan, peaks, low, high, ends, values):
    """The pixels with ``low < p <= high`` (B, C): their number, or they themselves.

    Args:
        first: task.
        last: task, not included.
        source: the probabilities.
        plan: how they are cut.
        peaks: (B, C, chunks), largest probability of every chunk.
        low: in the precision of the probabilities.
        high: likewise.
        ends: (tasks, C), where the values go; rises by their number.
        values: where they are written to; if it is empty, they are only counted.
    """
    top, inverse = np.empty(plan.width, peaks.dtype), np.empty(plan.width, peaks.dtype)
    row, kept = np.empty(plan.width, peaks.dtype), np.empty(plan.width + 1, peaks.dtype)
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.pixels - start)
            for label in range(source.classes):
                least, most = low[image, label], high[image, label]
                if not (peaks[image, label, chunk] > least and most > least):
                    continue
                if not known:
                    normalizers(source, image, start, row, top[:size], inverse[:size])
                    known = True
                p = probs_at(source, image, label, start, top[:size], inverse[:size], row[:size])
                if values.size:
                    number, to = keep_between(p, least, most, kept, 0), ends[task, label]
                    values[to : to + number] = kept[:number]
                else:
                    number = count_between(p, least, most)
                ends[task, label] += number


@fast
def add_series(first, last, source, plan, peaks, low, high, orders, chebyshev, sums):
    """Sums (tasks, C, most) over the pixels with ``low < p <= high`` (B, C), as many as ``orders`` (B, C) says.

    Of p, p^2, p^3, ...; or of p T_k(2 p - 1) for k = 0, 1, 2, ... with Chebyshev's polynomials T_k.
    """
    top, inverse = np.empty(plan.width, peaks.dtype), np.empty(plan.width, peaks.dtype)
    row = np.empty(plan.width, peaks.dtype)
    base, before, current = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.pixels - start)
            for label in range(source.classes):
                least, most = low[image, label], high[image, label]
                if not (peaks[image, label, chunk] > least and most > least):
                    continue
                if not known:
                    normalizers(source, image, start, row, top[:size], inverse[:size])
                    known = True
                p = probs_at(source, image, label, start, top[:size], inverse[:size], row[:size])
                for begin in range(0, size, _BLOCK):
                    block, order = p[begin : begin + _BLOCK], orders[image, label]
                    series(block, least, most, chebyshev, base, before, current, sums[task, label, :order])


@fast
def series(p, low, high, chebyshev, base, before, current, sums):
    """Add what some pixels give to the sums of their row; three pieces of scratch memory, as long as p."""
    size = len(p)
    for i in range(size):
        x = np.float64(p[i]) if (p[i] > low) & (p[i] <= high) else 0.0
        current[i] = x
        base[i] = 4 * x - 2 if chebyshev else x
        # So that the first step gives x times half of the base.
        before[i] = (2 * x - 1) * x if chebyshev else 0.0
    share = 1.0 if chebyshev else 0.0
    for k in range(len(sums)):
        total = 0.0
        for i in range(size):
            total += current[i]
            following = base[i] * current[i] - share * before[i]
            before[i] = current[i]
            current[i] = following
        sums[k] += total
