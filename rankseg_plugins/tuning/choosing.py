"""Which of many compared decoders to use: argmax, unless one gains also on images that had no part in choosing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.intervals.statistics import check_confidence
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.comparison.phrases import points, span, unit
from rankseg_plugins.comparison.telling.verdict import contrary, listed
from rankseg_plugins.core.inputs.options import PRESENT, read_choice, read_integer
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.levels import LEVELS

ARGMAX, CHOSEN = "argmax", "chosen"
#: Of candidates that gain more than so many standard errors of the cases that were seen, the best is chosen.
ENOUGH = 1.0
#: A loss of so many standard errors is certain.
CERTAIN = 2.0
OBJECTIVES = tuple(f"{score}_{level}" for score in ("dice", "iou") for level in LEVELS)
#: What a choice may be asked to keep: a score and level, the objective where other classes count, or every class.
EVERY_CLASS = "every-class"
KEEP = (*OBJECTIVES, *PRESENT, EVERY_CLASS)


class Goal(NamedTuple):
    """What is to be gained, and what is not to be lost.

    Args:
        objective: one of ``OBJECTIVES``.
        keep: of ``KEEP``.
    """

    objective: str
    keep: tuple[str, ...]

    def unit(self, comparison: Comparison) -> str:
        """The objective in words, and which classes count."""
        return unit(comparison.scoring, self.objective.split("_")[1])

    def kept(self, comparison: Comparison, name: str) -> str:
        """One of ``keep`` in words."""
        if name == EVERY_CLASS:
            return "a class"
        scoring = comparison.under(name).scoring if name in PRESENT else comparison.scoring
        score, level = _split(self.objective if name in PRESENT else name)
        return unit(replace(scoring, score=score), level)

    def gains(self, comparison: Comparison) -> np.ndarray:
        """Of every decoder but the baseline, (D, 3): gain of the objective, lower and upper end."""
        return comparison.differences.levels[_split(self.objective)]

    def errors(self, comparison: Comparison) -> np.ndarray:
        """Of every decoder but the baseline, (D,): standard error of its gain among the cases that were seen."""
        return comparison.differences.errors[_split(self.objective)]

    def lowered(self, comparison: Comparison) -> np.ndarray:
        """Whether each decoder but the baseline certainly lowers what is to be kept, (D, K) bool."""
        found = np.zeros((len(comparison.candidates), len(self.keep)), np.bool_)
        for index, name in enumerate(self.keep):
            gains, errors = self._kept(comparison, name)
            found[:, index] = (gains + CERTAIN * errors < 0).any(1)  # NaN is not certain
        return found

    def _kept(self, comparison: Comparison, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Gains of what is to be kept and their standard errors, (D, classes or 1)."""
        if name == EVERY_CLASS:
            return comparison.differences.classes[..., 0], comparison.differences.class_errors
        if name in PRESENT:
            comparison, name = comparison.under(name), self.objective
        found = comparison.differences
        return found.levels[_split(name)][:, :1], found.errors[_split(name)][:, None]


class Choice(NamedTuple):
    """What ``choose`` found.

    Args:
        winner: the best candidate on all images, perhaps argmax.
        used: whether the winner is to be used; otherwise argmax is.
        gain: over argmax, in points, of candidates chosen without the images that they are scored on.
        interval: of the gain.
        validated: argmax against those, image by image.
        verdict: one line for people.
    """

    winner: str
    used: bool
    gain: float
    interval: tuple[float, float]
    validated: Comparison
    verdict: str


def choose(
    comparison: Comparison,
    objective: str,
    folds: int = 5,
    min_cases: int = 20,
    keep: Sequence[str] = (),
    seed: int = 0,
) -> Choice:
    """Choose from candidates that were compared already; see ``tune``.

    Args:
        comparison: argmax first.
        objective: one of ``OBJECTIVES``.
        folds: at least 2; with fewer cases there are as many as cases.
        min_cases: at least 0; with fewer cases argmax is kept.
        keep: of ``KEEP``, what a choice may not certainly lower.
        seed: of the folds.

    Raises:
        ValueError: for an unknown objective, or too few folds.

    Source: Varma & Simon, "Bias in error estimation when using cross-validation for model selection", BMC
    Bioinformatics 7 (2006).
    """
    check_choice("objective", objective, OBJECTIVES)
    goal = Goal(objective, tuple(keep))
    validated, best = _validate(comparison, goal, read_folds(folds), seed)
    winner, cases = comparison.decoders[best], int(comparison.cases.max()) + 1
    gain, low, high = goal.gains(validated)[0].tolist()
    doubt = _doubt_of_images(cases, min_cases, goal.unit(comparison), gain)
    if doubt is None:
        doubt = _doubt_of_choice(validated, goal) if best else _no_candidate(comparison, goal)
    where = f"{goal.unit(comparison)} on images not used to choose"
    caution = _caution(low) if doubt is None else ""
    figures = f"{points(gain)} points of {where} (interval: {span(low, high)}{caution})"
    verdict = f"{winner}: {figures}" if doubt is None else f"keep argmax: {doubt}"
    if doubt is not None and cases > 1 and not math.isnan(gain):
        verdict += f", {figures}"
    if doubt is None:
        against = contrary(validated, CHOSEN, "gain", (*_split(objective), comparison.scoring.present))
        verdict += f"; but certainly the other way: {listed(against)}" if against else ""
    return Choice(winner, doubt is None, 100 * gain, (100 * low, 100 * high), validated, verdict)


