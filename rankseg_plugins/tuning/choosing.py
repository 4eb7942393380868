"""Which of many compared decoders to use: argmax, unless a gain is certain on images that had no part in choosing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.core.options import read_integer, read_real
from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.scores.levels import LEVELS

ARGMAX, CHOSEN = "argmax", "chosen"
#: Of the bootstrap that a choice among candidates rests on: its interval reaches one standard error to either side.
RESAMPLES, ONE_ERROR = 200, 0.6827
OBJECTIVES = tuple(f"{score}_{level}" for score in ("dice", "iou") for level in LEVELS)


class Choice(NamedTuple):
    """What :func:`choose` found.

    Args:
        winner: the best candidate on all images, perhaps argmax.
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
    """Choose from candidates that were compared already; see :func:`~rankseg_plugins.tuning.tune`.

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
    folds = read_folds(folds)
    score, level = objective.split("_")
    validated, best = _validate(comparison, score, level, folds)
    winner, cases = comparison.decoders[best], int(comparison.cases.max()) + 1
    gain, low, high = (float(100 * each) for each in _gain(validated, CHOSEN, score, level))
    doubt = _doubt(cases, min_cases, objective, gain, low)
    if doubt is None and best == 0:
        doubt = "argmax is best on all images"
    if doubt is None:
        # NaN is not certain.
        own = 100 * _gain(_pair(comparison, best), winner, score, level)
        doubt = None if own[1] > 0 else f"on all images the gain of {winner} is not certain, {_points(*own)}"
    figures = _points(gain, low, high, f" of {objective} on images not used to choose")
    verdict = f"{winner}: {figures}" if doubt is None else f"keep argmax: {doubt}"
    if doubt is not None and cases > 1 and not math.isnan(gain):
        verdict += f", {figures}"
    return Choice(winner, doubt is None, gain, (low, high), validated, verdict)


def _doubt(cases: int, min_cases: int, objective: str, gain: float, low: float) -> str | None:
    """Why a gain on images that were not used to choose is not certain; None if it is."""
    if math.isnan(gain):
        return f"no image has a score to compare in {objective}"
    if cases == 1:
        return "all images are of a single case, so none is left to score a choice on and the gain is unknown"
    if cases < min_cases:
        return f"too few cases ({cases} of {min_cases}) to be certain"
    return None if low > 0 else "no certain gain"


def _points(gain: float, low: float, high: float, what: str = "") -> str:
    span = "interval unknown" if math.isnan(low) or math.isnan(high) else f"{low:+.2f} to {high:+.2f}"
    return f"{gain:+.2f} points{what} ({span})"


def read_folds(folds: object) -> int:
    """A number of folds.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is below 2.
    """
    number = read_integer("folds", folds)
    if number < 2:
        raise ValueError(f"folds must be an integer of at least 2, got {number}")
    return number


def check_intervals(resamples: object = 10_000, confidence: object = 0.95, seed: object = 0) -> None:
    """Refuse options of the intervals, or miss SciPy, before images are decoded: their end would be too late.

    Args:
        resamples: of the bootstrap, at least 1.
        confidence: of the intervals, between 0 and 1.
        seed: of the folds and the bootstrap, at least 0.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for one out of range.
        ImportError: without SciPy.
    """
    if read_integer("resamples", resamples) < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < read_real("confidence", confidence, 0.0, 1.0) < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if read_integer("seed", seed) < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    require("scipy.stats", extra="report")


def _validate(comparison: Comparison, score: str, level: str, folds: int) -> tuple[Comparison, int]:
    """Choose for each fold on the others; return what that scores, and the index of the best of all images."""
    cases = [each.case for each in comparison.measurements]
    fold_of_case = deal(cases, folds, comparison.seed)
    fold_of_image = np.array([fold_of_case[case] for case in cases])
    chosen: list[Measurement] = list(comparison.measurements)
    for fold in range(max(fold_of_image) + 1):
        best = _best(comparison, fold_of_image != fold, score, level)
        for index in np.flatnonzero(fold_of_image == fold):
            measured = comparison.measurements[index]
            both = [0, best]
            chosen[index] = replace(measured, counts=measured.counts[both], seconds=measured.seconds[both])
    validated = replace(comparison, decoders=(ARGMAX, CHOSEN), measurements=tuple(chosen))
    return validated, _best(comparison, np.ones(len(cases), dtype=bool), score, level)


def deal(cases: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """The fold of every case: as many cases in each as can be, drawn.

    Args:
        cases: of the images, in their order.
        folds: at most; with fewer cases there are as many as cases.
        seed: of the draw.

    Example:
        >>> sorted(deal(["a", "b", "b", "c"], folds=2, seed=0).values())
        [0, 0, 1]
    """
    names = list(dict.fromkeys(cases))
    folds = min(folds, len(names))
    drawn = np.random.default_rng(seed).permutation(np.arange(len(names)) % folds)
    return dict(zip(names, drawn.tolist(), strict=True))


def _best(comparison: Comparison, used: np.ndarray, score: str, level: str) -> int:
    """Index of the best candidate on the images that are used; argmax, the first, if none gains on it.

    Of those that gain, it is the one whose gain is still the largest where it is smaller than measured by what one in
    six draws of the cases would give: of many that gain alike by luck, the one that gains evenly.
    """
    if not used.any():  # a single case: no others to choose on
        return 0
    images = tuple(itertools.compress(comparison.measurements, used))
    part = replace(comparison, measurements=images, resamples=RESAMPLES, confidence=ONE_ERROR)
    gain, low, _ = part.differences.levels[score, level].T
    low = np.where(gain > 0, np.nan_to_num(low, nan=-np.inf), -np.inf)
    return int(np.argmax(low)) + 1 if (gain > 0).any() else 0


def _pair(comparison: Comparison, index: int) -> Comparison:
    """Argmax and one candidate alone: an interval of each of the others would be work for nothing."""
    both = [0, index]
    images = (replace(each, counts=each.counts[both], seconds=each.seconds[both]) for each in comparison.measurements)
    return replace(comparison, decoders=(ARGMAX, comparison.decoders[index]), measurements=tuple(images))


def _gain(comparison: Comparison, name: str, score: str, level: str) -> np.ndarray:
    """Gain over argmax with its interval."""
    return comparison.differences.levels[score, level][comparison.candidates.index(name)]
