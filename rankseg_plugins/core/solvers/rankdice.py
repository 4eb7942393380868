"""RankDice: expected Dice with an approximate distribution of the number Z of foreground pixels.

For the mask of the n most probable pixels, with g = ``smooth``:

    TRNA:  sum over its pixels j of 2 p_j E[1 / (n + 1 + g + Z_-j)]  +  g E[1 / (n + g + Z)]
    BA:    2 s E[1 / (n + 1 + g + Z)]  +  g E[1 / (n + g + Z)]

Z_-j is the count without pixel j. TRNA ("truncated refined normal approximation") takes every Z_-j from
a refined normal distribution and sums over the central ``1 - eps`` of Z; BA
("blind approximation") does not tell Z_-j from Z, which matters little where Z has a large deviation. ``BA+TRNA`` uses
BA where that deviation is above 5 and TRNA elsewhere.

Source: Dai & Li, "RankSEG", JMLR 24:224 (2023), equations (9), (12) and (13).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.ground.threads import run
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.solvers.expectation import make_expectation
from rankseg_plugins.core.solvers.pieces import Bound, Mask, groups, nothing, pieces, room
from rankseg_plugins.core.solvers.window import find_window
from rankseg_plugins.core.values import Values
from rankseg_plugins.core.volumes import Volumes, round_down

SOLVERS = ("BA", "TRNA", "BA+TRNA")

#: "BA+TRNA": the largest deviation of Z at which TRNA is used (Cohen's d of one pixel, 1 / deviation, at least 0.2).
_TRNA_DEVIATION = 5.0

#: Pixels that one call of a kernel works on, at least.
_CALL = 1 << 8


def search_rankdice(
    values: Values, maximum: Tensor, volumes: Volumes, objective: Objective, solver: str, eps: float
) -> Volumes:
    """Find the volume of largest approximate expected Dice for every image and class.

    Args:
        values: the probabilities.
        maximum: (B, C), the largest one of every image and class.
        volumes: what RMA finds, of at least one active class.
        objective: Dice.
        solver: one of ``SOLVERS``.
        eps: probability of the counts that are left out of the sums, in (0, 1).
    """
    device, volumes, maximum = volumes.mu.device, volumes.to("cpu"), maximum.cpu()
    mu, active = volumes.mu, volumes.active
    zero = torch.zeros_like(mu)
    three = torch.full_like(active, 3, dtype=torch.int64)
    square, cube = values.power_sums(active, zero, zero + 1, three).unbind(-1)[1:]
    moments = torch.stack([mu, (mu - square).clamp(min=0), mu - 3 * square + 2 * cube])
    # The bound holds for the exact distribution; a third of a percent allows for the approximate one.
    score = objective.score(volumes.s, volumes.n, mu) * (1 - 1 / 300)
    low, high = find_window(values, active, maximum, mu, moments[1], score, make_expectation(objective))
    best = _best(values, active, low, high, moments, objective.smooth, solver, eps)
    threshold = round_down(best.threshold, values.dtype).masked_fill(~active, torch.inf)
    return Volumes(threshold, best.n, best.s, mu, active).to(device)


def _best(
    values: Values, active: Tensor, low: Bound, high: Bound, moments: Tensor, smooth: float, solver: str, eps: float
) -> Mask:
    """The best masks between two bounds, or empty ones."""
    from rankseg_plugins.core.kernels.cpu.solvers import shares

    kinds, most = _kinds(moments[1], solver), room(values, active)
    # Where every pixel has shares of its own, those of the smallest mask are added up like the others.
    start = nothing(low.n).where(kinds == shares.OWN, high)
    sums = values.chebyshev_sums(active & (kinds == shares.INTERPOLATED), high.threshold, shares.NODES)
    best = Mask(*(torch.zeros_like(low.n) for _ in range(4)))
    for rows in groups(active, low.n - start.n, most):
        found = _start(rows, start, high, kinds, moments, sums, smooth, eps, values.shape[2])
        _over_rows(shares.prepare, found, size=_CALL * len(rows))
        for piece in pieces(values, rows, low, start, most):
            if len(piece.values):
                _over_rows(shares.advance, found, *piece, size=len(piece.values))
        best.put(rows, found.best)
    return best


def _kinds(variance: Tensor, solver: str) -> Tensor:
    """Which shares serve every image and class, (B, C) int64."""
    from rankseg_plugins.core.kernels.cpu.solvers import shares

    least = {"BA": 0.0, "TRNA": math.inf, "BA+TRNA": _TRNA_DEVIATION}[solver]
    kinds = torch.where(variance < 1, shares.OWN, shares.INTERPOLATED)
    return kinds.masked_fill(variance.clamp(min=1e-300).sqrt() > least, shares.BLIND)


def _start(
    rows: np.ndarray,
    start: Bound,
    high: Bound,
    kinds: Tensor,
    moments: Tensor,
    sums: Tensor,
    smooth: float,
    eps: float,
    pixels: int,
) -> Any:
    """Tables for some rows, which begin with the masks of ``start``."""
    from rankseg_plugins.core.kernels.cpu.solvers import shares

    own, kind = np.ascontiguousarray(moments.flatten(1).numpy()[:, rows]), kinds.flatten().numpy()[rows]
    first, last = np.empty((2, len(rows)))
    run(lambda *part: shares.find_intervals(*part, own, eps, float(pixels), first, last), len(rows), _CALL)
    widths = (last - first).astype(np.int64) + 1
    threshold, n, s = (part.copy() for part in start.at(rows))
    summed = np.zeros((len(rows), max(shares.NODES, widths[kind == shares.OWN].max(initial=0))))
    summed[kind == shares.BLIND, 0] = s[kind == shares.BLIND]
    there = kind == shares.INTERPOLATED
    summed[there, : shares.NODES] = shares.of_sums(sums.flatten(0, 1).numpy()[rows[there]])
    best = np.stack([threshold, n, s, np.zeros(len(rows))])
    return shares.Ranked(float(smooth), kind, own, first, widths, summed, n, s, high.at(rows)[1], best)


def _over_rows(kernel: Any, found: Any, *arguments: Any, size: int) -> None:
    from rankseg_plugins.core.kernels.cpu.solvers.shares import NODES

    number, most = len(found.n), max(NODES, int(found.widths.max()))
    run(
        lambda *part: kernel(*part, found, *arguments, np.empty((NODES, most)), np.empty((NODES + 4, most))),
        number,
        max(1, number * _CALL // size),
    )
