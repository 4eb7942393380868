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

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.tables import Table, largest, library, like, may_look

#: The rule that asks what the score expects; a number is a threshold instead.
SCORE = "score"
LEVELS = ("image", "class")
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


class Rule(NamedTuple):
    """How the classes to show are chosen; see :class:`~rankseg_plugins.PresenceRankSEG` for the options.

    Args:
        rule: ``"score"`` or a threshold.
        present: option.
        absent: option.
        level: option.
        excluded: option.
        nodes: of the number of classes that are scored, see :func:`gauss`.
        fills: whether every pixel needs a label, and an image with that a class.
    """

    rule: str | float
    present: str
    absent: str
    level: str
    excluded: tuple[int, ...]
    nodes: Nodes
    fills: bool

    @property
    def asks_mean(self) -> bool:
        """Whether it makes a difference what images score besides, M of the module."""
        return self.rule == SCORE and (self.present, self.absent) == ("union", "skip")

    def refuse_without_effect(self) -> None:
        """Raise a ``ValueError`` for an option that makes no difference beside the others."""
        by_score = self.rule == SCORE
        unused = {
            "present": self.present != "union" and not by_score,
            "absent": self.absent != "skip" and not (by_score and self.present == "union"),
            "level": self.level != "image" and not self.asks_mean,
            "excluded": bool(self.excluded) and not by_score,
        }
        for name, refused in unused.items():
            if refused:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no effect with rule={self.rule!r}, present={self.present!r}, "
                    f"absent={self.absent!r}; leave it out"
                )

    def shown(self, q: Table, expected: Table | None, mean: Table, active: Table) -> Table:
        """The classes to show, (B, C) bool.

        Args:
            q: (B, C) float64.
            expected: D of the module, (B, C) float64; a threshold needs none.
            mean: M of the module, (C,) float64; NaN or negative where it is not known.
            active: (B, C) bool, the classes with a mask.
        """
        taken = q > self.rule if expected is None else self.taken(q, expected, mean)
        nothing = ~(taken & active).any(1, keepdims=True)
        if not self.fills or (may_look(q) and not nothing.any()):
            return taken
        worth = library(q).where(active, q if expected is None else expected, -1.0)
        return taken | (_is_largest(worth) & nothing)

    def taken(self, q: Table, expected: Table, mean: Table) -> Table:
        """Those that the score gains by, (B, C) bool; see :meth:`shown`."""
        if self.present == "label" or self.absent == "zero":
            return q >= 0
        if not self.excluded:
            return self.pays(q, expected, mean)
        taken, scored = q >= 0, [label for label in range(q.shape[1]) if label not in self.excluded]
        taken[:, scored] = self.pays(q[:, scored], expected[:, scored], mean[scored])
        return taken

    def pays(self, q: Table, expected: Table, mean: Table) -> Table:
        """Likewise, of classes that are all scored."""
        if self.absent == "one":
            return expected > 1 - q
        if self.level == "class":
            return expected > (1 - q) * mean
        pays, value = best_set(expected, q, self.nodes)
        # Where it is not known what other images score, each class that may be there is worth a try.
        known = library(mean).where(mean > 0, mean, 0.0)[0]
        return pays & (value > (1 - q).prod(1) * known)[:, None]


def best_set(expected: Table, q: Table, nodes: Nodes) -> tuple[Table, Table]:
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
    looks, values = may_look(q), _Values(expected, q, nodes)
    chosen = _first_set(expected, q, _ROUNDS)
    value, flipped = values.of(chosen)
    for _ in range(4 * q.shape[1] if looks else _BLIND_CHANGES):  # every change raises V: no set comes twice
        better = flipped > value * (1 + 1e-12)
        if looks and not better.any():
            break
        best = _is_largest(flipped)
        chosen = chosen ^ (better & best & (best.cumsum(1) == 1))
        value, flipped = values.of(chosen)
    return chosen, value[:, 0]


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


def _first_set(expected: Table, q: Table, rounds: int) -> Table:
    looks, top = may_look(q), _is_largest(expected)
    chosen = (q > 0.5) | top
    for _ in range(rounds):
        following = (expected > (1 - q) * _ratio(chosen, expected, q)) | top
        if looks and not (following ^ chosen).any():
            break
        chosen = following
    return chosen


def _ratio(chosen: Table, expected: Table, q: Table) -> Table:
    size = library(q).where(chosen, 1.0, q).sum(1, keepdims=True)
    return (expected * chosen).sum(1, keepdims=True) / size


def _is_largest(table: Table) -> Table:
    return table == largest(table)


class _Values:
    """Expected scores of sets of classes.

    Args:
        expected: (B, C).
        q: (B, C).
        nodes: of C classes.
    """

    def __init__(self, expected: Table, q: Table, nodes: Nodes) -> None:
        self.expected = expected
        self.x, weight = like(q, nodes)
        self.weight = weight / self.x
        #: (B, C, K), what a class contributes that is not taken; one that is taken contributes x.
        self.factor = 1 - q[..., None] * (1 - self.x)

    def of(self, chosen: Table) -> tuple[Table, Table]:
        """The expected score (B, 1) of a set, and (B, C) of those in which one class has changed sides."""
        where, taken = library(chosen).where, chosen[..., None]
        before, after = where(taken, self.x, self.factor), where(taken, self.factor, self.x)
        weighted = self.weight * before.prod(1)
        total = (self.expected * chosen).sum(1, keepdims=True)
        # 0 without the last class: it stays.
        following = total + where(chosen, -self.expected, self.expected)
        flipped = (after / before * weighted[:, None]).sum(-1) * following
        return weighted.sum(1, keepdims=True) * total, flipped
