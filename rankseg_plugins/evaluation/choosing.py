"""Which of many compared decoders to use: argmax, unless a gain is certain on images that had no part in choosing."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.evaluation.comparison import Comparison
from rankseg_plugins.evaluation.levels import LEVELS
from rankseg_plugins.evaluation.measuring import Measurement

ARGMAX, CHOSEN = "argmax", "chosen"
OBJECTIVES = tuple(f"{score}_{level}" for score in ("dice", "iou") for level in LEVELS)


class Choice(NamedTuple):
    """What :func:`choose` found.

    Args:
        winner: the best candidate; if argmax is best, the first of the others.
        certain: whether the winner is to be used; otherwise argmax is.
        gain: over argmax, in points, of candidates chosen without the images that they are scored on.
        interval: of the gain.
        validated: argmax against those, image by image.
        verdict: one line for people.
    """

    winner: str
    certain: bool
    gain: float
    interval: tuple[float, float]
    validated: Comparison
    verdict: str


def choose(comparison: Comparison, objective: str, folds: int = 5, min_cases: int = 20) -> Choice:
    """Choose from candidates that were compared already; see :func:`~rankseg_plugins.evaluation.tune`.

    Args:
        comparison: argmax first; its seed is also that of the folds.
        objective: one of :data:`OBJECTIVES`.
        folds: at least 2; with fewer cases there are as many as cases.
        min_cases: at least 0; with fewer cases argmax is kept.

    Raises:
        ValueError: for an unknown objective, or too few folds.

    Source: Varma & Simon, "Bias in error estimation when using cross-validation for model selection", BMC
    Bioinformatics 7 (2006).
    """
    check_choice("objective", objective, OBJECTIVES)
    check_folds(folds)
    score, level = objective.split("_")
    validated, best = _validate(comparison, score, level, folds)
    winner = comparison.decoders[best or 1]
    gain, low, high = 100 * _gain(validated, CHOSEN, score, level)
    cases = int(comparison.cases.max()) + 1
    # NaN is not certain.
    certain = bool(best > 0 and low > 0 and _gain(_pair(comparison, best), winner, score, level)[1] > 0)
    certain &= cases >= min_cases
    figures = f"{gain:+.2f} points of {objective} on images not used to choose ({low:+.2f} to {high:+.2f})"
    reason = "no certain gain" if cases >= min_cases else f"too few cases ({cases} of {min_cases}) to be certain"
    verdict = f"{winner}: {figures}" if certain else f"keep argmax: {reason}, {figures}"
    return Choice(winner, certain, float(gain), (float(low), float(high)), validated, verdict)


def check_folds(folds: int) -> None:
    """Check a number of folds.

    Raises:
        ValueError: if it is not an integer of at least 2.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise ValueError(f"folds must be an integer of at least 2, got {folds!r}")


def _validate(comparison: Comparison, score: str, level: str, folds: int) -> tuple[Comparison, int]:
    """Choose for each fold on the others; return what that scores, and the index of the best of all images."""
    cases = comparison.cases
    number = cases.max() + 1
    folds = min(folds, number)
    fold_of_case = np.random.default_rng(comparison.seed).permutation(np.arange(number) % folds)
    fold_of_image = fold_of_case[cases]
    chosen: list[Measurement] = list(comparison.measurements)
    for fold in range(folds):
        best = _best(comparison, fold_of_image != fold, score, level)
        for index in np.flatnonzero(fold_of_image == fold):
            measured = comparison.measurements[index]
            both = [0, best]
            chosen[index] = replace(measured, counts=measured.counts[both], seconds=measured.seconds[both])
    validated = replace(comparison, decoders=(ARGMAX, CHOSEN), measurements=tuple(chosen))
    return validated, _best(comparison, np.ones(len(cases), dtype=bool), score, level)


def _best(comparison: Comparison, used: np.ndarray, score: str, level: str) -> int:
    """Index of the best candidate on the images that are used; argmax, the first, wins ties."""
    if not used.any():  # a single case: no others to choose on
        return 0
    images = tuple(itertools.compress(comparison.measurements, used))
    part = replace(comparison, measurements=images)
    return int(np.argmax([np.nan_to_num(part.level(name, score, level), nan=-1) for name in part.decoders]))


def _pair(comparison: Comparison, index: int) -> Comparison:
    """Argmax and one candidate alone: an interval of each of the others would be work for nothing."""
    both = [0, index]
    images = (replace(each, counts=each.counts[both], seconds=each.seconds[both]) for each in comparison.measurements)
    return replace(comparison, decoders=(ARGMAX, comparison.decoders[index]), measurements=tuple(images))


def _gain(comparison: Comparison, name: str, score: str, level: str) -> np.ndarray:
    """Gain over argmax with its interval."""
    return comparison.differences.levels[score, level][comparison.candidates.index(name)]
