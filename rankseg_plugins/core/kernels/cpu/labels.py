"""From the masks of all rows to the decision: choose, settle; or select, for masks that may overlap."""

from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, kernel
from rankseg_plugins.core.kernels.cpu.ground.reading import normalizers, probs_at, probs_of

#: What stands for a pixel that no class, or several classes selected, until it is settled.
NOBODY, SEVERAL = -1, -2
#: More than the index of any class; as many of these as there are classes add up to a number of 32 bits, see
#: ``rankseg_plugins.core.paths``.
ONE = 1 << 16


@kernel
def select(first, last, source, making, plan, rows, peaks, masks, space):
    """The masks (B, C, pixels) themselves; ``space`` (6, width) is overwritten."""
    top, inverse, row = space[0], space[1], space[2]
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.form.pixels - start)
            t, v = top[:size], inverse[:size]
            for label in range(source.form.classes):
                into = masks[image, label, start : start + size]
                threshold = space.dtype.type(rows[image, label].threshold)
                if not peaks[image, label, chunk] > threshold:
                    for i in range(size):
                        into[i] = False
                    continue
                if not known:
                    normalizers(source, making, image, start, row, t, v)
                    known = True
                p = probs_at(source, making, image, label, start, t, v, row[:size])
                for i in range(size):
                    into[i] = p[i] > threshold


@kernel
def choose(first, last, source, making, plan, rows, peaks, labels, disputed, shared, codes, space):
    """Label the pixels that one class selected; the others are ``NOBODY``'s, or ``SEVERAL`` classes'.

    Args:
        first: task.
        last: task, not included.
        source: the probabilities.
        making: what makes them, or None.
        plan: how they are cut.
        rows: the masks.
        peaks: (B, C, chunks), largest probability of each chunk.
        labels: (B, pixels).
        disputed: (B, chunks), number of the pixels that are left.
        shared: (tasks, C, 2), count and sum of the pixels that a class shares with others.
        codes: (width,) int32, is overwritten.
        space: (6, width), likewise.
    """
    top, inverse, row = space[0], space[1], space[2]
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.form.pixels - start)
            t, v, code = top[:size], inverse[:size], codes[:size]
            # A pixel adds up one code per class that selected it: from the sum, a single class reads off its own index.
            for i in range(size):
                code[i] = 0
            for label in range(source.form.classes):
                bound = space.dtype.type(rows[image, label].threshold)
                if peaks[image, label, chunk] > bound:
                    if not known:
                        normalizers(source, making, image, start, row, t, v)
                        known = True
                    p = probs_at(source, making, image, label, start, t, v, row[:size])
                    one = np.int32(ONE + label)
                    for i in range(size):
                        code[i] += one if p[i] > bound else 0
            if making is not None and making.valid.size:
                valid = making.valid[start + (image * source.form.pixels if source.form.per_image else 0) :]
                for i in range(size):
                    code[i] = code[i] if valid[i] else ONE
            into, nobody, several = labels[image, start : start + size], 0, 0
            for i in range(size):
                nobody += code[i] < ONE
                several += code[i] >= 2 * ONE
                into[i] = NOBODY if code[i] < ONE else (SEVERAL if code[i] >= 2 * ONE else code[i] - ONE)
            disputed[image, chunk] = nobody + several
            if not several:
                continue
            for label in range(source.form.classes):
                bound = space.dtype.type(rows[image, label].threshold)
                if peaks[image, label, chunk] > bound:
                    p = probs_at(source, making, image, label, start, t, v, row[:size])
                    n, s = 0, 0.0
                    for i in range(size):
                        n += (p[i] > bound) & (code[i] >= 2 * ONE)
                        s += p[i] if (p[i] > bound) & (code[i] >= 2 * ONE) else 0
                    shared[task, label, 0] += n
                    shared[task, label, 1] += s


