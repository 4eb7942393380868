"""Which classes to show, for the best expected score of what is scored.

For an image and a class let q be the probability that the truth holds it, and D the expected score of its mask, which
is 0 where the truth is empty. What the score counts decides which classes pay:

* classes of truth or prediction count, absent ones are skipped (``present="union"``, ``absent="skip"``): the expected
  score of an image is V, the sum of D over the classes I that are taken, times E[1 / (|I| + Z)] with Z the number of
  the others that the truth holds. A class that is taken and not there lowers the mean of all others. An image where
  nothing is taken and nothing is there has no score: taking the best set pays where V > prod(1 - q) M, with M the mean
  score over the images, which is learnt. At class level images take the place of the classes, M is the mean of the
  class over the images, and taking it pays where D > (1 - q) M.
* only classes of the truth count (``present="label"``), or an absent class counts as 0: a class that is not there costs
  nothing, and all are taken.
* an absent class counts as 1 (``"union"``, ``"one"``): taking a class pays where D > 1 - q.

The reciprocal moment is an integral of a polynomial, E[1 / (a + Z)] = integral of x^(a - 1) prod (1 - q + q x) over
0 < x < 1, which Gauss nodes give exactly.

At the level of the data set, Dice and IoU pool the pixels of all images. A mask of n pixels of which E[I] are right
raises a pooled IoU of J iff E[I] / (n - E[I]) > J, that is q > J / (1 + J) divided by the precision that the mask has
where the class is there: a threshold on q.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.tracing import is_blind

#: Of Dinkelbach's iteration, which gives no more than a good beginning; of images there are more than of classes.
_ROUNDS, _ROUNDS_OF_IMAGES = 8, 50
#: Changes of the set in a graph that cannot look whether there is a better one; mostly there is none or one.
_BLIND_CHANGES = 8

#: Gauss-Legendre nodes on (0, 1) and their weights.
Nodes = tuple[tuple[float, ...], tuple[float, ...]]


def gauss(classes: int) -> Nodes:
    """Nodes that are exact for every polynomial of so many classes.

    Example:
        >>> gauss(1)
        ((0.5,), (1.0,))
    """
    # Degree C at most; a rule of K nodes is exact up to degree 2 K - 1.
    x, weight = np.polynomial.legendre.leggauss(classes // 2 + 1)
    return tuple(((x + 1) / 2).tolist()), tuple((weight / 2).tolist())


def best_set(expected: Tensor, q: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor]:
    """The classes of the largest expected image score where truth or prediction count and absent ones are skipped.

    From Dinkelbach's set for the ratio of the expectations, one class after the other joins or leaves as long as that
    raises the exact expectation.

    Args:
        expected: D of the module, (B, C) float64.
        q: (B, C) float64.
        nodes: of C classes, see :func:`gauss`.

    Returns:
        (B, C) bool, at least one class in each image; and V of these sets, (B,).

    Source: Dinkelbach, "On nonlinear fractional programming", Management Science 13 (1967), for the first set.
    """
    chosen = _first_set(expected, q, _ROUNDS)
    values = _Values(q, nodes)
    value, flipped = values.of(chosen, expected)
    for _ in range(_BLIND_CHANGES if is_blind() else 4 * q.shape[1]):  # every change raises V: no set comes twice
        best, label = flipped.max(1)
        better = best > value * (1 + 1e-12)
        if not is_blind() and not better.any():
            break
        chosen = chosen.scatter(1, label[:, None], chosen.gather(1, label[:, None]) ^ better[:, None])
        value, flipped = values.of(chosen, expected)
    return chosen, value


def mean_image_score(expected: Tensor, q: Tensor, there: Tensor, nodes: Nodes) -> Tensor:
    """M of the module, (1,): the mean score of the images that have one, where some show nothing.

    Where no image holds anything, nothing is worth showing: 1.

    Args:
        expected: (N, C) float64, of N images.
        q: (N, C) float64.
        there: (N, C) bool.
        nodes: of C classes.
    """
    if not there.any():
        return torch.ones_like(q[:1, 0])
    _, value = best_set(expected, q, nodes)
    nothing = (1 - q).prod(1)
    mean = torch.zeros_like(value[:1])
    for _ in range(_ROUNDS_OF_IMAGES):
        shown = value > nothing * mean
        number = torch.where(shown, torch.ones_like(nothing), 1 - nothing).sum()
        following = (value * shown).sum() / number.clamp(min=torch.finfo(number.dtype).tiny)
        if (following - mean).abs() < 1e-12:
            break
        mean = following.view(1)
    return mean


def mean_scores(expected: Tensor, q: Tensor, there: Tensor) -> Tensor:
    """M of the module, (C,): the mean score of every class over the images where it is taken or there.

    A class that no image holds is not worth taking anywhere: 1.

    Args:
        expected: (N, C) float64, of N images.
        q: (N, C) float64.
        there: (N, C) bool.
    """
    expected, q = expected.T, q.T
    chosen = _first_set(expected, q, _ROUNDS_OF_IMAGES)
    return _ratio(chosen, expected, q).squeeze(1).where(there.any(0), torch.ones_like(q[:, 0]))


def _first_set(expected: Tensor, q: Tensor, rounds: int) -> Tensor:
    top = expected == expected.amax(1, keepdim=True)
    chosen = (q > 0.5) | top
    for _ in range(rounds):
        following = (expected > (1 - q) * _ratio(chosen, expected, q)) | top
        if not is_blind() and torch.equal(following, chosen):
            break
        chosen = following
    return chosen


def _ratio(chosen: Tensor, expected: Tensor, q: Tensor) -> Tensor:
    return (expected * chosen).sum(1, keepdim=True) / torch.where(chosen, torch.ones_like(q), q).sum(1, keepdim=True)


class _Values:
    """Expected scores of sets of classes."""

    def __init__(self, q: Tensor, nodes: Nodes) -> None:
        self.x, self.weight = (torch.tensor(each, dtype=q.dtype, device=q.device) for each in nodes)
        #: (B, C, K), what a class contributes that is not taken.
        self.factor = 1 - q.unsqueeze(-1) + q.unsqueeze(-1) * self.x

    def of(self, chosen: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        """The expected score (B,) of a set, and (B, C) of those in which one class has changed sides."""
        number = chosen.sum(1)
        product = torch.where(chosen.unsqueeze(-1), torch.ones_like(self.factor), self.factor).prod(1)
        weighted = self.weight * product * self.x ** (number - 1).unsqueeze(-1)
        total = (expected * chosen).sum(1)
        joined = (weighted.unsqueeze(1) * self.x / self.factor).sum(-1) * (total.unsqueeze(1) + expected)
        left = (weighted.unsqueeze(1) * self.factor / self.x).sum(-1) * (total.unsqueeze(1) - expected)
        # The last class stays: without any the image may have no score.
        left = left.masked_fill((number == 1).unsqueeze(1), -torch.inf)
        return weighted.sum(-1) * total, torch.where(chosen, left, joined)
