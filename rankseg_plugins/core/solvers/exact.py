"""The best mask by exact expected Dice or IoU, and the exact expected score of any given mask.

The best mask of each volume is the top of the ranking, and few volumes need to be scored: RMA's best score is a lower
bound of the exact optimum (Jensen), and ``rankseg_plugins.core.solvers.window`` rules out what cannot reach it.

A run of equal probabilities is taken as a whole or not at all. No volume inside a run was ever found to score more than
both its ends; the tests compare with every mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.ground.threads import run
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.solvers.expectation import REACH, ExactDice, Expectation, Rates, make_expectation, rates_of
from rankseg_plugins.core.solvers.pieces import Bound, Mask, groups, nothing, pieces, ranked, room
from rankseg_plugins.core.solvers.window import find_window
from rankseg_plugins.core.values import JoinedValues, Values
from rankseg_plugins.core.volumes import Volumes, round_down

#: Of a row, its tables of nodes take about the memory of so many ranked pixels.
_ROW = 256
#: Pixels that one call of a kernel works on, at least.
_CALL = 1 << 10


def search_exact(values: Values, maximum: Tensor, volumes: Volumes, objective: Objective) -> Volumes:
    """Find the volume of largest exact expected score for every image and class.

    Args:
        values: the probabilities.
        maximum: (B, C), the largest one of every image and class.
        volumes: what RMA finds, of at least one active class.
        objective: Dice or IoU.
    """
    device, volumes, maximum = volumes.mu.device, volumes.to("cpu"), maximum.cpu()
    mu, active, expectation = volumes.mu, volumes.active, make_expectation(objective)
    moments = mean, variance = _moments(values, active)
    lower = objective.score(volumes.s, volumes.n, mu)
    low, high = find_window(values, active, maximum, mu, variance, lower, expectation)
    search = _Search(values, moments, maximum, expectation)
    best = search.best(active, low, high)
    # The window is one of masks that hold a pixel. The empty one may be better, and far away from it.
    apart = active & (high.n > 0) & _empty_may_win(lower, mean, variance, expectation.smooth)
    if apart.any():
        empty = nothing(mu)
        apart &= search.best(apart, empty, empty).score >= best.score
    kept = active & ~apart
    threshold = round_down(best.threshold, values.dtype).masked_fill(~kept, torch.inf)
    return Volumes(threshold, best.n * kept, best.s * kept, mu, active).to(device)


class _Search:
    """What stays the same for all masks.

    Args:
        values: the probabilities.
        moments: (B, C), mean and variance of the number of foreground pixels.
        maximum: (B, C), largest probability.
        expectation: Dice or IoU.
    """

    def __init__(
        self, values: Values, moments: tuple[Tensor, Tensor], maximum: Tensor, expectation: Expectation
    ) -> None:
        self.values, self.moments, self.maximum, self.expectation = values, moments, maximum.double(), expectation

    def best(self, wanted: Tensor, low: Bound, high: Bound) -> Mask:
        """The best mask from the one at ``high`` to that at ``low``, of the wanted rows (B, C)."""
        from rankseg_plugins.core.kernels.cpu.solvers import prefixes

        values, most = self.values, room(self.values, wanted)
        rates = rates_of(low, high, *self.moments, self.maximum, self.expectation)
        ceiling = torch.maximum(high.threshold, rates.small)
        zero, one = torch.zeros_like(ceiling), torch.ones_like(ceiling)
        base = values.power_sums(wanted & (high.n > 0), high.threshold, rates.small, rates.orders)
        rest = values.power_sums(wanted, zero, torch.minimum(high.threshold, rates.small), rates.orders)
        large, _ = values.count_above(wanted & (rates.small < 1), rates.small)
        best = Mask(high.threshold.clone(), high.n.clone(), high.s.clone(), torch.full_like(zero, -torch.inf))
        for rows in groups(wanted, low.n - high.n + large + _ROW, most):
            found = _start(rows, high, rates, self.expectation)
            others = ranked(values, rows, rates.small, ceiling)
            own = ranked(values, rows, ceiling, one)
            _prepare(found, rows, rates, rest, base, others, own)
            for piece in pieces(values, rows, low, high, most):
                if len(piece.values):
                    _over_rows(prefixes.advance, found, *piece, size=len(piece.values))
            best.put(rows, found.best)
        return best


def _start(rows: np.ndarray, mask: Bound, rates: Rates, expectation: Expectation) -> Any:
    """Tables for some rows, which begin with a mask (B, C)."""
    from rankseg_plugins.core.kernels.cpu.solvers.prefixes import Ranked, most_nodes

    threshold, n, s = (part.copy() for part in mask.at(rows))
    nodes = most_nodes(REACH * float((rates.fastest / rates.slowest).flatten()[torch.from_numpy(rows)].max()))
    best = np.stack([threshold, n, s, np.full(len(rows), -np.inf)])
    number, (u, weights, log_total, inside) = np.zeros(len(rows), np.int64), np.zeros((4, len(rows), nodes))
    is_dice, smooth = isinstance(expectation, ExactDice), float(expectation.smooth)
    return Ranked(is_dice, smooth, number, u, weights, log_total, inside, n, s, best)


def _prepare(found: Any, rows: np.ndarray, rates: Rates, rest: Tensor, base: Tensor, others: Any, own: Any) -> None:
    """Score the masks of some rows.

    Args:
        found: the tables of these rows.
        rows: places in the tables (B, C).
        rates: of all rows.
        rest: (B, C, order) power sums of the small pixels outside.
        base: (B, C, order) those of the small pixels inside.
        others: the large pixels outside.
        own: the large pixels inside.
    """
    from rankseg_plugins.core.kernels.cpu.solvers import prefixes

    tables = (rates.fastest, REACH * rates.fastest / rates.slowest, rates.orders)
    order = max(rest.shape[2], base.shape[2])
    sums = (torch.nn.functional.pad(each, (0, order - each.shape[2])).flatten(0, 1) for each in (rest, base))
    arguments = [np.ascontiguousarray(each.numpy()[rows]) for each in (*(table.flatten() for table in tables), *sums)]
    size = len(others.values) + len(own.values) + _CALL * len(rows) // 16
    _over_rows(prefixes.prepare, found, *arguments, others.values, others.ends, own.values, own.ends, size=size)


def _over_rows(kernel: Any, found: Any, *arguments: Any, size: int) -> None:
    number = len(found.n)
    run(
        lambda *part: kernel(*part, found, *arguments, np.empty((4, found.u.shape[1]))),
        number,
        max(1, number * _CALL // size),
    )


def _moments(values: Values | JoinedValues, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the number of foreground pixels, in float64 throughout."""
    zero = torch.zeros_like(wanted, dtype=torch.float64)
    mean, square = values.power_sums(wanted, zero, zero + 1, torch.full_like(wanted, 2, dtype=torch.int64)).unbind(-1)
    return mean, (mean - square).clamp(min=0)


