"""From the masks of all rows to the decision: choose, settle; or select, for masks that may overlap."""

# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.compiling import fast
from rankseg_plugins.core.kernels.cpu.reading import load, load_some, normalizers
from rankseg_plugins.core.kernels.cpu.scores import gain_of

#: What stands for a pixel that no class, or several classes selected, until it is settled.
NOBODY, SEVERAL = -1, -2


@fast
def select(first, last, source, plan, rows, masks, like):
    """The masks (B, C, pixels) themselves."""
    top, inverse = np.empty(plan.width, like.dtype), np.empty(plan.width, like.dtype)
    row = np.empty(plan.width, like.dtype)
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known = chunk * plan.width, False
            size = min(plan.width, source.pixels - start)
            t, v, p = top[:size], inverse[:size], row[:size]
            for label in range(source.classes):
                into = masks[image, label, start : start + size]
                like[0] = rows.threshold[image, label]
                threshold = like[0]
                if not rows.peaks[image, label, chunk] > threshold:
                    into[:] = False
                    continue
                if not known:
                    normalizers(source, image, start, row, t, v)
                    known = True
                load(source, image, label, start, t, v, p)
                for i in range(size):
                    into[i] = p[i] > threshold


@fast
def choose(first, last, source, plan, rows, labels, disputed, shared_n, shared_s, like):
    """Label the pixels that one class selected; the others are :data:`NOBODY`'s, or :data:`SEVERAL` classes'.

    Args:
        source: the probabilities.
        plan: how they are cut.
        rows: the masks.
        first: task.
        last: task, not included.
        labels: (B, pixels).
        disputed: (B, chunks), number of the pixels that are left.
        shared_n: (tasks, C), number of the pixels that a class shares with others.
        shared_s: (tasks, C), sum of them.
        like: (1,) in the precision of the probabilities.
    """
    top, inverse = np.empty(plan.width, like.dtype), np.empty(plan.width, like.dtype)
    row, bounds = np.empty(plan.width, like.dtype), np.empty(source.classes, like.dtype)
    number, owner = np.empty(plan.width, np.int32), np.empty(plan.width, np.int32)
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        for label in range(source.classes):
            bounds[label] = rows.threshold[image, label]
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            start, known, reaching = chunk * plan.width, False, 0
            size = min(plan.width, source.pixels - start)
            t, v, p, count, chosen = top[:size], inverse[:size], row[:size], number[:size], owner[:size]
            count[:] = 0
            chosen[:] = 0
            for label in range(source.classes):
                bound = bounds[label]
                if rows.peaks[image, label, chunk] > bound:
                    if not known:
                        normalizers(source, image, start, row, t, v)
                        known = True
                    reaching += 1
                    load(source, image, label, start, t, v, p)
                    for i in range(size):
                        count[i] += p[i] > bound
                        chosen[i] = label if p[i] > bound else chosen[i]
            if source.valid.size:
                valid = source.valid[start + (image * source.pixels if source.per_image else 0) :]
                for i in range(size):
                    count[i] = count[i] if valid[i] else 1
            into, left, several = labels[image, start : start + size], 0, 0
            for i in range(size):
                left += count[i] != 1
                several += count[i] > 1
                into[i] = chosen[i] if count[i] == 1 else (NOBODY if count[i] == 0 else SEVERAL)
            disputed[image, chunk] = left
            if not several:
                continue
            for label in range(source.classes):
                bound = bounds[label]
                if rows.peaks[image, label, chunk] > bound:
                    load(source, image, label, start, t, v, p)
                    n, s = 0, 0.0
                    for i in range(size):
                        n += (p[i] > bound) & (count[i] > 1)
                        s += p[i] if (p[i] > bound) & (count[i] > 1) else 0
                    shared_n[task, label] += n
                    shared_s[task, label] += s


@fast
def settle(first, last, source, plan, rows, goal, labels, disputed, competes, void, void_index, like):
    """Give the pixels that are left to the class that gains most: of those that selected it, or of all that compete.

    A pixel without any probability is labelled 0, as by argmax.

    Args:
        source: the probabilities.
        plan: how they are cut.
        rows: the masks; ``n`` and ``s`` without the pixels that a class shares with others.
        goal: what is maximised.
        first: task.
        last: task, not included.
        labels: (B, pixels), see :func:`choose`.
        disputed: (B, chunks), likewise.
        competes: (B, C) bool, classes that may take a pixel that nobody selected.
        void: whether such a pixel is labelled ``void_index`` instead.
        void_index: any label.
        like: (1,) in the precision of the probabilities.
    """
    top, inverse = np.empty(plan.width, like.dtype), np.empty(plan.width, like.dtype)
    t, v = np.empty(plan.width, like.dtype), np.empty(plan.width, like.dtype)
    row, peak = np.empty(plan.width, like.dtype), np.empty(plan.width, like.dtype)
    place, winner = np.empty(plan.width, np.int64), np.empty(plan.width, np.int64)
    best, nobody = np.empty(plan.width, np.float64), np.empty(plan.width, np.bool_)
    bounds = np.empty(source.classes, like.dtype)
    for task in range(first, last):
        image, part = task // plan.tasks, task % plan.tasks
        every = competes[image].all()
        for label in range(source.classes):
            bounds[label] = rows.threshold[image, label]
        for chunk in range(part * plan.share, min((part + 1) * plan.share, plan.chunks)):
            if disputed[image, chunk] == 0:
                continue
            start = chunk * plan.width
            size = min(plan.width, source.pixels - start)
            into, number = labels[image, start : start + size], 0
            for i in range(size):
                if into[i] == SEVERAL or (into[i] == NOBODY and not void):
                    place[number], nobody[number] = i, into[i] == NOBODY
                    number += 1
                elif into[i] == NOBODY:
                    into[i] = void_index
            normalizers(source, image, start, row, top[:size], inverse[:size])
            for k in range(number):
                t[k], v[k] = top[place[k]], inverse[place[k]]
                best[k], winner[k], peak[k] = -np.inf, 0, 0
            for label in range(source.classes):
                if not competes[image, label]:
                    continue
                p, bound = row[:number], bounds[label]
                load_some(source, image, label, start, place[:number], t, v, p)
                n, s, mu = rows.n[image, label], rows.s[image, label], rows.mu[image, label]
                for k in range(number):
                    gain = gain_of(np.float64(p[k]), s, n, mu, goal.dice, goal.smooth)
                    gain = gain if nobody[k] | (p[k] > bound) else -np.inf
                    winner[k] = label if gain > best[k] else winner[k]
                    best[k] = max(gain, best[k])
                    peak[k] = max(p[k], peak[k])
            bare = 0
            for k in range(number):
                bare += peak[k] == 0
            if bare and not every:
                for label in range(source.classes):
                    if not competes[image, label]:
                        load_some(source, image, label, start, place[:number], t, v, row[:number])
                        for k in range(number):
                            peak[k] = max(row[k], peak[k])
            for k in range(number):
                into[place[k]] = winner[k] if peak[k] > 0 else 0
