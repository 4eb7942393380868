"""The report as Markdown, for repositories and pull requests."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.paired import Paired
from rankseg_plugins.comparison.phrases import gained, percent, points, span, unit
from rankseg_plugins.report.page import Introduction, Page, Section
from rankseg_plugins.report.words import (
    ABSENT,
    EXTRA,
    PRESENT,
    SHOWN,
    TESTS,
    amount,
    change,
    change_span,
    explanation,
    extra_title,
    level_rows,
    listed,
    milliseconds,
    p_value,
    printable,
    row_title,
)

#: What is markup inside a line: a low line only at the ends of words, and "$" on pages that draw formulas.
INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
#: What makes a heading or an item of a list of a line that begins with it.
BLOCK = re.compile(r"^(\d*)([-+=#.)])")


def to_markdown(page: Page, charts: Sequence[Mapping[str, Any]]) -> str:
    """Write the report.

    Args:
        page: what it says.
        charts: title, text and ``path`` of each.
    """
    comparison = page.comparison
    parts = [
        *(_verdicts(page) if page.introduction is None else _introduction(page.introduction)),
        *(f"*{_text(note)}*" for note in page.notes),
        "## Decoders",
        f"{len(comparison.names)} images; {unit(comparison.scoring)} in percent, gains in points with their "
        f"{100 * comparison.confidence:g} % interval; milliseconds an image (median).",
        _decoders(comparison),
        TESTS,
        "## Levels",
        _levels(comparison),
        f"{explanation(comparison)} {PRESENT[comparison.scoring.present]}; {ABSENT[comparison.scoring.absent]}.",
        *(part for section in page.groups for part in _section(section)),
        *_extra(comparison),
        *(f"![{_text('{title}: {text}'.format_map(each))}]({each['path']})" for each in charts),
        "## Classes",
        _classes(comparison),
        "## Classes that are shown",
        SHOWN,
        _shown(comparison),
        *(part for section in page.presence for part in _section(section)),
        *_calibration(page),
        *(part for section in page.trust for part in _section(section)),
        "## Images that change most",
        *(_images(comparison, row.name, row.paired) for row in comparison.tables.decoders if row.paired),
        *_skipped(comparison),
        "## How it was made",
        _facts(comparison),
    ]
    return "\n\n".join(parts) + "\n"


def _verdicts(page: Page) -> list[str]:
    comparison = page.comparison
    title = f"{len(comparison.names)} images, {comparison.decoders[0]} against {_others(comparison)}"
    sentences = (f"- {_line(sentence)}" for sentence, _ in page.verdicts)
    return [f"# Does it help? {_text(title)}", "\n".join(sentences)]


def _introduction(introduction: Introduction) -> list[str]:
    parts = [f"# {_text(introduction.title)}", f"**{_text(introduction.verdict)}**", *map(_line, introduction.notes)]
    for section in introduction.sections:
        parts += _section(section)
    return [*parts, _line(introduction.bridge)]


def _section(section: Section) -> list[str]:
    parts = [f"## {_text(section.title)}", _line(section.text)]
    if section.rows:
        parts.append(_table(section.head, section.rows))
    for title, code in section.code:
        parts += [f"{_line(title)}:", f"```python\n{code}\n```"]
    return parts


def _others(comparison: Comparison) -> str:
    return comparison.candidates[0] if len(comparison.candidates) == 1 else f"{len(comparison.candidates)} others"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(_text, line))} |" for line in lines)


def _text(text: str) -> str:
    """Text that is shown as it stands: nothing in a name is markup."""
    return html.escape(INLINE.sub(r"\\\g<0>", printable(text)), quote=False)


def _line(text: str) -> str:
    """The same at the beginning of a line."""
    return BLOCK.sub(r"\1\\\2", _text(text).lstrip())


def _decoders(comparison: Comparison) -> str:
    rows = []
    for row in comparison.tables.decoders:
        cells = [row.name, percent(row.value), "", "", "", "", "", milliseconds(row.seconds)]
        if row.paired:
            counts = f"{row.paired.wins} / {row.paired.losses} / {row.paired.ties}"
            p_values = (p_value(row.paired.wilcoxon), p_value(row.paired.sign))
            cells[2:7] = [points(row.paired.mean), span(*row.paired.interval), counts, *p_values]
        rows.append(cells)
    head = [
        "decoder",
        unit(comparison.scoring),
        "gain",
        "interval",
        "better / worse / same",
        "Wilcoxon p",
        "sign test p",
        "ms",
    ]
    return _table(head, rows)


def _levels(comparison: Comparison) -> str:
    rows = []
    for score, level in level_rows(comparison):
        baseline, others = comparison.tables.levels[score, level]
        cells = (f"{percent(value)} ({points(value - baseline)})" for value, *_ in others)
        rows.append([row_title(score, level, comparison), percent(baseline), *cells])
    return _table(["score, %", *comparison.decoders], rows)


def _extra(comparison: Comparison) -> list[str]:
    parts: list[str] = []
    for table in comparison.tables.extra:
        rows = []
        for column, baseline, others, *_ in table.rows:
            cells = (
                f"{amount(column, value)} ({change(column, gain)}; {change_span(column, *interval)})"
                for value, gain, interval in others
            )
            rows.append([extra_title(column), amount(column, baseline), *cells])
        parts += [f"## {table.name.capitalize()}", _table(["score", *comparison.decoders], rows)]
        parts.append(f"{table.explanation} {EXTRA}")
    return parts


def _classes(comparison: Comparison) -> str:
    rows = []
    for name, images, baseline, gains in comparison.tables.classes:
        cells = itertools.starmap(gained, gains)
        rows.append([name, str(images), percent(baseline), *cells])
    return _table(["class", "images", f"{comparison.decoders[0]}, %", *comparison.candidates], rows)


def _shown(comparison: Comparison) -> str:
    rows = [
        [name, str(images), *(f"{shown} ({right})" for shown, right in each)]
        for name, images, each in comparison.tables.shown
    ]
    return _table(["class", "images that hold it", *(f"{each} shows it" for each in comparison.decoders)], rows)


def _calibration(page: Page) -> list[str]:
    if page.calibration is None:
        return []
    rows = [[row.name, percent(row.error), points(row.overconfidence)] for row in page.comparison.tables.calibration]
    table = _table(["class", "expected calibration error, %", "probability minus frequency, points"], rows)
    return ["## Calibration", page.calibration, table]


def _images(comparison: Comparison, decoder: str, paired: Paired) -> str:
    other = comparison.decides_as(decoder)
    if other is not None:
        return f"{_line(decoder)} decides as {_text(other)}."
    lines = [f"{_line(decoder)}:", ""]
    for title, found in (("better", paired.improvements()), ("worse", paired.regressions())):
        listed = ", ".join(f"{name} ({points(gain)})" for name, gain in found)
        lines.append(f"- {title}: {_text(listed) or 'none'}")
    return "\n".join(lines)


def _skipped(comparison: Comparison) -> list[str]:
    if not comparison.skipped:
        return []
    return ["## Left out", "\n".join(f"- {_line(problem)}" for problem in comparison.skipped.values())]


def _facts(comparison: Comparison) -> str:
    lines = [f"- {_line(title)}: {_text(listed(fact))}" for title, fact in comparison.facts.items()]
    return "\n".join(lines)
