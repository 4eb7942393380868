"""Intervals of the differences at every level, from sums over cases.

Every level is a function of sums over images: pooled counts, sums of scores, numbers of known scores. So the figure
without a case is that function of what is left of the sums, and each case is left out once for all figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from rankseg_plugins.comparison.intervals.statistics import FEWEST, jackknife, mean_of_known, settle, unseen
from rankseg_plugins.comparison.measuring import to_areas
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.scores.areas import Areas
from rankseg_plugins.scores.levels import LEVELS, SCORES, image_accuracies

#: Every score and level with a difference.
FIGURES = (*product(SCORES, LEVELS), *product(("accuracy",), LEVELS))
#: Those that are means over classes.
OVER_CLASSES = tuple(level == "class" or (level == "dataset" and score != "accuracy") for score, level in FIGURES)
#: Classes that fewer than FEWEST cases hold may move means over classes by half of what a score can differ by, if at
#: most this share of the classes is held so seldom; else nothing is said of these means.
SELDOM, HALF = 0.1, 0.5
#: With fewer cases a class that none of them holds may still be one of the data.
ENOUGH = 60


@dataclass(frozen=True)
class Differences:
    """Differences to the baseline with their intervals, for each of the other decoders (D).

    Args:
        paired: (D, 2) interval of the mean paired difference of the images.
        levels: by (score, level), (D, 3): difference, lower and upper end; NaN where there are too few cases.
        errors: by (score, level), (D,) standard error of the difference among the cases that were seen.
        classes: (D, C, 3) difference, lower and upper end of the class-level score of each class.
        class_errors: (D, C) their standard errors; NaN where there are too few cases.
    """

    paired: np.ndarray
    levels: dict[tuple[str, str], np.ndarray]
    errors: dict[tuple[str, str], np.ndarray]
    classes: np.ndarray
    class_errors: np.ndarray


class _Sums(NamedTuple):
    """Sums over the images of each case, or of all cases but one, (rows, D, ...)."""

    areas: np.ndarray  # (rows, D, 3, C)
    entries: np.ndarray  # (rows, D, scores, C)
    known: np.ndarray  # (rows, D, C)
    images: np.ndarray  # (rows, D, scores)
    known_images: np.ndarray  # (rows, D)
    accuracies: np.ndarray  # (rows, D, 2): sum of accuracies, number of images with any true pixel
    gains: np.ndarray  # (rows, D, 2): sum of paired differences, number of pairs


def level_differences(
    counts: np.ndarray, cases: np.ndarray, scoring: Scoring, confidence: float, alike: np.ndarray | None = None
) -> Differences:
    """Differences to the first decoder, with intervals.

    Args:
        counts: (D, 3, N, C) counts of every decoder, image and class.
        cases: (N,) index of the case of every image, from 0.
        scoring: what counts as better.
        confidence: in (0, 1).
        alike: (D - 1,) bool, decoders that decided as the first did in every image: nothing is uncertain of them,
            unless there are too few cases. None knows of none.
    """
    sums = _sums(counts, cases, scoring)
    others, classes = len(counts) - 1, counts.shape[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = jackknife(sums, lambda totals: _statistics(_Sums(*totals), scoring))
    held = (sums.known > 0).sum(0)
    ends = found.interval(confidence, _unseen(held, found.cases).ravel()).reshape(others, -1, 2)
    seldom = _seldom(held, found.cases)
    ends += seldom[..., None] * np.array([-HALF, HALF])
    table = np.concatenate([found.values.reshape(others, -1, 1), np.clip(ends, -1, 1)], -1)
    if alike is not None and found.cases >= FEWEST:
        settle(table, alike)
    errors = found.errors.reshape(others, -1)
    return Differences(
        table[:, 0, 1:],
        {figure: table[:, 1 + i] for i, figure in enumerate(FIGURES)},
        {figure: errors[:, 1 + i] for i, figure in enumerate(FIGURES)},
        table[:, -classes:],
        np.where(np.isnan(seldom[:, -classes:]), np.nan, errors[:, -classes:]),
    )


def _unseen(held: np.ndarray, cases: int) -> np.ndarray:
    """How far an unseen case may lie at least: by UNSEEN in one of the classes that a case holds on average.

    Args:
        held: (D, C) cases in which a class counts.
        cases: their number.

    Returns:
        (D - 1, 1 + figures + C), as ``_statistics`` has its columns.
    """
    fewer = np.minimum(held[:1], held[1:])
    means = np.minimum(held[:1].sum(1), held[1:].sum(1))
    columns = np.repeat(means[:, None], 1 + len(FIGURES), 1)
    return unseen(cases, np.concatenate([columns, fewer], 1))


def _seldom(held: np.ndarray, cases: int) -> np.ndarray:
    """The share of classes that few cases hold where it matters, NaN where it is too large; as ``_unseen``."""
    counted = (held[:1] > 0) | (held[1:] > 0) | (cases < ENOUGH)
    seldom = counted & (np.minimum(held[:1], held[1:]) < FEWEST)
    share = seldom.sum(1) / np.maximum(1, counted.sum(1))
    share = np.where(share > SELDOM, np.nan, share)
    means = np.where([False, *OVER_CLASSES], share[:, None], 0.0)
    return np.concatenate([means, np.where(seldom, np.nan, 0.0)], 1)


def _sums(counts: np.ndarray, cases: np.ndarray, scoring: Scoring) -> _Sums:
    parts = [_of_decoder(to_areas(each), scoring) for each in counts]
    gains = [_with_number(part[-1] - parts[0][-1]) for part in parts]
    stacked = [np.stack(each, 1) for each in zip(*(part[:-1] for part in parts), strict=True)]

    def by_case(values: np.ndarray) -> np.ndarray:
        summed = np.zeros((cases.max() + 1, *values.shape[1:]))
        if len(summed) == len(cases):  # each of its own, which is faster
            summed[cases] += values
        else:
            np.add.at(summed, cases, values)
        return summed

    return _Sums(*(by_case(each) for each in (*stacked, np.stack(gains, 1))))


def _of_decoder(areas: Areas, scoring: Scoring) -> tuple[np.ndarray, ...]:
    """All but the last field of ``_Sums`` of every image, then the deciding score of every image."""
    tables = np.stack([scoring.entries(areas, score) for score in SCORES], 1)
    images = np.stack([scoring.image_scores(areas, score) for score in SCORES], 1)
    known = ~np.isnan(tables[:, 0])
    decisive = images[:, list(SCORES).index(scoring.score)]
    return (
        np.stack([each.numpy() for each in areas], 1),
        np.nan_to_num(tables),
        known,
        np.nan_to_num(images),
        ~np.isnan(decisive),
        _with_number(image_accuracies(areas).numpy()),
        decisive,
    )


def _with_number(values: np.ndarray) -> np.ndarray:
    """Values with 0 for NaN, and 1 where they are known: (N, 2)."""
    return np.stack([np.nan_to_num(values), ~np.isnan(values)], 1)


def _statistics(sums: _Sums, scoring: Scoring) -> np.ndarray:
    """(rows, (D - 1) * (1 + figures + C)) differences to the first decoder: paired, every figure, every class."""
    classes = sums.entries / sums.known[:, :, None]
    columns = [sums.gains[..., 0] / sums.gains[..., 1]]
    for score, level in FIGURES:
        columns.append(_LEVELS[level](sums, scoring, score, classes))
    columns += list(np.moveaxis(classes[:, :, list(SCORES).index(scoring.score)], -1, 0))
    table = np.stack(columns, -1)
    others = table[:, 1:].copy()
    others[..., 1:] -= table[:, :1, 1:]
    return others.reshape(len(table), -1)


def _dataset(sums: _Sums, scoring: Scoring, score: str, classes: np.ndarray) -> np.ndarray:
    if score == "accuracy":
        found: np.ndarray = sums.areas[:, :, 0].sum(-1) / sums.areas[:, :, 2].sum(-1)
        return found
    rows, decoders, _, number = sums.areas.shape
    pooled = to_areas(np.moveaxis(sums.areas, 2, 0).reshape(3, -1, number))
    return mean_of_known(scoring.entries(pooled, score).reshape(rows, decoders, number), -1)


def _image(sums: _Sums, scoring: Scoring, score: str, classes: np.ndarray) -> np.ndarray:
    if score == "accuracy":
        total, number = np.moveaxis(sums.accuracies, -1, 0)
    else:
        total, number = sums.images[:, :, list(SCORES).index(score)], sums.known_images
    means: np.ndarray = total / number
    return means


def _class(sums: _Sums, scoring: Scoring, score: str, classes: np.ndarray) -> np.ndarray:
    if score == "accuracy":
        return mean_of_known(sums.areas[:, :, 0] / sums.areas[:, :, 2], -1)
    return mean_of_known(classes[:, :, list(SCORES).index(score)], -1)


_LEVELS = {"dataset": _dataset, "image": _image, "class": _class}
