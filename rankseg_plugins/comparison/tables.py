"""The figures of a comparison as plain rows and values, for data frames, JSON and tables of any kind."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rankseg_plugins.scores.levels import LEVELS, SCORES, image_accuracies

if TYPE_CHECKING:
    from rankseg_plugins.comparison.comparison import Comparison, Paired

#: What a word begins with that spreadsheets compute, and the mark of such words.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


class DecoderRow(NamedTuple):
    """A decoder on all images.

    Args:
        name: of the decoder.
        value: its mean score of an image.
        seconds: median decode time of an image, NaN where it was not taken.
        paired: against the baseline; None for the baseline itself.
    """

    name: str
    value: float
    seconds: float
    paired: Paired | None


class Tables(NamedTuple):
    """What the tables of a report show, taken once for all of its forms.

    Args:
        decoders: the baseline first.
        levels: score, level, value of the baseline, and of each other decoder value, gain and its interval, if any.
        classes: name, images whose truth holds it, score of the baseline, and of each other decoder (gain, low, high).
        shown: name, images whose truth holds it, and of each decoder in how many it is shown, and in how many of these
            rightly.
        calibration: name, expected calibration error and overconfidence; empty where nothing was measured.
    """

    decoders: list[DecoderRow]
    levels: list[tuple[str, str, float, Sequence[tuple[float, float, tuple[float, float] | None]]]]
    classes: list[tuple[str, int, float, np.ndarray]]
    shown: list[tuple[str, int, list[tuple[int, int]]]]
    calibration: list[tuple[str, float, float]]


def read_tables(comparison: Comparison, levels: Sequence[tuple[str, str]]) -> Tables:
    """The tables of a report, with these scores at these levels."""
    table, gains = comparison.class_table(comparison.decoders[0]), comparison.differences.classes.swapaxes(0, 1)
    columns = table["images"].tolist(), table[f"{comparison.scoring.score}_class"], gains
    return Tables(
        decoder_rows(comparison),
        [(*each, *read_level(comparison, *each)) for each in levels],
        list(zip(comparison.scored_classes, *columns, strict=True)),
        _shown(comparison),
        _calibration_errors(comparison),
    )


def _shown(comparison: Comparison) -> list[tuple[str, int, list[tuple[int, int]]]]:
    areas = [comparison.areas(decoder) for decoder in comparison.decoders]
    held, shown = areas[0].label > 0, [each.prediction > 0 for each in areas]
    numbers = zip(
        *(zip(each.sum(0).tolist(), (each & held).sum(0).tolist(), strict=True) for each in shown), strict=True
    )
    return [
        (*row[:2], list(row[2])) for row in zip(comparison.scored_classes, held.sum(0).tolist(), numbers, strict=True)
    ]


def decoder_rows(comparison: Comparison) -> list[DecoderRow]:
    """A row for each decoder."""
    found = []
    for name, seconds in zip(comparison.decoders, comparison.seconds, strict=True):
        value, known = comparison.level(name, comparison.scoring.score, "image"), seconds[~np.isnan(seconds)]
        paired = comparison.paired(name) if name in comparison.candidates else None
        found.append(DecoderRow(name, value, float(np.median(known)) if len(known) else np.nan, paired))
    return found


def read_level(comparison: Comparison, score: str, level: str) -> tuple[float, list[Any]]:
    """The value of the baseline, and of each other decoder value, gain and its interval; None for the worst images."""
    baseline, *values = (comparison.level(decoder, score, level) for decoder in comparison.decoders)
    if level == "worst":
        return baseline, [(value, value - baseline, None) for value in values]
    gains = comparison.differences.levels[score, level]
    return baseline, [(value, gain, (low, high)) for value, (gain, low, high) in zip(values, gains, strict=True)]


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One dict for each image and decoder; see :meth:`Comparison.to_rows`."""
    found = []
    scoring = comparison.scoring
    for index, decoder in enumerate(comparison.decoders):
        areas = comparison.areas(decoder)
        columns = {"pixel_accuracy": image_accuracies(areas).numpy()}
        columns |= {name: scoring.image_scores(areas, name) for name in SCORES}
        for name in ("dice", "iou"):
            by_class = scoring.entries(areas, name)
            columns |= {f"{name} {title}": by_class[:, c] for c, title in enumerate(comparison.scored_classes)}
        for i, measured in enumerate(comparison.measurements):
            head = {"image": measured.name, "case": measured.case, "decoder": decoder}
            values = {"seconds": comparison.seconds[index, i], **{name: each[i] for name, each in columns.items()}}
            found.append({**head, **{name: float(value) for name, value in values.items()}})
    return found


