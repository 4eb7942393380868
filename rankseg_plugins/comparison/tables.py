"""The figures of a comparison as plain rows and values, for data frames, JSON and tables of any kind."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from rankseg_plugins.scores.levels import LEVELS, SCORES, image_accuracies

if TYPE_CHECKING:
    from rankseg_plugins.comparison.comparison import Comparison


#: What a word begins with that spreadsheets compute, and the mark of such words.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


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
    decoders = {decoder: _decoder(comparison, decoder) for decoder in comparison.decoders}
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


def _decoder(comparison: Comparison, decoder: str) -> dict[str, Any]:
    names = [(score, level) for score in (*SCORES, "accuracy") for level in LEVELS]
    names += [(score, "worst") for score in ("dice", "iou")]
    found: dict[str, Any] = {
        "levels": {f"{score}_{level}": comparison.level(decoder, score, level) for score, level in names},
        "classes": comparison.class_table(decoder),
        "milliseconds": 1000 * median_seconds(comparison, decoder),
    }
    if decoder in comparison.candidates:
        found["paired"] = _paired(comparison, decoder)
    return found


def _paired(comparison: Comparison, decoder: str) -> dict[str, Any]:
    paired, index = comparison.paired(decoder), comparison.candidates.index(decoder)
    differences = comparison.differences
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


def median_seconds(comparison: Comparison, decoder: str) -> float:
    """Median decode time of an image, NaN where it was not taken."""
    seconds = comparison.seconds[comparison.decoders.index(decoder)]
    known = seconds[~np.isnan(seconds)]
    return float(np.median(known)) if len(known) else float("nan")


def _calibration(comparison: Comparison) -> dict[str, Any] | None:
    measured = comparison.calibration
    if measured is None:
        return None
    error, over = measured.error(), measured.overconfidence()
    rows = calibration_rows(comparison)
    found = [(name, {"expected_error": error[row], "overconfidence": over[row]}) for name, row in rows]
    number = len(comparison.scored_classes)
    return {"classes": dict(found[:number]), "top_label": found[number][1] if len(found) > number else None}


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
