"""The short form of a report for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.tables import decoder_rows
from rankseg_plugins.report.tuning import FLATTERED, candidates
from rankseg_plugins.report.words import (
    milliseconds,
    percent,
    points,
    printable,
    sign,
    span,
    unit,
    verdicts,
    warnings,
)

if TYPE_CHECKING:
    from rankseg_plugins.tuning.tuner import Tuned

STYLES = {"gain": "green", "loss": "red", "unclear": "dim"}


def to_terminal(comparison: Comparison) -> Group:
    """A row for each decoder, the verdicts, and what to know before trusting them."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("decoder", overflow="fold", vertical="bottom")
    confidence = f"{100 * comparison.confidence:g} % interval"
    for title in (f"{unit(comparison)}, %".replace(" ", "\n", 1), "gain", confidence, "better /\nworse", "ms"):
        table.add_column(title, justify="right", no_wrap=True)
    rows = decoder_rows(comparison)
    for name, value, seconds, paired in rows:
        cells: list[str | Text] = [_text(name), percent(value), "", "", "", milliseconds(seconds)]
        if paired:
            gain = Text(points(paired.mean), style=STYLES[sign(*paired.interval)])
            wins = f"{paired.wins} / {paired.losses}"
            cells[2:5] = [gain, span(*paired.interval), wins]
        table.add_row(*cells)
    lines = (sentence for sentence, _ in verdicts(comparison, rows))
    notes = (f"note: {warning}" for warning in warnings(comparison))
    return Group(table, "", *map(_text, (*lines, *notes)))


def tuning_to_terminal(found: Tuned) -> Group:
    """The verdict, and a row for each candidate."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("candidate", overflow="fold", vertical="bottom")
    confidence = f"{100 * found.comparison.confidence:g} % interval"
    for title in (f"{found.decoder.evidence['objective']}, %", "gain", confidence):
        table.add_column(title, justify="right", no_wrap=True)
    argmax, *others = candidates(found)
    table.add_row(_text(argmax.name), percent(argmax.value), "", "")
    for row in others:
        gain = Text(points(row.gain), style=STYLES[sign(*row.interval)])
        table.add_row(_text(row.name), percent(row.value), gain, span(*row.interval))
    return Group(_text(found.verdict), "", table, "", Text(f"note: {FLATTERED}"))


def _text(line: str) -> Text:
    """As it stands: brackets of names are no markup."""
    return Text(printable(line))
