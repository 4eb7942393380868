"""The figures of a comparison as plain rows and values, for data frames, JSON and tables of any kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rankseg_plugins.comparison.intervals.levels import FIGURES
from rankseg_plugins.comparison.intervals.statistics import mean_of_known
from rankseg_plugins.scores.extra import Column, columns_of
from rankseg_plugins.scores.levels import SCORES, image_accuracies
from rankseg_plugins.scores.shown import LeftOut, left_out

if TYPE_CHECKING:
    from rankseg_plugins.comparison.figures import Figures
    from rankseg_plugins.comparison.paired import Paired

#: A score and a level.
Level = tuple[str, str]
#: Every score and level that a report shows.
ALL_LEVELS: tuple[Level, ...] = (*FIGURES, ("dice", "worst"), ("iou", "worst"))

#: Rows of the calibration that stand for all classes.
TOP_LABEL, ALL_CLASSES = "top label", "all classes"


class DecoderRow(NamedTuple):
    """A decoder on all images.

    Args:
        name: of the decoder.
        value: its mean score of an image.
        seconds: median decode time of an image, NaN where it was not taken.
        paired: against the baseline; None for the baseline itself.
        levels: every score at every level.
        classes: every score of every class, see ``class_table``.
        left_out: in how many images it leaves out classes that the baseline shows; of the baseline itself in none.
        presence: see ``Comparison.presence_of``.
    """

    name: str
    value: float
    seconds: float
    paired: Paired | None
    levels: Mapping[Level, float]
    classes: Mapping[str, np.ndarray]
    left_out: LeftOut
    presence: dict[str, Any] | None


def best_of(rows: Iterable[DecoderRow]) -> DecoderRow | None:
    """The decoder with the largest gain on the baseline, the first of equal ones; None where no gain is known."""
    known = [(row.paired.mean, row) for row in rows if row.paired and not np.isnan(row.paired.mean)]
    return max(known, key=lambda each: each[0])[1] if known else None


class CalibrationRow(NamedTuple):
    """How far the probabilities of a class can be trusted, or those of the top label, or of all classes together.

    Args:
        name: of the class, or ``TOP_LABEL`` or ``ALL_CLASSES``.
        error: expected calibration error.
        overconfidence: mean probability minus frequency.
        curve: see ``Calibration.curve``.
        main: whether it stands for all classes.
    """

    name: str
    error: float
    overconfidence: float
    curve: tuple[np.ndarray, np.ndarray, np.ndarray]
    main: bool


class ExtraRow(NamedTuple):
    """A figure of an extra score.

    Args:
        column: what it is.
        baseline: mean of the baseline.
        others: of each other decoder its mean, the difference to the baseline, and the interval of that.
        pairs: of each other decoder, images and classes that the difference is of.
        classes: (C, D) mean of every scored class with every decoder.
    """

    column: Column
    baseline: float
    others: list[tuple[float, float, tuple[float, float]]]
    pairs: list[int]
    classes: np.ndarray


class ExtraTable(NamedTuple):
    """An extra score.

    Args:
        name: of the score.
        explanation: how it is measured.
        rows: its figures.
    """

    name: str
    explanation: str
    rows: list[ExtraRow]


class Tables(NamedTuple):
    """The figures of a comparison, worked out once for every form that shows them.

    Args:
        decoders: the baseline first.
        levels: of the baseline the value, and of each other decoder value, gain and its interval, if any.
        classes: name, images whose truth holds it, score of the baseline, and of each other decoder (gain, low, high).
        shown: name, images whose truth holds it, and of each decoder in how many it is shown, and in how many of these
            rightly.
        calibration: of each scored class, and at the end what stands for all of them: the top label where it was taken,
            otherwise, of several classes, all pixels of all classes. Empty where nothing was measured.
        extra: of each extra score; empty without.
    """

    decoders: list[DecoderRow]
    levels: Mapping[Level, tuple[float, list[tuple[float, float, tuple[float, float] | None]]]]
    classes: list[tuple[str, int, float, np.ndarray]]
    shown: list[tuple[str, int, list[tuple[int, int]]]]
    calibration: list[CalibrationRow]
    extra: list[ExtraTable]


def read_tables(comparison: Figures) -> Tables:
    """Work out every figure; see ``Comparison.tables``, which keeps them."""
    decoders = [_decoder(comparison, name) for name in comparison.decoders]
    return Tables(
        decoders,
        {level: _level(comparison, decoders, level) for level in ALL_LEVELS},
        _classes(comparison, decoders[0]),
        _shown(comparison),
        _calibration(comparison),
        _extra(comparison),
    )


def _decoder(comparison: Figures, name: str) -> DecoderRow:
    levels = {(score, level): comparison.level(name, score, level) for score, level in ALL_LEVELS}
    seconds = comparison.seconds[comparison.decoders.index(name)]
    known = seconds[~np.isnan(seconds)]
    return DecoderRow(
        name,
        levels[comparison.scoring.score, "image"],
        float(np.median(known)) if len(known) else np.nan,
        comparison.paired(name) if name in comparison.candidates else None,
        levels,
        comparison.class_table(name),
        left_out(comparison.areas(comparison.decoders[0]), comparison.areas(name)),
        comparison.presence_of(name),
    )


def _level(comparison: Figures, decoders: list[DecoderRow], level: Level) -> tuple[float, list[Any]]:
    baseline, *values = (row.levels[level] for row in decoders)
    if level not in comparison.differences.levels:  # the worst images are others for each decoder
        return baseline, [(value, value - baseline, None) for value in values]
    gains = comparison.differences.levels[level]
    return baseline, [(value, gain, (low, high)) for value, (gain, low, high) in zip(values, gains, strict=True)]


def _classes(comparison: Figures, baseline: DecoderRow) -> list[tuple[str, int, float, np.ndarray]]:
    images, scores = baseline.classes["images"].tolist(), baseline.classes[f"{comparison.scoring.score}_class"]
    gains = comparison.differences.classes.swapaxes(0, 1)
    return list(zip(comparison.scored_classes, images, scores, gains, strict=True))


def _shown(comparison: Figures) -> list[tuple[str, int, list[tuple[int, int]]]]:
    areas = [comparison.areas(decoder) for decoder in comparison.decoders]
    held, shown = areas[0].label > 0, [each.prediction > 0 for each in areas]
    numbers = [list(zip(each.sum(0).tolist(), (each & held).sum(0).tolist(), strict=True)) for each in shown]
    by_class = map(list, zip(*numbers, strict=True))
    return list(zip(comparison.scored_classes, held.sum(0).tolist(), by_class, strict=True))


def _calibration(comparison: Figures) -> list[CalibrationRow]:
    measured = comparison.calibration
    if measured is None:
        return []
    kept, classes = comparison.scoring.kept(len(comparison.classes)), len(comparison.classes)
    found = [(comparison.classes[label], [label]) for label in kept]
    if len(measured.count) > classes:
        found.append((TOP_LABEL, [classes]))
    elif len(kept) > 1:
        found.append((ALL_CLASSES, kept))
    pooled = [(name, measured.pooled(rows)) for name, rows in found]
    last = len(found) - 1
    return [
        CalibrationRow(name, each.error()[0], each.overconfidence()[0], each.curve(0), index == last)
        for index, (name, each) in enumerate(pooled)
    ]


def _extra(comparison: Figures) -> list[ExtraTable]:
    found: list[ExtraTable] = []
    first = 0
    for score in comparison.extra:
        rows = [_extra_row(comparison, column, first + index) for index, column in enumerate(score.columns)]
        found.append(ExtraTable(score.name, score.explanation, rows))
        first += len(rows)
    return found


def _extra_row(comparison: Figures, column: Column, index: int) -> ExtraRow:
    figures = comparison.extra_figures
    baseline, *means = figures.means[:, index].tolist()
    gains = figures.gains[:, index].tolist()
    others = [(mean, gain, (low, high)) for mean, (gain, low, high) in zip(means, gains, strict=True)]
    return ExtraRow(column, baseline, others, figures.pairs[:, index].tolist(), figures.classes[:, index].T)


def rows(comparison: Figures) -> list[dict[str, Any]]:
    """One dict for each image and decoder; see ``Comparison.to_rows``."""
    found = []
    scoring = comparison.scoring
    for index, decoder in enumerate(comparison.decoders):
        areas = comparison.areas(decoder)
        columns = {"pixel_accuracy": image_accuracies(areas).numpy()}
        columns |= {name: scoring.image_scores(areas, name) for name in SCORES}
        for name in ("dice", "iou"):
            by_class = scoring.entries(areas, name)
            columns |= {f"{name} {title}": by_class[:, c] for c, title in enumerate(comparison.scored_classes)}
        if comparison.expected_scores is not None:
            columns[f"expected_{scoring.score}"] = comparison.expected_scores[index]
        if comparison.extra:
            by_image = mean_of_known(comparison.extra_entries[index], -1)
            columns |= {each.name: by_image[k] for k, each in enumerate(columns_of(comparison.extra))}
        for i, measured in enumerate(comparison.measurements):
            head = {"image": measured.name, "case": measured.case, "decoder": decoder}
            values = {"seconds": comparison.seconds[index, i], **{name: each[i] for name, each in columns.items()}}
            found.append({**head, **{name: float(value) for name, value in values.items()}})
    return found
