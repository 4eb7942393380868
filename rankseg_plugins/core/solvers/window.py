"""The interval of volumes in which the best mask by expected score lies, found without sorting.

With Z the number of foreground pixels, ``E[1 / (a + Z)] <= 1 / (a + mu) + var / (a (a + mu)^2)``. This bounds the
expected score of every mask by a ratio of linear functions of its count n and sum s, times a factor that falls with
n. Where the ratio stays below a score that is known to be reached, the mask is ruled out; along the ranking of the
pixels what remains is one interval, whose ends are found by bisection of the threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg_plugins.core.solvers.expectation import Expectation
from rankseg_plugins.core.solvers.pieces import Bound, nothing
from rankseg_plugins.core.values import Values

#: Rounds of bisection; they end early when the pixels in the window are few, at least and as a share.
_ROUNDS, _FEW, _SHARE = 12, 1 << 12, 128


def find_window(
    values: Values,
    active: Tensor,
    maximum: Tensor,
    mu: Tensor,
    variance: Tensor,
    score: Tensor,
    expectation: Expectation,
) -> tuple[Bound, Bound]:
    """The largest and the smallest mask between which every mask of an exact score of at least ``score`` lies.

    The empty mask is left out of this: at ``smooth > 0`` its score follows no ranking.

    Args:
        values: the probabilities.
        active: (B, C) bool, the classes that matter.
        maximum: (B, C) largest probability.
        mu: (B, C) mean of the number Z of foreground pixels.
        variance: (B, C) of it.
        score: (B, C) score that is known to be reached.
        expectation: Dice or IoU.
    """
    x = expectation.smallest_volume(score, mu, variance)
    # A little less than the bound, for the rounding of counts and sums.
    level = score / (1 + expectation.slack(x, mu, variance)) * (1 - 1e-6)
    zero = torch.zeros_like(mu)
    low, high = Bound(zero, *values.count_above(active, zero)), nothing(mu)
    # The most probable pixels are often many and equal, so that no bisection would part them from the empty mask.
    peak = maximum.to(values.dtype)
    peak = torch.nextafter(peak, torch.zeros_like(peak)).double()
    below_peak = Bound(peak, *values.count_above(active, peak))
    high = below_peak.where(expectation.excess(zero, zero, mu, level) < 0, high)
    inside_low = inside_high = expectation.peak(level)
    few = max(_FEW, int(active.sum()) * values.shape[2] // _SHARE)

    def tightened(bound: Bound, inside: Tensor) -> tuple[Bound, Tensor]:
        """Halve the way from the bound to a threshold inside the window; return the new bound and threshold inside."""
        threshold = (bound.threshold + inside) / 2
        middle = Bound(threshold, *values.count_above(active, threshold))
        ruled_out = expectation.excess(middle.s, middle.n, mu, level) < 0
        return middle.where(ruled_out, bound), torch.where(ruled_out, inside, threshold)

    for _ in range(_ROUNDS):
        if ((low.n - high.n) * active).sum() <= few:
            break
        low, inside_low = tightened(low, inside_low)
        high, inside_high = tightened(high, inside_high)
    return low, high
