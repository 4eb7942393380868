"""BA and TRNA row by row: see ``rankseg_plugins.core.solvers.rankdice``.

What the pixels of a mask add to its expected Dice: with Z_-j the number of foreground pixels without pixel j,

    p_j P(Z_-j = z) = sum over m of share[j, m] kernel[m, z],

where the kernel has few rows m: the shares of a mask's pixels are added up before the sum over z is taken.

The distributions are refined normal ones, approximations of the count of independent unequal coin flips:

    P(Z <= k) is about G((k + 1/2 - mean) / scale),    G(x) = Phi(x) + skew (1 - x^2) phi(x) / 6

Source: Volkova, "A refinement of the central limit theorem for sums of independent random indicators", Theory of
Probability and its Applications 40 (1996), as used by Dai & Li, "RankSEG", JMLR 24:224 (2023).

Written for numba, and runs without it, in many times the time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, fast, kernel

#: Kinds of shares. BA: the distribution of Z serves for every pixel; one share, the probability itself.
BLIND = 0
#: TRNA where Z has a variance below 1: the interval of counts is short, and every pixel gets its own distribution.
OWN = 1
#: TRNA elsewhere: the distribution without a pixel is smooth in its probability. The polynomial through its values at
#: some points gives it to more than 9 digits.
INTERPOLATED = 2

#: Points at which a smooth function is computed; between them it is the polynomial through them.
NODES = 24
_ANGLES = (2 * np.arange(NODES) + 1) * math.pi / (2 * NODES)
POINTS = (1 + np.cos(_ANGLES)) / 2
_SIGNED = np.sin(_ANGLES) * (-1.0) ** np.arange(NODES)

#: A count without variance is nearly certain; the floor keeps the formulas finite.
_LEAST_VARIANCE = float(np.finfo(np.float32).eps)
#: Scores that differ relatively by less are equal, but for rounding: the smaller mask is the better one.
_TIE = 4e-15


class Ranked(NamedTuple):
    """A rows: the distributions of their numbers Z of foreground pixels, and the best mask so far.

    Args:
        smooth: the constant of the score.
        kinds: (A,) int64, kind of shares.
        moments: (3, A) mean, variance and third central moment of Z.
        first: (A,) the first count of an interval that holds nearly all of the distribution.
        widths: (A,) int64, number of counts.
        shares: (A, M) summed shares of the pixels of the mask.
        n: (A,) count of the mask.
        s: (A,) sum.
        least: (A,) count from which on masks are scored.
        best: (4, A) threshold, count, sum and score.
    """

    smooth: float
    kinds: np.ndarray
    moments: np.ndarray
    first: np.ndarray
    widths: np.ndarray
    shares: np.ndarray
    n: np.ndarray
    s: np.ndarray
    least: np.ndarray
    best: np.ndarray


def of_sums(sums: np.ndarray) -> np.ndarray:
    """Interpolated shares (A, NODES) of masks, from the sums (A, NODES) of ``p T_k(2 p - 1)`` over their pixels."""
    # Lagrange's polynomials of Chebyshev's points are made up of Chebyshev's polynomials.
    scale = np.full(NODES, 2 / NODES)
    scale[0] /= 2
    shares: np.ndarray = (sums * scale) @ np.cos(np.arange(NODES)[:, np.newaxis] * _ANGLES)
    return shares


@exact
def standard_cdf(x, skew):
    """G(x), in [0, 1]."""
    density = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    value = math.erfc(-x / math.sqrt(2.0)) / 2 + skew * (1 - x * x) * density / 6
    return min(max(value, 0.0), 1.0)


@exact
def fill_pmf(mean, variance, third, first, pmf):
    """P(Z = z) of neighbouring counts from ``first`` on, of these alone."""
    variance = max(variance, _LEAST_VARIANCE)
    scale, skew, total = math.sqrt(variance), third / variance**1.5, 0.0
    before = standard_cdf((first - 0.5 - mean) / scale, skew)
    for z in range(len(pmf)):
        below = standard_cdf((first + z + 0.5 - mean) / scale, skew)
        pmf[z] = max(below - before, 0.0)
        total += pmf[z]
        before = below
    for z in range(len(pmf)):
        pmf[z] = pmf[z] / total


@exact
def fill_pmf_without(p, mean, variance, third, first, pmf):
    """P(Z_-j = z), where pixel j has the probability p."""
    spread = p * (1 - p)
    fill_pmf(mean - p, variance - spread, third - spread * (1 - 2 * p), first, pmf)


@exact
def quantile(probability, skew):
    """Where G reaches a probability."""
    low, high = -40.0, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        if standard_cdf(middle, skew) < probability:
            low = middle
        else:
            high = middle
    return high


@kernel
def find_intervals(start, stop, moments, eps, largest, first, last):
    """Counts, first and last (A,), between which all but about ``eps`` of the probability lies.

    Args:
        start: row.
        stop: row, not included.
        moments: (3, A) mean, variance and third central moment.
        eps: in (0, 1); half of it is left out on each side.
        largest: number of pixels.
        first: (A,), written to.
        last: (A,), likewise.
    """
    for row in range(start, stop):
        mean, variance = moments[0, row], max(moments[1, row], _LEAST_VARIANCE)
        scale, skew = math.sqrt(variance), moments[2, row] / variance**1.5
        low, high = quantile(eps / 2, skew), quantile(1 - eps / 2, skew)
        first[row] = min(max(math.floor(mean + scale * low) - 1.0, 0.0), largest)
        last[row] = min(max(float(math.ceil(mean + scale * high)), 0.0), largest)


@exact
def interpolate(x, into):
    """Lagrange's polynomials of the points at x in [0, 1], in barycentric form."""
    total = 0.0
    for i in range(NODES):
        distance = x - POINTS[i]
        if distance == 0:
            for k in range(NODES):
                into[k] = 1.0 if k == i else 0.0
            return
        into[i] = _SIGNED[i] / distance
        total += into[i]
    for i in range(NODES):
        into[i] /= total


