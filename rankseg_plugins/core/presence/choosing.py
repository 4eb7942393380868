"""What was learnt, put to use: which classes of an image are shown."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.kernels import has_numba
from rankseg_plugins.core.objectives import Dice, Objective
from rankseg_plugins.core.presence.curve import Curve, Evidence, Expectation
from rankseg_plugins.core.presence.rule import SCORE, Rule, moments
from rankseg_plugins.core.volumes import Volumes

if TYPE_CHECKING:
    from rankseg_plugins.core.kernels.cpu.presence import Aim


class Known(NamedTuple):
    """What was learnt of classes: a curve, an expectation, and M of ``rankseg_plugins.core.presence.rule``.

    The last is NaN or negative where it is not known.
    """

    weight: Tensor
    offset: Tensor
    floor: Tensor
    below: Tensor
    slope: Tensor
    intercept: Tensor
    mean_score: Tensor

    @property
    def curve(self) -> Curve:
        """How likely each class is there."""
        return Curve(*self[:4])

    @property
    def expectation(self) -> Expectation:
        """What its mask then scores."""
        return Expectation(*self[4:6])

    def choose(
        self,
        maximum: Tensor,
        volumes: Volumes,
        pixels: Tensor | int,
        objective: Objective,
        rule: Rule,
        presence: Tensor | None = None,
    ) -> tuple[Volumes, Tensor]:
        """The masks of the classes to show, and how likely each class is there, (B, C) float64.

        Args:
            maximum: largest probability of every class, (B, C).
            volumes: RMA's masks, which may be written to.
            pixels: of an image, one number for all or (B, 1) float64.
            objective: of the masks.
            rule: what is shown.
            presence: how likely each class is there, (B, C) float64, where that is known better than by the curve.
        """
        if maximum.device.type == "cpu" and not is_blind() and has_numba():
            from rankseg_plugins.core.kernels.cpu.presence import choose

            arrays: Any = (each.numpy() for each in self)
            q = choose(maximum, volumes, pixels, Known(*arrays), _aim(objective, rule, maximum.shape[1]), presence)
            return volumes, q
        evidence = Evidence.of(maximum, volumes.mu, volumes.n, volumes.s, pixels)
        q = self.curve.presence(evidence, objective) if presence is None else presence
        expected = self.expectation.scores(evidence, q, objective) if rule.rule == SCORE else None
        return volumes.only(rule.shown(q, expected, self.mean_score, volumes.active)), q


@lru_cache(maxsize=16)
def _aim(objective: Objective, rule: Rule, classes: int) -> Aim:
    """Both as the kernel reads them."""
    from rankseg_plugins.core.kernels.cpu.presence import ALL, CLASS, IMAGE, ONE, THRESHOLD, Aim

    if isinstance(rule.rule, float):
        form = THRESHOLD
    elif rule.asks_mean:
        form = CLASS if rule.level == "class" else IMAGE
    else:
        form = ONE if (rule.present, rule.absent) == ("union", "one") else ALL
    scored = np.array(rule.scored(classes), dtype=np.int64)
    x, weights = (
        each.numpy() for each in moments(torch.empty(1, len(scored), dtype=torch.float64, device="cpu"), rule.nodes)
    )
    least = rule.rule if isinstance(rule.rule, float) else 0.0
    return Aim(isinstance(objective, Dice), float(objective.smooth), form, least, rule.fills, scored, x, weights)