def _empty_may_win(score: Tensor, mu: Tensor, variance: Tensor, smooth: float) -> Tensor:
    """Where ``E[g / (g + Z)]`` can reach ``score``; (B, C) bool.

    It is at most ``g / (g + mu) + var / (g + mu)^2``, and at most ``P(Z = 0) + g / (g + 1)`` with P(Z = 0) <= exp(-mu).
    """
    if smooth == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    by_moments = smooth / (smooth + mu) + variance / (smooth + mu) ** 2
    return torch.minimum(by_moments, torch.exp(-mu) + smooth / (smooth + 1)) >= score * (1 - 1e-6)


def expected_scores(values: Values, masks: Tensor, valid: Tensor | None, objective: Objective) -> Tensor:
    """Exact expected score of given masks, (B, C) float64.

    Args:
        values: the probabilities.
        masks: (B, C, d) bool.
        valid: (B, d) bool, pixels where it is False belong to no mask; None if all are valid.
        objective: Dice or IoU.
    """
    scores, expectation = torch.from_numpy(np.zeros(masks.shape[:2])), make_expectation(objective)
    for label in range(masks.shape[1] if masks.numel() else 0):
        mask, others, n = _halves(masks[:, label], valid)
        inside, outside = (values.within(label, part) for part in (mask, others))
        scores[:, label] = _scores_of_masks(inside, outside, n, expectation)
    return scores


def expected_score_in_parts(parts: Sequence[tuple[Values, Callable[[], Tensor]]], objective: Objective) -> float:
    """As ``expected_scores``, of one mask whose pixels come in parts, of which one at a time is looked at.

    Sums and products over the pixels are those of the parts together, so it is the same to rounding.

    Args:
        parts: at least one; of each its probabilities (1, 1, d), and what gives its part (1, d) bool of the mask.
        objective: Dice or IoU.
    """

    def half(index: int) -> Iterator[Values]:
        return (values.within(0, _halves(mask(), None)[index]) for values, mask in parts)

    n = torch.stack([_halves(mask(), None)[2] for _, mask in parts]).sum(0)
    inside, outside = (JoinedValues(partial(half, index), parts[0][0].dtype) for index in range(2))
    return float(_scores_of_masks(inside, outside, n, make_expectation(objective)))


def _halves(mask: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels inside of masks (B, d), and those outside, both (B, d) bool, and the number (B, 1) of those inside."""
    if mask.device.type != "cpu":
        inside, outside = (mask, ~mask) if valid is None else (mask & valid, valid & ~mask)
        return inside, outside, inside.sum(1, keepdim=True).double().cpu()
    # In NumPy: PyTorch's threads would begin and wait for each other for little work.
    own, there = mask.numpy(), None if valid is None else valid.numpy()
    own, others = (own, ~own) if there is None else (own & there, there & ~own)
    return torch.from_numpy(own), torch.from_numpy(others), torch.from_numpy(own.sum(1, keepdims=True)).double()


def _scores_of_masks(
    inside: Values | JoinedValues, outside: Values | JoinedValues, n: Tensor, expectation: Expectation
) -> Tensor:
    """Of a single class: scores (B,) of masks, from the pixels inside, their number (B, 1), and those outside."""
    every, zero, one = torch.ones_like(n, dtype=torch.bool), torch.zeros_like(n), torch.ones_like(n)
    rows = np.arange(len(n))
    (s, inner), (rest_s, outer) = _moments(inside, every), _moments(outside, every)
    bound = Bound(one, n, s)
    rates = rates_of(bound, bound, s + rest_s, inner + outer, one, expectation)
    base, rest = (part.power_sums(every, zero, rates.small, rates.orders) for part in (inside, outside))
    large = (ranked(part, rows, rates.small, one) for part in (outside, inside))
    found = _start(rows, bound, rates, expectation)
    _prepare(found, rows, rates, rest, base, *large)
    return torch.from_numpy(found.best[3])
