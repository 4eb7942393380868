"""How likely each class of an image is there, and which are shown: ``rankseg_plugins.core.presence`` in one kernel.

Beside a small image a hundred operations on tensors of a few numbers would take half as long as the decision.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels.cpu.ground.compiling import exact, kernel
from rankseg_plugins.core.kernels.cpu.scores import score_of
from rankseg_plugins.core.volumes import Volumes

#: Which classes are taken: those above a threshold, all that may be there, or by what an absent one counts.
THRESHOLD, ALL, ONE, CLASS, IMAGE = range(5)
#: As in ``rankseg_plugins.core.presence.curve`` and ``rankseg_plugins.core.presence.rule``.
_SMALLEST, _SURE, _TINY = 1e-6, 700.0, 1e-300


class Aim(NamedTuple):
    """What is to be gained.

    Args:
        dice: or IoU.
        smooth: of it.
        form: which of the five.
        least: the threshold, of the first.
        fills: whether an image shows at least one class.
        scored: (S,) labels.
        x: (K,) nodes, of the last form.
        weights: (S, K), of x^(a - 1) for a from S down to one.
    """

    dice: bool
    smooth: float
    form: int
    least: float
    fills: bool
    scored: np.ndarray
    x: np.ndarray
    weights: np.ndarray


class Found(NamedTuple):
    """What RMA found of every image and class, (B, C), and the pixels of every image, (B,); float64, but two."""

    maximum: np.ndarray
    threshold: np.ndarray
    n: np.ndarray
    s: np.ndarray
    mu: np.ndarray
    active: np.ndarray
    pixels: np.ndarray


def choose(
    maximum: Tensor, volumes: Volumes, pixels: Tensor | int, learnt: Any, aim: Aim, presence: Tensor | None
) -> Tensor:
    """Leave only the masks of the classes that are shown; how likely each is there, (B, C) float64: given, or learnt.

    Args:
        maximum: (B, C), largest probabilities.
        volumes: RMA's masks; they are written to.
        pixels: of an image, one number for all or (B, 1) float64.
        learnt: ``rankseg_plugins.core.presence.choosing.Known`` of arrays.
        aim: of the decoder.
        presence: (B, C) float64, or None.
    """
    peaks, v = maximum.numpy().astype(np.float64, copy=False), volumes
    number = np.full(len(peaks), pixels, np.float64) if isinstance(pixels, int) else pixels.numpy()[:, 0]
    q = torch.empty(peaks.shape, dtype=torch.float64, device="cpu") if presence is None else presence.contiguous()
    classes = peaks.shape[1]
    numbers, order = np.empty((3, max(classes, len(aim.x)))), np.empty(len(aim.scored), np.int64)
    found = Found(peaks, v.threshold.numpy(), v.n.numpy(), v.s.numpy(), v.mu.numpy(), v.active.numpy(), number)
    _choose(found, learnt, aim, presence is not None, q.numpy(), numbers, order, np.empty(classes, np.bool_))
    return q


@kernel
def _choose(found, learnt, aim, given, q, numbers, order, shown):
    """Write ``q`` unless it is given, and the masks; what follows it is scratch memory."""
    classes = q.shape[1]
    expected = numbers[2, :classes]
    for image in range(len(q)):
        for label in range(classes):
            if not given:
                q[image, label] = _likely(found, learnt, aim, image, label)
            if aim.form == THRESHOLD:
                expected[label] = q[image, label]
                shown[label] = q[image, label] > aim.least
            else:
                expected[label] = _expected(found, learnt, aim, q[image, label], image, label)
                shown[label] = q[image, label] > 0
        if aim.form == ONE:
            for label in aim.scored:
                shown[label] = expected[label] > 1 - q[image, label]
        if aim.form == CLASS:
            for label in aim.scored:
                shown[label] = expected[label] > (1 - q[image, label]) * learnt.mean_score[label]
        if aim.form == IMAGE:
            _best_set(q[image], expected, learnt.mean_score, aim, numbers[0], numbers[1], order, shown)
        if aim.fills:
            _fill(expected, found.active[image], shown)
        for label in range(classes):
            if not (shown[label] and found.active[image, label]):
                found.threshold[image, label], found.active[image, label] = np.inf, False
                found.n[image, label] = found.s[image, label] = 0


@exact
def _likely(found, learnt, aim, image, label):
    """``Curve.presence``."""
    maximum, mu = found.maximum[image, label], found.mu[image, label]
    if not maximum > learnt.floor[0]:
        return learnt.below[0]
    score = score_of(found.s[image, label], found.n[image, label], mu, aim.dice, aim.smooth)
    logit = learnt.offset[label] + learnt.weight[0] * _logit(maximum)
    logit += learnt.weight[1] * math.log(max(mu / max(found.pixels[image], 1.0), _SMALLEST))
    logit += learnt.weight[2] * _logit(score)
    odds = math.exp(min(logit, _SURE))
    return odds / (1 + odds)


@exact
def _expected(found, learnt, aim, q, image, label):
    """``Expectation.scores``."""
    n, likely = found.n[image, label], max(q, _SMALLEST)
    if n == 0:
        return 0.0
    s, mu = min(found.s[image, label] / likely, n), min(found.mu[image, label] / likely, found.pixels[image])
    given = learnt.intercept[label] + learnt.slope[0] * score_of(s, n, mu, aim.dice, aim.smooth)
    return q * min(max(given, 0.0), 1.0)


@exact
def _logit(share):
    share = max(share, _SMALLEST)
    return math.log(share / max(1 - share, _SMALLEST))


@exact
def _best_set(q, expected, mean_score, aim, odds, product, order, shown):
    """``Rule.pays`` at the level of images."""
    total, nothing, mean = 0.0, 1.0, mean_score[aim.scored[0]]
    for label in aim.scored:
        total += expected[label]
        nothing *= 1 - q[label]
        odds[label] = expected[label] / max(1 - q[label], _TINY)
    _sort(odds, aim.scored, order)
    value, least = -1.0, 0.0
    product[: len(aim.x)] = 1.0
    for place in range(len(order)):
        label, moment = order[place], 0.0
        for node in range(len(aim.x)):
            moment += product[node] * aim.weights[place, node]
            product[node] *= 1 - q[label] * (1 - aim.x[node])
        if moment * total > value:
            value, least = moment * total, odds[label]
        total -= expected[label]
    # A mean that is not known is negative, or NaN.
    pays = value > nothing * (mean if mean > 0 else 0.0)
    for label in aim.scored:
        shown[label] = pays and odds[label] >= least and expected[label] > 0


@exact
def _sort(numbers, labels, order):
    """The labels by their numbers, from the smallest to the largest; they are few."""
    for index in range(len(labels)):
        place = index
        while place > 0 and numbers[order[place - 1]] > numbers[labels[index]]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = labels[index]


@exact
def _fill(expected, active, shown):
    """Show the classes that are worth most, unless an active one is shown."""
    most = -1.0
    for label in range(len(shown)):
        if active[label]:
            if shown[label]:
                return
            most = max(most, expected[label])
    for label in range(len(shown)):
        shown[label] |= (expected[label] if active[label] else -1.0) == most