def to_csv(comparison: Comparison) -> str:
    """:func:`rows` as CSV text; what is not known stays empty.

    Words that a spreadsheet would take for a formula begin with an apostrophe, and so do those that begin with one
    anyway: without their first apostrophe all words are what they were.
    """
    table, text = rows(comparison), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_csv_cell, table[0]))
    writer.writerows(map(_csv_cell, row.values()) for row in table)
    return text.getvalue()


def _csv_cell(value: str | float) -> str | float:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return "" if np.isnan(value) else value


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything but the images, as values that JSON holds; unknown ones are None, scores are shares."""
    decoders = {row.name: _decoder(comparison, row) for row in decoder_rows(comparison)}
    scoring = comparison.scoring
    return _plain(
        {
            "score": f"image {scoring.score}",
            "present": scoring.present,
            "absent": scoring.absent,
            "classes": comparison.scored_classes,
            "images": len(comparison.names),
            "cases": int(comparison.cases.max()) + 1,
            "baseline": comparison.decoders[0],
            "decoders": decoders,
            "calibration": _calibration(comparison),
            "skipped": comparison.skipped,
            "bootstrap": {
                "resamples": comparison.resamples,
                "confidence": comparison.confidence,
                "seed": comparison.seed,
            },
            "facts": comparison.facts,
        }
    )


def _decoder(comparison: Comparison, row: DecoderRow) -> dict[str, Any]:
    names = [(score, level) for score in (*SCORES, "accuracy") for level in LEVELS]
    names += [(score, "worst") for score in ("dice", "iou")]
    found: dict[str, Any] = {
        "levels": {f"{score}_{level}": comparison.level(row.name, score, level) for score, level in names},
        "classes": comparison.class_table(row.name),
        "milliseconds": 1000 * row.seconds,
    }
    if row.paired:
        found["paired"] = _paired(comparison, row.name, row.paired)
    return found


def _paired(comparison: Comparison, decoder: str, paired: Paired) -> dict[str, Any]:
    differences, index = comparison.differences, comparison.candidates.index(decoder)
    return {
        "images": len(paired.names),
        "mean": paired.mean,
        "interval": paired.interval,
        "wins": paired.wins,
        "losses": paired.losses,
        "ties": paired.ties,
        "wilcoxon": paired.wilcoxon,
        "sign_test": paired.sign,
        "improvements": paired.improvements(),
        "regressions": paired.regressions(),
        "levels": {f"{score}_{level}": each[index] for (score, level), each in differences.levels.items()},
        "classes": dict(zip(comparison.scored_classes, differences.classes[index], strict=True)),
    }


def _calibration(comparison: Comparison) -> dict[str, Any] | None:
    if comparison.calibration is None:
        return None
    errors = _calibration_errors(comparison)
    found = [(name, {"expected_error": error, "overconfidence": over}) for name, error, over in errors]
    number = len(comparison.scored_classes)
    return {"classes": dict(found[:number]), "top_label": found[number][1] if len(found) > number else None}


def _calibration_errors(comparison: Comparison) -> list[tuple[str, float, float]]:
    measured = comparison.calibration
    if measured is None:
        return []
    error, over = measured.error(), measured.overconfidence()
    return [(name, error[row], over[row]) for name, row in calibration_rows(comparison)]


def calibration_rows(comparison: Comparison) -> list[tuple[str, int]]:
    """Name and row of the calibration of each scored class, and of the top label at the end, where it was taken."""
    found = [(comparison.classes[label], label) for label in comparison.scoring.kept(len(comparison.classes))]
    measured = comparison.calibration
    if measured is not None and len(measured.count) > len(comparison.classes):
        found.append(("top label", len(comparison.classes)))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value