@fast
def dot(a, b):
    """Sum of products."""
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@fast
def mean_reciprocal(a, pmf):
    """``sum_z pmf[z] / (a + z)``."""
    total = 0.0
    for z in range(len(pmf)):
        total += pmf[z] / (a + z)
    return total


@fast
def combine(weights, matrix, shares):
    """``weights @ matrix @ shares``."""
    total = 0.0
    for i in range(len(weights)):
        row, part = matrix[i], 0.0
        for m in range(len(shares)):
            part += row[m] * shares[m]
        total += weights[i] * part
    return total


@exact
def fill_kernel(rows, row, kernel):
    """(M, W), in a larger table; returns M. The shares of single pixels need none, and get what the blind ones get."""
    width = rows.widths[row]
    mean, variance, third = rows.moments[0, row], rows.moments[1, row], rows.moments[2, row]
    if rows.kinds[row] != INTERPOLATED:
        fill_pmf(mean, variance, third, rows.first[row], kernel[0, :width])
        return 1
    for m in range(NODES):
        fill_pmf_without(POINTS[m], mean, variance, third, rows.first[row], kernel[m, :width])
    return NODES


@exact
def fill_own_pmf(rows, row, pmf):
    """P(Z = z), (W,)."""
    fill_pmf(rows.moments[0, row], rows.moments[1, row], rows.moments[2, row], rows.first[row], pmf)


@exact
def grow(rows, row, p, times, scratch):
    """Let the mask grow by some pixels of probability p."""
    add_share(rows, row, p, times, scratch)
    rows.n[row] += times
    rows.s[row] += times * p


@exact
def add_share(rows, row, p, times, scratch):
    """Add the shares of some pixels with probability p to those of the mask."""
    kind, shares = rows.kinds[row], rows.shares[row]
    if kind == BLIND:
        shares[0] += times * p
        return
    size = NODES if kind == INTERPOLATED else rows.widths[row]
    if kind == INTERPOLATED:
        interpolate(p, scratch[:NODES])
    else:
        mean, variance, third = rows.moments[0, row], rows.moments[1, row], rows.moments[2, row]
        fill_pmf_without(p, mean, variance, third, rows.first[row], scratch[:size])
    for m in range(size):
        shares[m] += times * p * scratch[m]