@kernel
def settle(
    first,
    last,
    source,
    making,
    plan,
    rows,
    goal,
    labels,
    disputed,
    competes,
    void,
    void_index,
    best,
    places,
    nobody,
    space,
):
    """Give the pixels that are left to the class that gains most: of those that selected it, or of all that compete.

    A pixel without any probability is labelled 0, as by argmax.

    Args:
        first: task.
        last: task, not included.
        source: the probabilities.
        making: what makes them, or None.
        plan: how they are cut.
        rows: the masks; ``n`` and ``s`` without the pixels that a class shares with others.
        goal: what is maximised.
        labels: (B, pixels), see ``choose``.
        disputed: (B, chunks), likewise.
        competes: (B, C) bool, classes that may take a pixel that nobody selected.
        void: whether such a pixel is labelled ``void_index`` instead.
        void_index: any label.
        best: (width,) float64, is overwritten.
        places: (2, width) int64, likewise.
        nobody: (width,) bool, likewise.
        space: (6, width), likewise.
    """
    top, inverse, row, t, v, peak = space[0], space[1], space[2], space[3], space[4], space[5]
    place, winner = places[0], places[1]
    for task in range(first, last):
        image, part, every = task // plan.tasks, task % plan.tasks, True
        for label in range(source.form.classes):
            every &= competes[image, label]
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            if disputed[image, chunk] == 0:
                continue
            start = chunk * plan.width
            size = min(plan.width, source.form.pixels - start)
            into, number = labels[image, start : start + size], 0
            for i in range(size):
                if into[i] == NOBODY and void:
                    into[i] = void_index
                elif into[i] < 0:
                    place[number], nobody[number] = i, into[i] == NOBODY
                    number += 1
            normalizers(source, making, image, start, row, top[:size], inverse[:size])
            # Most of the pixels: all of them are read, which costs less than to pick them out.
            some = 4 * number < size
            if not some:
                for k in range(number - 1, -1, -1):
                    nobody[place[k]] = nobody[k]
            count = number if some else size
            for k in range(number if some else 0):
                t[k], v[k] = top[place[k]], inverse[place[k]]
            for k in range(count):
                best[k], winner[k], peak[k] = -np.inf, 0, 0
            for label in range(source.form.classes):
                if not competes[image, label]:
                    continue
                p = row[:count]
                if some:
                    probs_of(source, making, image, label, start, place[:number], t, v, p)
                else:
                    p = probs_at(source, making, image, label, start, top[:size], inverse[:size], p)
                bound = space.dtype.type(rows[image, label].threshold)
                take(p, label, bound, gains(rows[image, label], goal), goal.dice, nobody, best, winner, peak)
            bare = 0
            for k in range(count):
                bare += peak[k] == 0
            if bare and not every:
                for label in range(source.form.classes):
                    if not competes[image, label]:
                        p = probs_at(source, making, image, label, start, top[:size], inverse[:size], row[:size])
                        for k in range(count):
                            peak[k] = max(p[place[k] if some else k], peak[k])
            for k in range(number):
                at = k if some else place[k]
                into[place[k]] = winner[at] if peak[at] > 0 else 0


@exact
def gains(row, goal):
    """What the gain of a pixel that joins the mask of a row is made of: see ``take``."""
    m, t, mu = row.s, row.n, row.mu
    if goal.dice:
        d = t + mu + 1 + goal.smooth
        loss = 0.0 if goal.smooth == 0 else goal.smooth / d / (t + mu + goal.smooth)
        return m / d, 2 / (d + 1), loss
    u = t + mu - m + goal.smooth
    return (m + goal.smooth) / u if u != 0 else 0.0, u + 1, 0.0


@exact
def take(p, label, bound, parts, dice, nobody, best, winner, peak):
    """Give pixels to a class that gains more by them than those before it, where it selected them or nobody did.

    The gain is that of ``rankseg_plugins.core.objectives``, with ``parts`` from ``gains``.
    """
    level, scale, loss = parts
    for k in range(len(p)):
        x = np.float64(p[k])
        peak[k] = p[k] if p[k] > peak[k] else peak[k]
        if dice:
            gain = (x - level) * scale - loss
        else:
            size = scale - x
            gain = (x - level * (1 - x)) / (size if size != 0 else 1.0)
        gain = gain if nobody[k] | (p[k] > bound) else -np.inf
        winner[k] = label if gain > best[k] else winner[k]
        best[k] = gain if gain > best[k] else best[k]
