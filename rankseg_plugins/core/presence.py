"""Which classes an image holds, decided for the score: from the probability that each of them is there at all.

For an image and a class c let q_c be the probability that the truth holds it, and D_c the expected score of the best
mask of c, which is 0 where the truth is empty. Given that the class is there, a pixel belongs to it with probability
p / q_c, so D_c = q_c times the best RMA score of min(1, p / q_c). What the score counts then decides which classes to
take:

* classes of truth or prediction count, absent ones are skipped (``present="union"``, ``absent="skip"``): the expected
  score of an image is the sum of D_c over the classes I that are taken, times E[1 / (|I| + Z)] with Z the number of the
  others that the truth holds. A class that is taken and not there lowers the mean of all others.
* only classes of the truth count (``present="label"``), or an absent class counts as 0: a class that is not there costs
  nothing, and all are taken.
* an absent class counts as 1 (``"union"``, ``"one"``): taking a class pays where D_c > 1 - q_c.

The reciprocal moment is an integral of a polynomial, E[1 / (a + Z)] = integral of x^(a - 1) prod (1 - q + q x) over
0 < x < 1, which Gauss nodes give exactly.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core import dense
from rankseg_plugins.core.objectives import OBJECTIVES, Objective
from rankseg_plugins.core.options import ABSENT, PRESENT, read_choice, read_real
from rankseg_plugins.core.probabilities import check_by_class, check_floating, check_probs, check_valid_mask, plain

#: Of Dinkelbach's iteration, which gives no more than a good beginning.
_ROUNDS = 8
#: Of the values of a batch, this many are worked on at a time.
_ROOM = 1 << 22


def choose_classes(
    probs: Tensor,
    presence: Tensor,
    metric: str = "dice",
    smooth: float = 0.0,
    present: str = "union",
    absent: str = "skip",
    valid_mask: Tensor | None = None,
) -> Tensor:
    r"""The classes to decide on, for the best expected score of each image; the ``active`` of :class:`RankSEG`.

    Args:
        probs: (B, C, \*spatial) probabilities.
        presence: (C,) or (B, C) in [0, 1], the probability that the truth holds the class: how often images hold it,
            or what is known of this image.
        metric: ``"dice"`` or ``"iou"``.
        smooth: of the score, at least 0.
        present: which classes have a score in an image: ``"union"`` (those of truth or prediction) or ``"label"``.
        absent: what an absent class counts: ``"skip"``, ``"zero"`` or ``"one"``.
        valid_mask: optional bool mask of the pixels that hold data; see :meth:`RankSEG.predict`.

    Returns:
        (B, C) bool.

    Raises:
        TypeError: for tensors or options of the wrong type.
        ValueError: for wrong shapes or values; for a single channel under ``"union"`` and ``"skip"``, where an image is
            scored or not by what is decided, and its own probabilities do not say what is best.

    Source: Dinkelbach, "On nonlinear fractional programming", Management Science 13 (1967), for the first set.

    Example:
        >>> probs = torch.tensor([[[0.9, 0.8, 0.1], [0.05, 0.1, 0.6], [0.05, 0.1, 0.3]]])
        >>> choose_classes(probs, torch.tensor([0.9, 0.8, 0.3]))
        tensor([[ True,  True, False]])
        >>> choose_classes(probs, torch.tensor([0.9, 0.8, 0.3]), present="label")
        tensor([[True, True, True]])
    """
    probs, presence, valid_mask = plain(probs), plain(presence), plain(valid_mask)
    check_probs("probs", probs)
    check_valid_mask(probs, valid_mask)
    metric, smooth = read_choice("metric", metric, tuple(OBJECTIVES)), read_real("smooth", smooth, 0.0, 1e100)
    present, absent = read_choice("present", present, PRESENT), read_choice("absent", absent, tuple(ABSENT))
    q = _read_presence(presence, probs)
    if present == "label" or absent == "zero":
        return torch.ones_like(q, dtype=torch.bool)
    if absent == "skip" and q.shape[1] == 1:
        raise ValueError(
            "a single channel under present='union' and absent='skip' is scored or not by what is decided, which its "
            "own probabilities do not settle: use absent='one' or 'zero'"
        )
    with torch.no_grad():
        expected = best_scores(probs, q, OBJECTIVES[metric](smooth), valid_mask)
        return expected > 1 - q if absent == "one" else best_set(expected, q)


def _read_presence(presence: Tensor, probs: Tensor) -> Tensor:
    check_floating("presence", presence)
    check_by_class("presence", presence, probs)
    if not ((presence >= 0) & (presence <= 1)).all():
        raise ValueError("presence must lie in [0, 1], one of its values does not")
    return presence.to(probs.device, torch.float64).expand(probs.shape[:2])


def best_scores(probs: Tensor, q: Tensor, objective: Objective, valid_mask: Tensor | None = None) -> Tensor:
    """D of the module, (B, C) float64, for probabilities (B, C, *spatial) and q (B, C)."""
    found = torch.zeros_like(q, memory_format=torch.contiguous_format)
    valid = None if valid_mask is None else valid_mask.expand(len(probs), *probs.shape[2:])
    step = max(1, _ROOM // math.prod(probs.shape[2:]))
    for image in range(len(probs)):
        inside = None if valid is None else valid[image]
        for first in range(0, probs.shape[1], step):
            there = slice(image, image + 1), slice(first, first + step)
            p = dense.to_checked(probs[there], inside)
            given = (p / q[there].unsqueeze(-1).to(p.dtype).clamp(min=torch.finfo(p.dtype).tiny)).clamp_(max=1)
            volumes = dense.search_volumes(given, objective, 0.0)
            found[there] = objective.score(volumes.s, volumes.n, volumes.mu)
    return found * q


def best_set(expected: Tensor, q: Tensor) -> Tensor:
    """The classes of the largest expected image score where truth or prediction count and absent ones are skipped.

    From Dinkelbach's set for the ratio of the expectations, one class after the other joins or leaves as long as that
    raises the exact expectation.

    Args:
        expected: D of the module, (B, C) float64.
        q: (B, C) float64.

    Returns:
        (B, C) bool; each image has at least one class.
    """
    chosen = _first_set(expected, q)
    nodes = _Nodes(q)
    while True:  # every change raises the value, so that no set comes twice
        value, flipped = nodes.values(chosen, expected)
        best, label = flipped.max(1)
        better = best > value * (1 + 1e-12)
        if not better.any():
            return chosen
        chosen = chosen.scatter(1, label[:, None], chosen.gather(1, label[:, None]) ^ better[:, None])


def _first_set(expected: Tensor, q: Tensor) -> Tensor:
    top = expected == expected.amax(1, keepdim=True)
    chosen = (q > 0.5) | top
    for _ in range(_ROUNDS):
        number = torch.where(chosen, torch.ones_like(q), q).sum(1, keepdim=True)
        score = (expected * chosen).sum(1, keepdim=True) / number
        chosen = (expected > (1 - q) * score) | top
    return chosen


class _Nodes:
    """Gauss nodes on (0, 1), enough for every polynomial of the classes."""

    def __init__(self, q: Tensor) -> None:
        # Degree C at most; a rule of K nodes is exact up to degree 2 K - 1.
        x, weight = np.polynomial.legendre.leggauss(q.shape[1] // 2 + 1)
        self.x, self.weight = (torch.from_numpy(each).to(q.device) for each in ((x + 1) / 2, weight / 2))
        #: (B, C, K), what a class contributes that is not taken.
        self.factor = 1 - q.unsqueeze(-1) + q.unsqueeze(-1) * self.x

    def values(self, chosen: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
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
