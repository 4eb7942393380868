"""The report as one HTML page that needs nothing else: no network, no scripts, pictures inline."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rankseg_plugins._imports import require
from rankseg_plugins.comparison import phrases
from rankseg_plugins.report import words
from rankseg_plugins.report.page import Page
from rankseg_plugins.report.panels import draw_panels

if TYPE_CHECKING:
    from jinja2 import Environment


#: Of a number, at the beginning, behind a blank or a bracket.
MINUS = re.compile(r"(?:(?<=^)|(?<=[ (]))-(?=\d)")


def to_html(page: Page, charts: Sequence[Mapping[str, Any]]) -> str:
    """Write the report.

    Args:
        page: what it says.
        charts: title, text, and PNGs ``light`` and ``dark`` of each.
    """
    template = _environment().get_template("template.html")
    return template.render(
        page=page,
        introduction=page.introduction,
        comparison=page.comparison,
        tables=page.comparison.tables,
        unit=phrases.unit(page.comparison.scoring),
        phrases=phrases,
        words=words,
        charts=charts,
        panels=draw_panels(page.comparison),
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
        return type(text)(MINUS.sub("\u2212", text))  # what is markup stays markup

    def said(value: Any, how: Callable[[Any], str]) -> str:
        """In words, of each of many by ``map``."""
        return how(value)

    environment.filters |= {"said": said, "breakable": breakable, "code": code, "minus": minus, "inline": _inline}
    return environment


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
