"""Passes over the pixels of every row, which is a class of an image: survey, collect, and what they found in groups."""

from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.bounds import above, between, highest_bits, keep_between
from rankseg_plugins.core.kernels.cpu.ground.compiling import kernel
from rankseg_plugins.core.kernels.cpu.ground.reading import (
    NORMALIZE,
    SOFTMAX,
    as_bits,
    as_float,
    clamp,
    copy,
    normalizers,
    probs_at,
    read_normalizers,
)

#: Where the survey counts and sums up: no threshold lies above the first, and those of classes that are nowhere likely
#: lie about the second.
CUTS = (0.5, 0.125)

#: What is known of every row, in a table (B, C).
#:
#: - mu: sum of the probabilities.
#: - is_open: whether its threshold is still looked for.
#: - least: a threshold that the best one is known to reach.
#: - low: lower bound of the threshold, or as good as one.
#: - high: upper bound; every pixel above it belongs to the mask.
#: - n: count of the mask, of a row that is no longer open.
#: - s: sum of it.
#: - threshold: what its pixels lie above; infinity where a class is not active.
ROW = np.dtype(
    [*((name, np.float64) for name in ("mu", "least", "low", "high", "n", "s", "threshold")), ("is_open", np.bool_)],
    align=True,
)


@kernel
def survey(first, last, source, making, plan, sample, places, begins, mu, upper, peaks, odd, space):
    """Per task and class: sum of the probabilities; count and sum of those above 1/2, and above 1/8.

    Per chunk: the largest probability. Of each row: the probabilities at ``places``, of which those in a chunk begin
    at ``begins``. Per task: how many values are no probabilities, and in how many pieces some lie a little outside of
    [0, 1]. ``space`` (6, width) is overwritten.
    """
    top, inverse, row, one = space[0], space[1], space[2], as_bits(space.dtype.type(1))
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start = chunk * plan.width
            size = min(plan.width, source.form.pixels - start)
            t, v = top[:size], inverse[:size]
            if making is not None and (source.form.activation == SOFTMAX or source.form.activation == NORMALIZE):
                read_normalizers(source, making, image, start, row, t, v)
                if making.norms.size:
                    one_row = v if source.form.activation == NORMALIZE else t
                    copy(one_row, making.norms[0, image, start : start + size])
                    if len(making.norms) == 2:
                        copy(v, making.norms[1, image, start : start + size])
            for label in range(source.form.classes):
                p = probs_at(source, making, image, label, start, t, v, row[:size])
                highest = highest_bits(p)
                if highest > one:
                    copy(p, row[:size])
                    p = row[:size]
                    odd[task, 0] += clamp(p)
                    odd[task, 1] += 1
                    highest = highest_bits(p)
                peak = as_float(highest)
                peaks[image, label, chunk] = peak
                total = 0.0
                for i in range(size):
                    total += p[i]
                mu[task, label] += total
                for cut in range(len(CUTS)):
                    if peak > CUTS[cut]:
                        count, sum_ = above(p, CUTS[cut])
                        upper[task, label, cut, 0] += count
                        upper[task, label, cut, 1] += sum_
                for i in range(begins[chunk], begins[chunk + 1]):
                    sample[image, label, i] = p[places[i] - start]


@kernel
def collect(first, last, source, making, plan, rows, peaks, values, labels, found, counts, sums, space):
    """Per task: the values between the bounds of open rows, and the classes that they are of, as far as there is room.

    Args:
        first: task.
        last: task, not included.
        source: the probabilities.
        making: what makes them, or None.
        plan: how they are cut.
        rows: what is known of them.
        peaks: (B, C, chunks), largest probability of each chunk.
        values: (tasks, room), what is found.
        labels: (tasks, room), likewise.
        found: (tasks,), number of them.
        counts: (tasks, C, 3), number above the upper bound, between the bounds, and between them without room.
        sums: (tasks, C, 2), sum above the upper bound, and between the bounds.
        space: (6, width), is overwritten.
    """
    top, inverse, row, room = space[0], space[1], space[2], values.shape[1]
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.form.pixels - start)
            t, v = top[:size], inverse[:size]
            for label in range(source.form.classes):
                low, high = space.dtype.type(rows[image, label].low), space.dtype.type(rows[image, label].high)
                if not (rows[image, label].is_open and peaks[image, label, chunk] > low):
                    continue
                if not known:
                    normalizers(source, making, image, start, row, t, v)
                    known = True
                p = probs_at(source, making, image, label, start, t, v, row[:size])
                if peaks[image, label, chunk] > high:
                    upper, s = above(p, high)
                    counts[task, label, 0] += upper
                    sums[task, label, 0] += s
                begin, number, total = found[task], 0, 0.0
                if begin + size > room:
                    number, total = between(p, low, high)
                if begin + size <= room or begin + number < room:
                    end = keep_between(p, low, high, values[task], begin)
                    for i in range(begin, end):
                        labels[task, i] = label
                    found[task] = end
                    counts[task, label, 1] += end - begin
                    for i in range(begin, end):
                        sums[task, label, 1] += values[task, i]
                else:
                    counts[task, label, 1] += number
                    counts[task, label, 2] += number
                    sums[task, label, 1] += total


@kernel
def group(first, last, plan, values, labels, found, places, grouped):
    """Values of each image row by row: ``places`` (B, C) says where each begins, and then where it ends."""
    for image in range(first, last):
        for task in range(image * plan.tasks, (image + 1) * plan.tasks):
            for i in range(found[task]):
                label = labels[task, i]
                grouped[places[image, label]] = values[task, i]
                places[image, label] += 1
