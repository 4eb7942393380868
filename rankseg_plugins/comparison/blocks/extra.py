"""Extra scores of a comparison: means, and paired differences to the baseline with their intervals.

They are averaged as the scores of counts are: over the classes of an image that count, then over images. Of distances a
pair of decoders is compared where both have one, image by image and class by class; so the difference is not that of
the means, which each decoder has over the classes that it shows itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rankseg_plugins.comparison.intervals.statistics import FEWEST, jackknife, mean_of_known, ratio, settle, unseen
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.scores.areas import Areas
from rankseg_plugins.scores.extra import ExtraScore, columns_of, entries


class ExtraFigures(NamedTuple):
    """Figures (K) of all extra scores, of D decoders and C scored classes.

    Args:
        means: (D, K) over the classes of an image, then over images.
        classes: (D, K, C) over the images of a class.
        numbers: (D, K) images and classes with a figure.
        gains: (D - 1, K, 3) differences to the first decoder, image by image, and both ends of their intervals.
        class_gains: (D - 1, K, C, 3) the same of each class.
        pairs: (D - 1, K) images and classes that the difference is of.
    """

    means: np.ndarray
    classes: np.ndarray
    numbers: np.ndarray
    gains: np.ndarray
    class_gains: np.ndarray
    pairs: np.ndarray


def extra_entries(
    values: np.ndarray, areas: Sequence[Areas], scores: Sequence[ExtraScore], scoring: Scoring
) -> np.ndarray:
    """Which figures count.

    Args:
        values: (N, D, K, C) of every image, decoder and class.
        areas: counts (N, C) of every decoder.
        scores: what was measured.
        scoring: which classes count.

    Returns:
        (D, K, N, C) of the scored classes; NaN where there is none.
    """
    held = np.stack([(each.union if scoring.present == "union" else each.label).numpy() > 0 for each in areas], 1)
    kept = scoring.kept(values.shape[-1])
    return np.moveaxis(entries(values, scores, held, scoring.absent)[..., kept], 0, 2)


def extra_figures(
    found: np.ndarray, scores: Sequence[ExtraScore], cases: np.ndarray, confidence: float, alike: np.ndarray
) -> ExtraFigures:
    """Means and differences of figures.

    Args:
        found: (D, K, N, C), see ``extra_entries``.
        scores: what was measured.
        cases: (N,) index of the case of every image, from 0.
        confidence: in (0, 1).
        alike: see ``rankseg_plugins.comparison.intervals.levels.level_differences``.
    """
    ours, base = _paired(found, scores)
    differences = mean_of_known(ours, -1) - mean_of_known(base, -1)  # (D - 1, K, N)
    # Of each case: sum and number of the differences of images, and of both decoders by class.
    parts = [_sums(each, cases) for each in (differences, ours, base)]

    def statistic(totals: Sequence[np.ndarray]) -> np.ndarray:
        images, mine, theirs = (ratio(*each.swapaxes(0, 1)) for each in totals)
        return np.concatenate([images[..., None], mine - theirs], -1).reshape(len(images), -1)

    estimate = jackknife(parts, statistic)
    ends = estimate.interval(confidence, _unseen(parts, scores).ravel())
    table = np.column_stack([estimate.values, ends]).reshape(*ours.shape[:2], -1, 3)
    if estimate.cases >= FEWEST:
        settle(table, alike)
    return ExtraFigures(
        mean_of_known(mean_of_known(found, -1), -1),
        mean_of_known(found, 2),
        (~np.isnan(found)).sum((2, 3)),
        table[:, :, 0],
        table[:, :, 1:],
        (~np.isnan(ours) & ~np.isnan(base)).sum((2, 3)),
    )


def _unseen(parts: Sequence[np.ndarray], scores: Sequence[ExtraScore]) -> np.ndarray:
    """How far an unseen case may lie at least, as for scores of counts; nothing is known of distances.

    Returns:
        (D - 1, K, 1 + C): of the mean, then of each class; NaN where too few cases have a figure.
    """
    images, ours, base = ((each[:, 1] > 0).sum(0) for each in parts)  # cases with a figure: (D - 1, K) and with classes
    held = np.minimum(ours, base)
    cases = np.concatenate([images[..., None], held], -1)
    entries = np.concatenate([held.sum(-1, keepdims=True), held], -1)
    shares = np.array([column.is_share for column in columns_of(scores)])[:, None]
    return np.where(cases < FEWEST, np.nan, shares * unseen(len(parts[0]), entries))


def _paired(found: np.ndarray, scores: Sequence[ExtraScore]) -> tuple[np.ndarray, np.ndarray]:
    """Every other decoder and the baseline beside it; distances only where both have one."""
    ours, base = found[1:], np.broadcast_to(found[:1], found[1:].shape)
    shares = np.array([column.is_share for column in columns_of(scores)])[:, None, None]
    kept = shares | ~(np.isnan(ours) | np.isnan(base))
    return np.where(kept, ours, np.nan), np.where(kept, base, np.nan)


def _sums(values: np.ndarray, cases: np.ndarray) -> np.ndarray:
    """Sum and number of the known values (D, K, N, ...) of each case: (cases, 2, D, K, ...)."""
    values = np.moveaxis(values, 2, 0)
    summed = np.zeros((int(cases.max()) + 1, 2, *values.shape[1:]))
    np.add.at(summed, cases, np.stack([np.nan_to_num(values), ~np.isnan(values)], 1))
    return summed
