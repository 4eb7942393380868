"""A comparison as values for JSON, and tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.paired import Paired
from rankseg_plugins.comparison.telling.groups import group_losses
from rankseg_plugins.comparison.telling.tables import ALL_CLASSES, TOP_LABEL, DecoderRow, rows
from rankseg_plugins.comparison.telling.trust import trust_rows
from rankseg_plugins.comparison.telling.verdict import headlines
from rankseg_plugins.scores.extra import columns_of

#: What a word begins with that spreadsheets compute, and the mark of such words.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def to_csv(comparison: Comparison) -> str:
    """``rows`` as CSV text; see ``csv_text``."""
    return csv_text(rows(comparison))


def csv_text(table: Sequence[Mapping[str, str | float]]) -> str:
    """Rows of the same columns as CSV text; what is not known stays empty.

    Words that a spreadsheet would take for a formula begin with an apostrophe, and so do those that begin with one
    anyway: without their first apostrophe all words are what they were.
    """
    text = io.StringIO()
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
    scoring = comparison.scoring
    found: dict[str, Any] = _plain(
        {
            "score": f"image {scoring.score}",
            "present": scoring.present,
            "absent": scoring.absent,
            "classes": comparison.scored_classes,
            "images": len(comparison.names),
            "cases": int(comparison.cases.max()) + 1,
            "baseline": comparison.decoders[0],
            "decoders": {row.name: _decoder_as_dict(comparison, row) for row in comparison.tables.decoders},
            "calibration": _calibration_as_dict(comparison),
            "cautions": comparison.cautions,
            "skipped": comparison.skipped,
            "confidence": comparison.confidence,
            "facts": comparison.facts,
            **_extra_as_dict(comparison),
            **_trust_as_dict(comparison),
            **_groups_as_dict(comparison),
        }
    )
    return found


def _decoder_as_dict(comparison: Comparison, row: DecoderRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "levels": {f"{score}_{level}": value for (score, level), value in row.levels.items()},
        "classes": row.classes,
        "milliseconds": 1000 * row.seconds,
        "presence": row.presence,
    }
    if row.paired:
        found["verdict"] = comparison.verdict(row.name).sentence
        found["headlines"] = [each._asdict() for each in headlines(comparison, row.name)]
        found["paired"] = _paired_as_dict(comparison, row.name, row.paired)
    return found


def _paired_as_dict(comparison: Comparison, decoder: str, paired: Paired) -> dict[str, Any]:
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


def _extra_as_dict(comparison: Comparison) -> dict[str, Any]:
    """Of each figure what it is, the mean of each decoder, and the difference of each other one to the baseline."""
    if not comparison.extra:
        return {}
    figures, found = comparison.extra_figures, {}
    for k, column in enumerate(columns_of(comparison.extra)):
        by_decoder = {
            name: {
                "mean": figures.means[d, k],
                "entries": figures.numbers[d, k],
                "classes": dict(zip(comparison.scored_classes, figures.classes[d, k], strict=True)),
            }
            for d, name in enumerate(comparison.decoders)
        }
        for d, name in enumerate(comparison.candidates):
            mean, *interval = figures.gains[d, k]
            classes = dict(zip(comparison.scored_classes, figures.class_gains[d, k], strict=True))
            paired = {"mean": mean, "interval": interval, "entries": figures.pairs[d, k], "classes": classes}
            by_decoder[name]["paired"] = paired
        found[column.name] = {
            "title": column.title,
            "unit": column.unit,
            "higher_is_better": column.higher_is_better,
            "decoders": by_decoder,
        }
    return {"extra": found}


def _calibration_as_dict(comparison: Comparison) -> dict[str, Any] | None:
    rows = comparison.tables.calibration
    if not rows:
        return None
    found = [{"expected_error": row.error, "overconfidence": row.overconfidence} for row in rows]
    classes = comparison.scored_classes
    # A class may have the name of a row that stands for all.
    whole = {row.name: each for row, each in zip(rows[len(classes) :], found[len(classes) :], strict=True)}
    of_all = {name.replace(" ", "_"): whole.get(name) for name in (TOP_LABEL, ALL_CLASSES)}
    return {"classes": dict(zip(classes, found, strict=False)), **of_all}


def _trust_as_dict(comparison: Comparison) -> dict[str, Any]:
    """The same as values for JSON; its images are in the table of images."""
    found = {
        row.name: {
            "images": len(row.curve.risk),
            "left_out": row.curve.left_out,
            "expected": row.expected,
            "reached": 1 - row.curve.random,
            "aurc": row.curve.area,
            "aurc_ideal": row.curve.ideal,
            "aurc_random": row.curve.random,
            "normalised_excess": row.curve.excess,
        }
        for row in trust_rows(comparison)
    }
    return {"risk_coverage": found} if found else {}


def _groups_as_dict(comparison: Comparison) -> dict[str, Any]:
    """Every column as values for JSON."""
    if not comparison.groups:
        return {}
    found = {
        table.column: {
            row.value: {
                "images": row.images,
                "cases": row.cases,
                "baseline": row.baseline,
                "gains": {
                    name: {"mean": gain, "interval": ends}
                    for name, (gain, *ends) in zip(comparison.candidates, row.gains, strict=True)
                },
            }
            for row in table.rows
        }
        for table in comparison.group_tables
    }
    return {"groups": found, "group_losses": group_losses(comparison, comparison.group_tables)}


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
