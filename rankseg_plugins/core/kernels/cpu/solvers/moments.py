"""One look at the probabilities of all rows, a row being a class of an image: counts, sums, and pixels picked out."""

from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.bounds import between, keep_between
from rankseg_plugins.core.kernels.cpu.ground.compiling import fast, kernel
from rankseg_plugins.core.kernels.cpu.ground.reading import copy, normalizers, probs_at

#: Pixels whose powers are added up at a time: three rows of float64 stay in the nearest cache.
BLOCK = 512


@kernel
def look(first, last, source, making, plan, peaks, low, high, orders, chebyshev, counts, sums, values, space, powers):
    """Look at the pixels with ``low < p <= high``, in one of three ways.

    Per task and row, as in ``rankseg_plugins.core.kernels.cpu.rows``: what is added up over the tasks in order is the
    same for every number of threads.

    Args:
        first: task.
        last: task, not included.
        source: the probabilities.
        making: what makes them, or None.
        plan: how they are cut.
        peaks: (B, C, chunks), largest probability of every chunk.
        low: (B, C), in the precision of the probabilities; infinity where a row takes no part.
        high: (B, C), likewise.
        orders: (B, C), how many sums are wanted; where it is 0, count and sum.
        chebyshev: which sums; see ``series``.
        counts: (tasks, C), rises by the number of pixels.
        sums: (tasks, C, most), rises by their sums.
        values: where the pixels are written to, from ``counts`` on; if it is empty, they are not.
        space: (4, width + 1), is overwritten.
        powers: (3, ``BLOCK``), likewise.
    """
    top, inverse, row, kept = space[0], space[1], space[2], space[3]
    base, before, current = powers[0], powers[1], powers[2]
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.form.pixels - start)
            for label in range(source.form.classes):
                least, most = low[image, label], high[image, label]
                if not (peaks[image, label, chunk] > least and most > least):
                    continue
                if not known:
                    normalizers(source, making, image, start, row, top[:size], inverse[:size])
                    known = True
                p = probs_at(source, making, image, label, start, top[:size], inverse[:size], row[:size])
                if values.size:
                    number, to = keep_between(p, least, most, kept, 0), counts[task, label]
                    copy(kept, values[to : to + number])
                    counts[task, label] += number
                elif orders[image, label] == 0:
                    number, total = between(p, least, most)
                    counts[task, label] += number
                    sums[task, label, 0] += total
                else:
                    for begin in range(0, size, BLOCK):
                        block, into = p[begin : begin + BLOCK], sums[task, label, : orders[image, label]]
                        series(block, least, most, chebyshev, base, before, current, into)


@fast
def series(p, low, high, chebyshev, base, before, current, sums):
    """Add sums of p, p^2, ... of the pixels with ``low < p <= high``; or of p T_k(2 p - 1), k = 0, 1, ...

    T_k are Chebyshev's polynomials; ``base``, ``before`` and ``current`` are scratch memory, at least as long as p.
    """
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