def _caution(low: float) -> str:
    """What to know of a gain that is likely: the interval is of all images that there could be."""
    if math.isnan(low):  # none, of too few cases
        return " to be certain"
    return "" if low > 0 else ", which compare calls no certain difference"


def _split(name: str) -> tuple[str, str]:
    score, level = name.split("_")
    return score, level


def read_keep(keep: object, objective: str) -> tuple[str, ...]:
    """The option ``keep``; None is the dataset level of the score of the objective.

    Raises:
        TypeError: if it is not a list of strings.
        ValueError: for one that is not of ``KEEP``.

    Example:
        >>> read_keep(None, "dice_image"), read_keep(["label", "every-class"], "dice_image")
        (('dice_dataset',), ('label', 'every-class'))
    """
    if keep is None:
        return (f"{_split(objective)[0]}_dataset",)
    if isinstance(keep, str) or not isinstance(keep, Iterable):
        raise TypeError(f"keep must be a list of names, got {keep!r}")
    return tuple(read_choice("each of keep", name, KEEP) for name in keep)


def _doubt_of_images(cases: int, min_cases: int, objective: str, gain: float) -> str | None:
    """Why the images cannot say whether a choice gains; None if they can."""
    if math.isnan(gain):
        return f"no image has a score to compare in {objective}"
    if cases == 1:
        return "all images are of a single case, so none is left to score a choice on and the gain is unknown"
    return f"too few cases ({cases} below min_cases={min_cases}) to choose on" if cases < min_cases else None


def _doubt_of_choice(validated: Comparison, goal: Goal) -> str | None:
    """Why a winner is not to be used though it is the best on all images; None if it is."""
    if not goal.gains(validated)[0, 0] > 0:
        return "choosing gains nothing"
    lost = [
        goal.kept(validated, name) for name, lowers in zip(goal.keep, goal.lowered(validated)[0], strict=True) if lowers
    ]
    return f"the choice lowers {', '.join(lost)} by more than two standard errors" if lost else None


def _no_candidate(comparison: Comparison, goal: Goal) -> str:
    """Why argmax is the best on all images."""
    if _enough(comparison, goal).any():
        kept = " or ".join(goal.kept(comparison, name) for name in goal.keep)
        return f"all candidates that gain lower {kept} by more than two standard errors"
    return "no candidate gains more than a standard error on all images"


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


def check_intervals(confidence: object = 0.95, seed: object = 0) -> None:
    """Refuse options of intervals and folds, or miss SciPy, before images are decoded: their end would be too late.

    Args:
        confidence: of the intervals, between 0 and 1.
        seed: of the folds, at least 0.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for one out of range.
        ImportError: without SciPy.
    """
    check_confidence(confidence)
    if read_integer("seed", seed) < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    require("scipy.stats", extra="report")


def _validate(comparison: Comparison, goal: Goal, folds: int, seed: int) -> tuple[Comparison, int]:
    """Choose for each fold on the others; return what that scores, and the index of the best of all images."""
    cases = [each.case for each in comparison.measurements]
    fold_of_case = deal(cases, folds, seed)
    fold_of_image = np.array([fold_of_case[case] for case in cases])
    chosen: list[Measurement] = list(comparison.measurements)
    for fold in range(max(fold_of_image) + 1):
        best = _best(comparison, fold_of_image != fold, goal)
        for index in np.flatnonzero(fold_of_image == fold):
            chosen[index] = comparison.measurements[index].only([0, best])
    validated = replace(comparison, decoders=(ARGMAX, CHOSEN), measurements=tuple(chosen))
    return validated, _best(comparison, np.ones(len(cases), dtype=bool), goal)


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


def _best(comparison: Comparison, used: np.ndarray, goal: Goal) -> int:
    """Index of the best candidate on the images that are used; argmax, the first, if none gains enough.

    Its gain is the largest of those above a standard error, so that one that gains evenly is not passed over for one
    that gains more by luck. One that certainly lowers what is to be kept is out.
    """
    if not used.any():  # a single case: no others to choose on
        return 0
    # All of them have their figures already, or will need them for the report.
    part = comparison
    if not used.all():
        part = replace(comparison, measurements=tuple(itertools.compress(comparison.measurements, used)))
    able = _enough(part, goal) & ~goal.lowered(part).any(1)
    return int(np.argmax(np.where(able, goal.gains(part)[:, 0], -np.inf))) + 1 if able.any() else 0


def _enough(comparison: Comparison, goal: Goal) -> np.ndarray:
    """Whether each decoder but the baseline gains more than ``ENOUGH`` standard errors, (D,) bool."""
    found: np.ndarray = goal.gains(comparison)[:, 0] > ENOUGH * goal.errors(comparison)  # NaN is not enough
    return found
