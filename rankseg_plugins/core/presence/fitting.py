"""From labelled images, or from how often they hold each class, to what is known of classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.presence.choosing import Known
from rankseg_plugins.core.presence.curve import Evidence, constant, fit_curve, fit_expectation, taken_at_their_word
from rankseg_plugins.core.presence.rule import Rule, mean_image_score, mean_scores


class PresenceFit(NamedTuple):
    """What ``PresenceRankSEG.fit`` found.

    Args:
        images: that it was fitted to.
        frequency: (C,) float64, how often the images hold each class.
        loss: mean negative log-likelihood of knowing only these frequencies, and of the fit, on the same images.
    """

    images: int
    frequency: Tensor
    loss: tuple[float, float]


def by_frequencies(frequencies: Tensor) -> Known:
    """Of classes that images hold so often, (C,), and of which nothing else is known."""
    unknown = torch.full((len(frequencies),), -1.0, device="cpu")
    return Known(*constant(frequencies), *taken_at_their_word(len(frequencies)), unknown)


def learn(evidence: Evidence, there: Tensor, objective: Objective, rule: Rule) -> tuple[Known, PresenceFit]:
    """Find how likely classes are there, what their masks then score, and what images score besides.

    Args:
        evidence: of N images.
        there: (N, C) bool, the classes that they hold.
        objective: of the masks.
        rule: that will be decided by.
    """
    curve = fit_curve(evidence, there, objective)
    q, frequency = curve.presence(evidence, objective), there.double().mean(0)
    expectation = fit_expectation(evidence, q, objective)
    expected = expectation.scores(evidence, q, objective)
    if rule.level == "class":
        mean = mean_scores(expected, q, there)
    else:
        scored = rule.scored(there.shape[1])
        some, likely, held = (each[:, scored] for each in (expected, q, there))
        mean = mean_image_score(some, likely, held, rule.nodes).expand(there.shape[1])
    losses = [torch.nn.functional.binary_cross_entropy(each, there.double()) for each in (frequency.expand_as(q), q)]
    found = PresenceFit(len(there), frequency, (losses[0].item(), losses[1].item()))
    return Known(*curve, *expectation, mean), found
