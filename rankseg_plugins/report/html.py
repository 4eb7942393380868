"""The report as one HTML page that needs nothing else: no network, no scripts, pictures inline."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.examples import Example
from rankseg_plugins.comparison.pictures import LEGEND, class_colours
from rankseg_plugins.comparison.tables import Tables
from rankseg_plugins.report import words
from rankseg_plugins.report.introduction import Introduction
from rankseg_plugins.report.panels import encode, pictures, shown_classes

if TYPE_CHECKING:
    from jinja2 import Environment


def to_html(
    comparison: Comparison, tables: Tables, charts: Sequence[Mapping[str, Any]], introduction: Introduction | None
) -> str:
    """Write the report.

    Args:
        comparison: the figures.
        tables: those of them that stand in tables.
        charts: title, text, and PNGs ``light`` and ``dark`` of each.
        introduction: stands in place of the verdicts on each decoder.
    """
    sentences = words.verdicts(comparison, tables.decoders)
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
        tables=tables,
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
