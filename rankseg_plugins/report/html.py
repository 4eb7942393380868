"""The report as one HTML page that needs nothing else: no network, no scripts, pictures inline."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.examples import Example
from rankseg_plugins.comparison.pictures import LEGEND, class_colours
from rankseg_plugins.comparison.tables import calibration_rows, median_seconds
from rankseg_plugins.report import words
from rankseg_plugins.report.introduction import Introduction
from rankseg_plugins.report.panels import encode, pictures, shown_classes

if TYPE_CHECKING:
    from jinja2 import Environment


def to_html(
    comparison: Comparison, charts: Sequence[Mapping[str, Any]], introduction: Introduction | None = None
) -> str:
    """Write the report.

    Args:
        comparison: the figures.
        charts: title, text, and PNGs ``light`` and ``dark`` of each.
        introduction: stands in place of the verdicts on each decoder.
    """
    sentences = [(words.verdict(comparison, each), _sign(comparison, each)) for each in comparison.candidates]
    warnings = words.warnings(comparison)
    if introduction:
        sentences = [(introduction.verdict, introduction.sign)]
        warnings = [*introduction.notes, *warnings]
    page = _environment().get_template("template.html")
    return page.render(
        comparison=comparison,
        words=words,
        unit=words.unit(comparison),
        introduction=introduction,
        sentences=sentences,
        warnings=warnings,
        decoders=[_decoder(comparison, decoder) for decoder in comparison.decoders],
        levels=[_level(comparison, *row) for row in words.LEVEL_ROWS],
        worst=[_level(comparison, *row) for row in words.WORST_ROWS],
        classes=_classes(comparison),
        calibration=_calibration(comparison),
        calibration_sentence=words.calibration_sentence(comparison),
        charts=[{**each, "light": _inline(each["light"]), "dark": _inline(each["dark"])} for each in charts],
        examples=[(title, [_example(e, comparison) for e in found]) for title, found in _groups(comparison)],
        class_legend=_class_legend(comparison),
        legend=[(name, _hex(colour)) for name, colour in LEGEND.items()],
    )


def _environment() -> Environment:
    jinja2 = require("jinja2", extra="report")
    environment: Environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rankseg_plugins.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Names come from files and from callers, and reach all parts of the page.
        finalize=lambda value: words.printable(value) if type(value) is str else value,
    )
    markup = require("markupsafe", extra="report")

    def breakable(text: str) -> Any:
        """Let long names of decoders break behind brackets and commas."""
        text = markup.escape(words.printable(text))
        return text.replace(",", markup.Markup(",<wbr>")).replace("(", markup.Markup("<wbr>("))

    def code(text: str) -> Any:
        """Keep the lines."""
        return markup.escape("\n".join(map(words.printable, text.split("\n"))))

    def minus(text: str) -> str:
        """A minus as wide as a plus in front of numbers; names keep their hyphens."""
        return text.replace(" -", " \u2212") if not text.startswith("-") else "\u2212" + minus(text[1:])

    environment.filters |= {"breakable": breakable, "code": code, "minus": minus}
    return environment


def _sign(comparison: Comparison, decoder: str) -> str:
    return words.sign(*comparison.paired(decoder).interval)


def _decoder(comparison: Comparison, decoder: str) -> dict[str, Any]:
    value = comparison.level(decoder, comparison.scoring.score, "image")
    row: dict[str, Any] = {
        "name": decoder,
        "value": value,
        "milliseconds": words.milliseconds(median_seconds(comparison, decoder)),
    }
    if decoder in comparison.candidates:
        row |= {"paired": comparison.paired(decoder), "sign": _sign(comparison, decoder)}
    return row


def _level(comparison: Comparison, score: str, level: str) -> dict[str, Any]:
    values = [comparison.level(decoder, score, level) for decoder in comparison.decoders]
    cells: list[dict[str, Any]] = []
    for index, value in enumerate(values[1:]):
        if level == "worst":
            cells.append({"value": value, "gain": value - values[0], "interval": None, "sign": "unclear"})
        else:
            gain, low, high = comparison.differences.levels[score, level][index]
            cells.append({"value": value, "gain": gain, "interval": (low, high), "sign": words.sign(low, high)})
    return {"title": words.row_title(score, level), "baseline": values[0], "cells": cells}


def _classes(comparison: Comparison) -> list[dict[str, Any]]:
    table = comparison.class_table(comparison.decoders[0])
    score = comparison.scoring.score
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(comparison.scored_classes):
        differences = comparison.differences.classes[:, index]
        gains = [(value, (low, high), words.sign(low, high)) for value, low, high in differences]
        rows.append(
            {
                "name": name,
                "images": int(table["images"][index]),
                "baseline": table[f"{score}_class"][index],
                "gains": gains,
            }
        )
    return rows


def _calibration(comparison: Comparison) -> list[tuple[str, float, float]]:
    measured = comparison.calibration
    if measured is None:
        return []
    error, over = measured.error(), measured.overconfidence()
    return [(name, error[row], over[row]) for name, row in calibration_rows(comparison)]


def _groups(comparison: Comparison) -> list[tuple[str, tuple[Example, ...]]]:
    groups = [("Most improved", comparison.improved), ("Most damaged", comparison.damaged)]
    return [(title, found) for title, found in groups if found]


def _example(example: Example, comparison: Comparison) -> dict[str, Any]:
    titles = ("truth", comparison.decoders[0], comparison.candidates[0], "difference")
    shown = pictures(example, len(comparison.classes))
    height, width = shown[0].shape[:2]
    return {
        "name": example.name,
        "gain": example.gain,
        "size": (width, height),
        "pictures": [(title, _inline(encode(each))) for title, each in zip(titles, shown, strict=True)],
    }


def _class_legend(comparison: Comparison) -> list[tuple[str, str]]:
    names = comparison.classes if len(comparison.classes) > 1 else ("background", *comparison.classes)
    colours = class_colours(max(len(names), 2))
    found = shown_classes((*comparison.improved, *comparison.damaged))
    return [(names[label], _hex(colours[label])) for label in found if label < len(names)]


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
