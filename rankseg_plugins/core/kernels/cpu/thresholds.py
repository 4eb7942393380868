"""The threshold of every row: guessed from a sample, then found exactly among the few pixels between the bounds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.bounds import above
from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, fast, kernel
from rankseg_plugins.core.kernels.cpu.ground.reading import normalizers, probs_at
from rankseg_plugins.core.kernels.cpu.rows import CUTS
from rankseg_plugins.core.kernels.cpu.scores import ceiling_of, margin, round_down, smooth_score, threshold_of

#: Bounds that are guessed lie so many standard deviations apart from the guess.
_DEVIATIONS = 3.0


class Goal(NamedTuple):
    """What is maximised: ``dice`` or IoU, with the constant ``smooth``."""

    dice: bool
    smooth: float


@kernel
def guess(first, last, rows, goal, pixels, sample, upper, space):
    """Bounds of the threshold of open rows, from a sample of their pixels; they nearly always hold.

    With count and sum of the sample, Dinkelbach's iteration finds a threshold that is off by their sampling error.
    ``upper`` (B, C, cuts, 2) is what the survey counted; ``space``, as long as a sample, is overwritten.
    """
    classes, size = sample.shape[1:]
    for row in range(first, last):
        image, label = row // classes, row % classes
        known = rows[image, label]
        if not known.is_open:
            continue
        mu, values, scale = known.mu, sample[image, label], pixels / size
        ceiling, least = ceiling_of(mu, goal.dice, goal.smooth), threshold_of(mu, pixels, mu, goal.dice, goal.smooth)
        for cut in range(len(CUTS)):
            # Any mask gives a lower bound; where it is below the mask's own threshold, the best one is, too.
            n, s = upper[image, label, cut, 0], upper[image, label, cut, 1]
            raised = threshold_of(s, n, mu, goal.dice, goal.smooth)
            least = max(least, raised, CUTS[cut] if raised >= CUTS[cut] else 0.0)
            if raised < CUTS[cut]:
                ceiling = min(ceiling, _with_margin(CUTS[cut], mu, goal))
        # What lies above 1/2 is known; the sample stands for the rest.
        n, s = upper[image, label, 0, 0], upper[image, label, 0, 1]
        below, number = space, 0
        for i in range(size):
            below[number] = values[i]
            number += values[i] <= CUTS[0]
        below = below[:number]
        bound, size_there, going = least, n, True
        while going:
            count, total = above(below, bound)
            size_there = n + scale * count
            raised = threshold_of(s + scale * total, size_there, mu, goal.dice, goal.smooth)
            going = raised > bound * (1 + 1e-6)
            bound = max(raised, bound)
        # One pixel that the sample missed, and as uncertain as can be, keeps the error of few pixels from 0.
        square = (0.5 - bound) ** 2
        for i in range(number):
            square += (below[i] - bound) ** 2 if below[i] > bound else 0
        reach = _DEVIATIONS * scale * math.sqrt(square) / (size_there + mu) + 1e-6
        low, high = max(least, bound - reach), min(ceiling, _with_margin(bound + reach, mu, goal))
        known.least, known.low, known.high = least, round_down(low, sample), round_down(high, sample)


@exact
def _with_margin(bound, mu, goal):
    """Above this no pixel is left out, if the threshold of the ratio is not above the bound."""
    return bound + margin(mu, goal.smooth) if goal.dice and goal.smooth > 0 else bound


@kernel
def finish(first, last, rows, goal, counts, sums, ends, grouped):
    """Find the threshold of open rows from what was collected, or closer bounds where it is not between the bounds.

    Args:
        first: row.
        last: row, not included.
        rows: what is known of them.
        goal: what is maximised.
        counts: (B, C, 3), see ``rankseg_plugins.core.kernels.cpu.rows.collect``.
        sums: (B, C, 2), likewise.
        ends: (B, C), where the values of a row end.
        grouped: values, row by row.
    """
    classes = counts.shape[1]
    for row in range(first, last):
        image, label = row // classes, row % classes
        known = rows[image, label]
        if not known.is_open:
            continue
        mu, low, high = known.mu, known.low, known.high
        n, inside, lost = counts[image, label, 0], counts[image, label, 1], counts[image, label, 2]
        s, m = sums[image, label, 0], sums[image, label, 1]
        upper = threshold_of(s, n, mu, goal.dice, goal.smooth)
        lower = threshold_of(s + m, n + inside, mu, goal.dice, goal.smooth)
        ceiling = ceiling_of(mu, goal.dice, goal.smooth)
        least = max(known.least, upper, lower)
        if round_down(upper, grouped) > high and high < round_down(ceiling, grouped):
            low, high = least, ceiling
        elif lower < low and low > known.least:
            high, low = _with_margin(low, mu, goal), least
        elif not lost:
            here = grouped[ends[image, label] - inside : ends[image, label]]
            known.threshold, known.n, known.s = solve(here, here, n, s, low, high, mu, goal)
            known.is_open = False
            continue
        elif (not goal.dice or goal.smooth == 0) and round_down(least, grouped) <= low:
            # All that lies between the bounds belongs to the mask.
            known.threshold, known.n, known.s, known.is_open = low, n + inside, s + m, False
            continue
        else:
            high = min(high, _with_margin(_chord(n, s, n + inside, s + m, low, high, mu, goal), mu, goal))
            low = least
        known.least, known.low, known.high = least, round_down(low, grouped), round_down(max(low, high), grouped)


@exact
def _chord(n, s, all_n, all_s, low, high, mu, goal):
    """An upper bound of the threshold from the masks at two bounds.

    ``max over masks of s - x (n + size)`` falls with x and is convex: it is 0 before the chord between two points is.
    """
    share = goal.smooth / 2 if goal.dice else goal.smooth
    size = mu + 1 + goal.smooth if goal.dice else mu + 2 * goal.smooth
    at_low, at_high = all_s + share - low * (all_n + size), s + share - high * (n + size)
    if at_low <= at_high:
        return high
    return (low + (high - low) * at_low / (at_low - at_high)) * (1 + 1e-9) + 1e-12


@exact
def sort_falling(values):
    """Sort in place, by a heap: numpy's function would take a second to compile."""
    size = len(values)
    for first in range(size // 2 - 1, -1, -1):
        _sift(values, first, size)
    for end in range(size - 1, 0, -1):
        values[0], values[end] = values[end], values[0]
        _sift(values, np.int64(0), end)  # a plain 0 would be compiled for anew


@exact
def _sift(values, at, size):
    """Move a value down a heap whose parents are not larger than their children."""
    moved = values[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and values[child + 1] < values[child]:
            child += 1
        if values[child] >= moved:
            break
        values[at] = values[child]
        at = child
    values[at] = moved


@fast
def solve(values, space, n, s, low, high, mu, goal):
    """Threshold, count and sum of the best mask, from the values between two bounds and the mask above them.

    Of a ratio by Dinkelbach's iteration. Smoothed Dice may leave out the least probable pixels of that mask: these
    are ranked, and a run of equal values is taken as a whole or not at all. ``space`` is overwritten; it is as long as
    the values, and may be their own.
    """
    bound, count, total, going = low, 0, 0.0, True
    while going:
        count, total = above(values, bound)
        raised = threshold_of(s + total, n + count, mu, goal.dice, goal.smooth)
        going = raised > bound
        bound = max(raised, bound)
    if not (goal.dice and goal.smooth > 0):
        return round_down(bound, values), n + count, s + total
    top = min(high, bound + margin(n + mu, goal.smooth))
    upper, upper_sum = above(values, top)
    n, s = n + upper, s + upper_sum
    number = 0
    for i in range(len(values)):
        if values[i] > bound and values[i] <= top:
            space[number] = values[i]
            number += 1
    ranked = space[:number]
    sort_falling(ranked)
    threshold = float(ranked[0]) if len(ranked) else top
    best, best_n, best_s = smooth_score(s, n, mu, goal.smooth), n, s
    for i in range(len(ranked)):
        n, s = n + 1, s + ranked[i]
        following = float(ranked[i + 1]) if i + 1 < len(ranked) else bound
        if following != ranked[i]:
            score = smooth_score(s, n, mu, goal.smooth)
            if score > best:
                best, best_n, best_s, threshold = score, n, s, following
    return round_down(threshold, values), best_n, best_s


@kernel
def finish_small(first, last, source, making, plan, rows, goal, space):
    """Find the threshold of every open row of small images, which are one chunk each.

    ``space`` (6, width) is overwritten.
    """
    size, start = plan.width, np.int64(0)  # a plain 0 would be compiled for anew
    top, inverse, row, ranked = space[0], space[1], space[2], space[3]
    for image in range(first, last):
        ready = False
        for label in range(source.form.classes):
            known = rows[image, label]
            if not known.is_open:
                continue
            if not ready:
                normalizers(source, making, image, start, row, top, inverse)
                ready = True
            values = probs_at(source, making, image, label, start, top, inverse, row)
            low = threshold_of(known.mu, size, known.mu, goal.dice, goal.smooth)
            known.threshold, known.n, known.s = solve(values, ranked, 0, 0.0, low, 1.0, known.mu, goal)
            known.is_open = False
