"""The report as Markdown, for repositories and pull requests."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rankseg_plugins.comparison.comparison import Comparison, Paired
from rankseg_plugins.comparison.tables import Tables
from rankseg_plugins.report.introduction import Introduction, Section
from rankseg_plugins.report.words import (
    ABSENT,
    EXPLANATION,
    PRESENT,
    SHOWN,
    calibration_sentence,
    listed,
    milliseconds,
    p_value,
    percent,
    points,
    printable,
    row_title,
    span,
    unit,
    verdicts,
    warnings,
)

#: What is markup inside a line: a low line only at the ends of words, and "$" on pages that draw formulas.
INLINE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
#: What makes a heading or an item of a list of a line that begins with it.
BLOCK = re.compile(r"^(\d*)([-+=#.)])")


def to_markdown(
    comparison: Comparison, tables: Tables, charts: Sequence[Mapping[str, Any]], introduction: Introduction | None
) -> str:
    """Write the report.

    Args:
        comparison: the figures.
        tables: those of them that stand in tables.
        charts: title, text and ``path`` of each.
        introduction: stands in place of the verdicts on each decoder.
    """
    parts = [
        *(_verdicts(comparison, tables) if introduction is None else _introduction(introduction)),
        *(f"*{_text(warning)}*" for warning in warnings(comparison)),
        "## Decoders",
        f"{len(comparison.names)} images; {unit(comparison)} in percent, gains in points with their "
        f"{100 * comparison.confidence:g} % bootstrap interval; milliseconds an image (median).",
        _decoders(comparison, tables),
        "## Levels",
        _levels(comparison, tables),
        f"{EXPLANATION} {PRESENT[comparison.scoring.present]}; {ABSENT[comparison.scoring.absent]}.",
        *(f"![{_text('{title}: {text}'.format_map(each))}]({each['path']})" for each in charts),
        "## Classes",
        _classes(comparison, tables),
        "## Classes that are shown",
        SHOWN,
        _shown(comparison, tables),
        *_calibration(comparison, tables),
        "## Images that change most",
        *(_images(row.name, row.paired) for row in tables.decoders if row.paired),
        *_skipped(comparison),
        "## How it was made",
        _facts(comparison),
    ]
    return "\n\n".join(parts) + "\n"


def _verdicts(comparison: Comparison, tables: Tables) -> list[str]:
    title = f"{len(comparison.names)} images, {comparison.decoders[0]} against {_others(comparison)}"
    sentences = (f"- {_line(sentence)}" for sentence, _ in verdicts(comparison, tables.decoders))
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


def _decoders(comparison: Comparison, tables: Tables) -> str:
    rows = []
    for name, value, seconds, paired in tables.decoders:
        row = [name, percent(value), "", "", "", "", "", milliseconds(seconds)]
        if paired:
            counts = f"{paired.wins} / {paired.losses} / {paired.ties}"
            p_values = (p_value(paired.wilcoxon), p_value(paired.sign))
            row[2:7] = [points(paired.mean), span(*paired.interval), counts, *p_values]
        rows.append(row)
    head = ["decoder", unit(comparison), "gain", "interval", "better / worse / same", "Wilcoxon p", "sign test p", "ms"]
    return _table(head, rows)


def _levels(comparison: Comparison, tables: Tables) -> str:
    rows = []
    for score, level, baseline, others in tables.levels:
        cells = (f"{percent(value)} ({points(value - baseline)})" for value, *_ in others)
        rows.append([row_title(score, level), percent(baseline), *cells])
    return _table(["score, %", *comparison.decoders], rows)


def _classes(comparison: Comparison, tables: Tables) -> str:
    rows = []
    for name, images, baseline, gains in tables.classes:
        cells = (points(gain) + ("" if math.isnan(gain) else f" ({span(low, high)})") for gain, low, high in gains)
        rows.append([name, str(images), percent(baseline), *cells])
    return _table(["class", "images", f"{comparison.decoders[0]}, %", *comparison.candidates], rows)


def _shown(comparison: Comparison, tables: Tables) -> str:
    rows = [
        [name, str(images), *(f"{shown} ({right})" for shown, right in each)] for name, images, each in tables.shown
    ]
    return _table(["class", "images that hold it", *(f"{each} shows it" for each in comparison.decoders)], rows)


def _calibration(comparison: Comparison, tables: Tables) -> list[str]:
    sentence = calibration_sentence(comparison)
    if sentence is None:
        return []
    rows = [[name, percent(error), f"{100 * over:+.2f}"] for name, error, over in tables.calibration]
    table = _table(["class", "expected calibration error, %", "probability minus frequency, points"], rows)
    return ["## Calibration", sentence, table]


def _images(decoder: str, paired: Paired) -> str:
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
    lines.append(f"- bootstrap: {comparison.resamples} resamples of the cases, seed {comparison.seed}")
    return "\n".join(lines)
