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
0 < x < 1, which Gauss nodes give exactly (of more than 255 classes: to the last digits).

At the level of the data set, Dice and IoU pool the pixels of all images. A mask of n pixels of which E[I] are right
raises a pooled IoU of J iff E[I] / (n - E[I]) > J, that is q > J / (1 + J) divided by the precision that the mask has
where the class is there: a threshold on q.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.tracing import exp, is_blind, log

#: The rule that asks what the score expects; a number is a threshold instead.
SCORE = "score"
LEVELS = ("image", "class")
#: Of the iteration for the mean score of images.
_ROUNDS = 50
#: Of thousands of classes; 1,000 nodes take a second to find.
_MOST_NODES = 128
#: A class that is certainly there comes first.
_TINY = 1e-300

#: Gauss-Legendre nodes on (0, 1) and their weights.
Nodes = tuple[tuple[float, ...], tuple[float, ...]]


def gauss(classes: int) -> Nodes:
    """Nodes that are exact for every polynomial of so many classes, up to 255; of more to the last digits.

    Example:
        >>> gauss(1)
        ((0.5,), (1.0,))
    """
    # Degree C at most; a rule of K nodes is exact up to degree 2 K - 1.
    x, weight = np.polynomial.legendre.leggauss(min(classes // 2 + 1, _MOST_NODES))
    return tuple(((x + 1) / 2).tolist()), tuple((weight / 2).tolist())


class Rule(NamedTuple):
    """How the classes to show are chosen; see ``PresenceRankSEG`` for the options.

    Args:
        rule: ``"score"`` or a threshold.
        present: option.
        absent: option.
        level: option.
        excluded: option.
        nodes: of the number of classes that are scored, see ``gauss``.
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

    def scored(self, classes: int) -> list[int]:
        """Which of so many classes are scored."""
        return [label for label in range(classes) if label not in self.excluded]

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

    def shown(self, q: Tensor, expected: Tensor | None, mean: Tensor, active: Tensor) -> Tensor:
        """The classes to show, (B, C) bool.

        Args:
            q: (B, C) float64.
            expected: D of the module, (B, C) float64; a threshold needs none.
            mean: M of the module, (C,) float64; NaN or negative where it is not known.
            active: (B, C) bool, the classes with a mask.
        """
        taken = q > float(self.rule) if expected is None else self.taken(q, expected, mean)
        nothing = ~(taken & active).any(1, keepdim=True)
        if not self.fills or not (is_blind() or nothing.any()):
            return taken
        worth = torch.where(active, q if expected is None else expected, -1.0)
        return taken | ((worth == worth.amax(1, keepdim=True)) & nothing)

    def taken(self, q: Tensor, expected: Tensor, mean: Tensor) -> Tensor:
        """Those that the score gains by, (B, C) bool; see ``shown``."""
        if self.present == "label" or self.absent == "zero":
            return q > 0
        if not self.excluded:
            return self.pays(q, expected, mean)
        taken, scored = q > 0, self.scored(q.shape[1])
        taken[:, scored] = self.pays(q[:, scored], expected[:, scored], mean[scored])
        return taken

    def pays(self, q: Tensor, expected: Tensor, mean: Tensor) -> Tensor:
        """Likewise, of classes that are all scored."""
        if self.absent == "one":
            return expected > 1 - q
        if self.level == "class":
            return expected > (1 - q) * mean
        pays, value = best_set(expected, q, self.nodes)
        # Where it is not known what other images score, each class that may be there is worth a try.
        known = torch.where(mean > 0, mean, 0.0)[0]
        return pays & (value > _nothing_there(q) * known).unsqueeze(1)


def best_set(expected: Tensor, q: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor]:
    """The classes of the largest expected image score where truth or prediction count and absent ones are skipped.

    They are the first ones by D / (1 - q), and as many of these as the exact expectation wants. For a ratio of
    expectations no other set is better; that this holds for the expectation of the ratio is not proved, and the loss
    beside the best of all sets is nowhere above 1e-3 in the tests.

    Args:
        expected: D of the module, (B, C) float64.
        q: (B, C) float64.
        nodes: of C classes, see ``gauss``.

    Returns:
        (B, C) bool, equal ones together, at least one class where any may score; and V of the best set, (B,).

    Source: Dinkelbach, "On nonlinear fractional programming", Management Science 13 (1967), for the order.
    """
    odds = _odds(expected, q)
    order = odds.argsort(dim=1)
    gained, likely = expected.gather(1, order), q.gather(1, order)
    x, weights = moments(q, nodes)
    not_taken = log(1 - likely.unsqueeze(-1) * (1 - x))  # ONNX knows no product
    # (B, C, K): the classes before each are not taken, it and all behind it are.
    moment = (exp(not_taken.cumsum(1) - not_taken) * weights).sum(-1)
    worth = moment * (gained.sum(1, keepdim=True) - gained.cumsum(1) + gained)
    best = worth.argmax(1, keepdim=True)
    value = worth.gather(1, best)
    # A class that cannot score is worth nothing, even beside one that is certainly there.
    return (odds >= odds.gather(1, order.gather(1, best))) & (expected > 0), value.squeeze(1)


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
    nothing = _nothing_there(q)
    mean = torch.zeros_like(value[:1])
    for _ in range(_ROUNDS):
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
    order = _odds(expected, q).T.argsort(dim=1, descending=True)
    gained, likely = expected.T.gather(1, order).cumsum(1), q.T.gather(1, order)
    number = (1 - likely).cumsum(1) + likely.sum(1, keepdim=True)
    mean = (gained / number.clamp(min=_TINY)).amax(1)
    return mean.where(there.any(0), torch.ones_like(mean))


def _odds(expected: Tensor, q: Tensor) -> Tensor:
    """D / (1 - q): what a class gives for what it costs where it is not there."""
    return expected / (1 - q).clamp(min=_TINY)


def moments(q: Tensor, nodes: Nodes) -> tuple[Tensor, Tensor]:
    """x, (K,), and the weights of x^(a - 1) for a from all classes down to one, (C, K)."""
    x, weight = q.new_tensor(nodes)
    return x, weight * x ** torch.arange(q.shape[1], device=q.device).flip(0).unsqueeze(1)


def _nothing_there(q: Tensor) -> Tensor:
    """How likely an image holds none of the classes, (B,)."""
    return exp(log(1 - q).sum(1))  # ONNX knows no product
