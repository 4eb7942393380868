"""Do the three adapters agree? Labels to the pixel, scores to rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from examples.demo.decisions import Decision, Outcome
from examples.demo.through_mmseg import OWN_IOU

#: The scores are means in float64; adding up in another order may change the last digits.
SCORE_TOLERANCE = 1e-12
#: MMSegmentation's own metric gives percent with two digits, and computes in float32: the last digit may be one off.
OWN_TOLERANCE = 0.0101

Outcomes = Mapping[str, Mapping[Decision, Outcome]]


def disagreements(outcomes: Outcomes) -> list[str]:
    """Compare every pair of toolkits on every decision; one line for each difference.

    Args:
        outcomes: of each toolkit by its name, of each decision.
    """
    found = []
    for (first, ours), (second, theirs) in combinations(outcomes.items(), 2):
        for decision in ours:
            where = f"{decision.title}: {first} and {second}"
            found += [f"{where}: {line}" for line in _differences(ours[decision], theirs[decision])]
    for toolkit, by_decision in outcomes.items():
        for decision, outcome in by_decision.items():
            own, ours_percent = outcome.scores.get(OWN_IOU), 100 * outcome.scores["iou_dataset"]
            if own is not None and not abs(own - ours_percent) <= OWN_TOLERANCE:
                found.append(f"{decision.title}: {toolkit}'s {OWN_IOU} is {own}, the demo counts {ours_percent:.4f}")
    return found


def _differences(first: Outcome, second: Outcome) -> list[str]:
    if len(first.labels) != len(second.labels):
        return [f"{len(first.labels)} and {len(second.labels)} images"]
    lines = []
    for index in range(len(first.labels)):
        ours, theirs = first.labels[index], second.labels[index]
        if ours.shape != theirs.shape:
            lines.append(f"image {index} has shape {ours.shape} and {theirs.shape}")
        elif not np.array_equal(ours, theirs):
            lines.append(f"image {index} differs in {np.count_nonzero(ours != theirs)} pixels")
    for name in first.scores.keys() & second.scores.keys():
        if not math.isclose(first.scores[name], second.scores[name], rel_tol=0, abs_tol=SCORE_TOLERANCE):
            lines.append(f"{name} is {first.scores[name]} and {second.scores[name]}")
    return lines
