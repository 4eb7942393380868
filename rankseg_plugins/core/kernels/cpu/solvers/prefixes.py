"""Exact expected Dice and IoU of every prefix of a ranking, row by row; see ``rankseg_plugins.core.solvers.exact``.

Written for numba, and runs without it, in many times the time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, fast, kernel

#: Points of the Gauss-Legendre rule in each panel, and the end of the first panel in units of 1 / (largest rate).
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(16)
_FIRST, _GROWTH = 16.0, 4.0
#: Pixels until the products are worked out anew, so that rounding does not build up, and the least product: where it is
#: less, nothing is left of the integrand.
_STEPS, _TINY = 32, 1e-300


class Ranked(NamedTuple):
    """A rows: what their masks are scored by, and the best one so far.

    Args:
        dice: the score, or IoU.
        smooth: its constant.
        nodes: (A,) number of nodes of the quadrature, of at most N.
        u: (A, N) nodes.
        weights: (A, N).
        log_total: (A, N) logarithm of the product over all pixels.
        inside: (A, N) what the pixels of the mask add: ``sum p / (1 - p t)``, for IoU ``sum log(1 - p t)``.
        n: (A,) count of the mask.
        s: (A,) sum.
        best: (4, A) threshold, count, sum and score.
    """

    dice: bool
    smooth: float
    nodes: np.ndarray
    u: np.ndarray
    weights: np.ndarray
    log_total: np.ndarray
    inside: np.ndarray
    n: np.ndarray
    s: np.ndarray
    best: np.ndarray


@exact
def rule(fastest, reach, u, weights):
    """Nodes and weights with ``sum(w exp(-r u)) = 1 / r`` for all rates r of a range; returns their number.

    Panels of growing length: the first resolves the fastest exponential, the last reaches the end of the slowest, in
    units of the length of the fastest. The relative error is below 1e-12.
    """
    start, end, number = 0.0, _FIRST, 0
    while True:
        half, middle = (end - start) / 2, (end + start) / 2
        for i in range(len(POINTS)):
            u[number + i] = (half * POINTS[i] + middle) / fastest
            weights[number + i] = half * WEIGHTS[i] / fastest
        number += len(POINTS)
        if end >= reach:
            return number
        start, end = end, end * _GROWTH


def most_nodes(reach: float) -> int:
    """Number of nodes of a ``rule`` that reaches so far."""
    return len(POINTS) * (2 + max(0, math.ceil(math.log(reach / _FIRST) / math.log(_GROWTH))))


@exact
def log_product(power_sums, t):
    """``sum_j log(1 - p_j t)`` from power sums (K,), ``power_sums[k - 1] = sum_j p_j^k``."""
    total = 0.0
    for k in range(len(power_sums), 0, -1):
        total = (total - power_sums[k - 1] / k) * t
    return total


@exact
def odds_sum(power_sums, t):
    """``sum_j p_j / (1 - p_j t)`` from power sums (K,)."""
    total = 0.0
    for k in range(len(power_sums), 0, -1):
        total = total * t + power_sums[k - 1]
    return total


@exact
def add_logs(pixels, x, product, logs):
    """Add ``sum log(1 - p + p x)`` over some pixels to ``logs``; ``product`` is 1 before and after."""
    for first in range(0, len(pixels), _STEPS // 4):
        for p in pixels[first : first + _STEPS // 4]:
            multiply(np.float64(p), x, product)
        add_log(product, logs)


@exact
def add_log(product, logs):
    """Add the logarithm, and make the product 1."""
    for i in range(len(logs)):
        logs[i] += math.log(max(product[i], _TINY))
        product[i] = 1.0


@exact
def add_logs_of(p, times, x, logs):
    """Add ``times`` times ``log(1 - p + p x)``."""
    rest = 1 - p
    for i in range(len(x)):
        logs[i] += times * math.log(rest + p * x[i])


@exact
def fill_x(u, x):
    """``exp(-u)``."""
    for i in range(len(u)):
        x[i] = math.exp(-u[i])


@exact
def multiply(p, x, product):
    """Multiply by ``1 - p + p x``."""
    rest = 1 - p
    for i in range(len(x)):
        product[i] *= rest + p * x[i]


@exact
def add_odds(p, times, x, odds):
    """Add ``times`` times ``p / (1 - p + p x)``."""
    rest = 1 - p
    for i in range(len(x)):
        odds[i] += times * p / (rest + p * x[i])


@exact
def leave(p, x, product, decay):
    """A pixel moves from outside into the mask: its factor leaves the product."""
    rest = 1 - p
    for i in range(len(x)):
        factor = rest + p * x[i]
        product[i] *= factor
        decay[i] *= x[i] / factor


@fast
def total(values):
    """Sum."""
    s = 0.0
    for i in range(len(values)):
        s += values[i]
    return s


@fast
def total_odds(decay, x, odds, smooth):
    """``sum decay (2 x odds + smooth)``."""
    s = 0.0
    for i in range(len(x)):
        s += decay[i] * (2 * x[i] * odds[i] + smooth)
    return s


@kernel
def prepare(first, last, rows, fastest, reach, orders, rest, base, out, out_ends, within, within_ends, space):
    """Set up rows with the mask of their upper bound, and score it.

    Args:
        first: row.
        last: row, not included.
        rows: those that are set up; ``n``, ``s`` and the threshold of the best mask are given.
        fastest: (A,) largest rate of the integrands.
        reach: (A,) length of the slowest, in units of that of the fastest.
        orders: (A,) power sums that are needed.
        rest: (A, order) power sums of the small pixels outside of the mask.
        base: (A, order) those of the small pixels inside.
        out: the large pixels outside, row after row.
        out_ends: (A + 1,) where the rows begin.
        within: the large pixels inside.
        within_ends: (A + 1,) likewise.
        space: (4, N), is overwritten.
    """
    product, nowhere, log_nobody = space[2], space[3, :1], space[3, 1:2]
    nowhere[0] = 0.0
    for i in range(len(product)):
        product[i] = 1.0
    for row in range(first, last):
        nodes = rule(fastest[row], reach[row], rows.u[row], rows.weights[row])
        rows.nodes[row] = nodes
        u, x, decay = rows.u[row, :nodes], space[0, :nodes], space[1, :nodes]
        fill_x(u, x)
        logs, inside = rows.log_total[row, :nodes], rows.inside[row, :nodes]
        outer, inner = rest[row, : orders[row]], base[row, : orders[row]]
        others, own = out[out_ends[row] : out_ends[row + 1]], within[within_ends[row] : within_ends[row + 1]]
        for i in range(nodes):
            t = -math.expm1(-u[i])
            inside[i] = log_product(inner, t)
            logs[i] = log_product(outer, t) + inside[i]
            if rows.dice:
                inside[i] = odds_sum(inner, t)
        add_logs(others, x, product[:nodes], logs)
        add_logs(own, x, product[:nodes], logs)
        if rows.dice:
            for p in own:
                add_odds(np.float64(p), 1, x, inside)
        else:
            add_logs(own, x, product[:nodes], inside)
        n, s = rows.n[row], rows.s[row]
        if n > 0:
            restart(rows, row, n, decay)
            score = score_of(rows, s, x, inside, decay)
        elif rows.smooth > 0:
            # P(Z = 0) apart, whose exponent may be tiny.
            log_nobody[0] = log_product(outer, 1.0) + log_product(inner, 1.0)
            add_logs(others, nowhere, product[:1], log_nobody)
            nobody, score = math.exp(log_nobody[0]), 0.0
            for i in range(nodes):
                score += rows.weights[row, i] * math.exp(-rows.smooth * u[i]) * (math.exp(logs[i]) - nobody)
            score = nobody + rows.smooth * score
        else:
            score = 0.0
        rows.best[1, row], rows.best[2, row], rows.best[3, row] = n, s, score


@exact
def restart(rows, row, n, decay):
    """The integrand of a mask of n pixels, but for what it is multiplied with."""
    for i in range(len(decay)):
        logs = rows.log_total[row, i] if rows.dice else rows.log_total[row, i] - rows.inside[row, i]
        decay[i] = rows.weights[row, i] * math.exp(logs - (n + rows.smooth) * rows.u[row, i])


@exact
def score_of(rows, s, x, inside, decay):
    """Exact expected score of a mask of sum s."""
    return total_odds(decay, x, inside, rows.smooth) if rows.dice else (s + rows.smooth) * total(decay)


@kernel
def advance(first, last, rows, values, ends, times, floor, space):
    """Let the masks grow by ranked pixels: see ``Piece`` in ``rankseg_plugins.core.solvers.pieces``.

    A run of equal probabilities is taken as a whole or not at all; of equal scores the smaller mask is the better.
    ``space`` (4, N) is overwritten.
    """
    for i in range(space.shape[1]):
        space[2, i] = 1.0
    for row in range(first, last):
        nodes, n, s = rows.nodes[row], rows.n[row], rows.s[row]
        x, decay, product = space[0, :nodes], space[1, :nodes], space[2, :nodes]
        inside = rows.inside[row, :nodes]
        fill_x(rows.u[row, :nodes], x)
        left, at = 0, ends[row + 1] - 1
        while at >= ends[row]:
            value, run = values[at], 1
            while at - run >= ends[row] and values[at - run] == value:
                run += 1
            at -= run
            p, number = np.float64(value), run * times
            following = np.float64(values[at]) if at >= ends[row] else floor[row]
            n, s = n + number, s + number * p
            one = number == 1 and left > 0
            if rows.dice:
                add_odds(p, number, x, inside)
                if one:
                    for i in range(nodes):
                        decay[i] *= x[i]
            elif one:
                leave(p, x, product, decay)
            else:
                add_log(product, inside)
                add_logs_of(p, number, x, inside)
            left -= 1
            if not one:
                restart(rows, row, n, decay)
                left = _STEPS
            score = score_of(rows, s, x, inside, decay)
            if score > rows.best[3, row]:
                rows.best[0, row], rows.best[1, row], rows.best[2, row], rows.best[3, row] = following, n, s, score
        if not rows.dice:
            add_log(product, inside)
        rows.n[row], rows.s[row] = n, s