@exact
def score_alone(rows, row, number, kernel, pmf):
    """Score of the mask by itself; ``number`` is that of the rows of its kernel."""
    a, kind = rows.n[row] + 1 + rows.smooth + rows.first[row], rows.kinds[row]
    if kind == OWN:
        taken = mean_reciprocal(a, rows.shares[row, : rows.widths[row]])
    else:
        taken = 0.0
        for m in range(number):
            taken += rows.shares[row, m] * mean_reciprocal(a, kernel[m, : len(pmf)])
    return 2 * taken + (rows.smooth * mean_reciprocal(a - 1, pmf) if rows.smooth > 0 else 0.0)


@exact
def take_better(rows, row, threshold, score):
    """Keep the mask if it is better than the best one."""
    if score > rows.best[3, row] * (1 + _TIE):
        rows.best[0, row], rows.best[1, row], rows.best[2, row] = threshold, rows.n[row], rows.s[row]
        rows.best[3, row] = score


@kernel
def prepare(first, last, rows, kernel, space):
    """Score the masks that rows begin with, and the empty ones, which are better where they score the same.

    ``kernel`` (NODES, most) and ``space`` (NODES + 4, most) are overwritten; ``most`` is at least W, and NODES.
    """
    for row in range(first, last):
        number, pmf = fill_kernel(rows, row, kernel), space[0, : rows.widths[row]]
        fill_own_pmf(rows, row, pmf)
        score = score_alone(rows, row, number, kernel, pmf)
        rows.best[1, row], rows.best[2, row], rows.best[3, row] = rows.n[row], rows.s[row], score
        if rows.smooth > 0:
            empty = rows.smooth * mean_reciprocal(rows.first[row] + rows.smooth, pmf)
            if not score > empty * (1 + _TIE):
                rows.best[0, row], rows.best[1, row], rows.best[2, row], rows.best[3, row] = np.inf, 0.0, 0.0, empty


@kernel
def advance(first, last, rows, values, ends, times, floor, kernel, space):
    """Let the masks grow by ranked pixels: see ``Piece`` in ``rankseg_plugins.core.solvers.pieces``.

    ``kernel`` and ``space`` are those of ``prepare``.
    """
    scratch, weights, others, table = space[1], space[2, :NODES], space[3, :NODES], space[4:]
    for row in range(first, last):
        number, pmf, at = fill_kernel(rows, row, kernel), space[0, : rows.widths[row]], ends[row + 1] - 1
        fill_own_pmf(rows, row, pmf)
        for i in range(NODES):
            others[i] = 0.0
        if times > 1:
            grow(rows, row, np.float64(values[at]), times, scratch)
            take_better(rows, row, floor[row], score_alone(rows, row, number, kernel, pmf))
            continue
        while at >= ends[row]:
            # The denominator grows to twice its size at most, so that few points give its reciprocal to 1e-15.
            start = rows.n[row] + 2 + rows.smooth + rows.first[row]
            length = min(at - ends[row] + 1, max(NODES, int(start)))
            alone = rows.kinds[row] == OWN or length <= NODES
            for i in range(0 if alone else NODES):
                a = start + (length - 1) * POINTS[i]
                for m in range(number):
                    table[i, m] = mean_reciprocal(a, kernel[m, : len(pmf)])
                if rows.smooth > 0:
                    others[i] = mean_reciprocal(a - 1, pmf)
            for j in range(length):
                p = np.float64(values[at])
                at -= 1
                following = np.float64(values[at]) if at >= ends[row] else floor[row]
                grow(rows, row, p, 1, scratch)
                # Equal probabilities are taken together or not at all.
                if following == p or rows.n[row] < rows.least[row]:
                    continue
                if alone:
                    score = score_alone(rows, row, number, kernel, pmf)
                else:
                    interpolate(j / (length - 1), weights)
                    score = 2 * combine(weights, table, rows.shares[row, :number])
                    score += rows.smooth * dot(weights, others)
                take_better(rows, row, following, score)
