"""The short form of a report for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.phrases import percent, points, sign, span, unit
from rankseg_plugins.comparison.telling.tables import ExtraTable
from rankseg_plugins.comparison.telling.trust import describe_trust
from rankseg_plugins.report.page import Page
from rankseg_plugins.report.tuning import TuningPage
from rankseg_plugins.report.words import amount, change, change_span, extra_title, milliseconds, printable, sign_of

#: Blue and orange, as in all pictures.
STYLES = {"gain": "dodger_blue2", "loss": "dark_orange3", "unclear": "dim"}


def to_terminal(page: Page) -> Group:
    """A row for each decoder, the verdicts, and what to know before trusting them."""
    comparison = page.comparison
    score = f"{unit(comparison.scoring)}, %".replace(" (", "\n(", 1)
    table = _table("decoder", score, "gain", _interval(comparison), "better /\nworse", "ms")
    for row in comparison.tables.decoders:
        cells: list[str | Text] = [_text(row.name), percent(row.value), "", "", "", milliseconds(row.seconds)]
        if row.paired:
            gain = Text(points(row.paired.mean), style=STYLES[sign(*row.paired.interval)])
            wins = f"{row.paired.wins} / {row.paired.losses}"
            cells[2:5] = [gain, span(*row.paired.interval), wins]
        table.add_row(*cells)
    trust = filter(None, (describe_trust(comparison, name) for name in comparison.decoders))
    lines = (*(sentence for sentence, _ in page.verdicts), *trust)
    notes = (f"note: {note}" for note in page.notes)
    extra = (part for each in comparison.tables.extra for part in (_extra(comparison, each), ""))
    return Group(table, "", *extra, *map(_text, (*lines, *notes)))


def _extra(comparison: Comparison, extra: ExtraTable) -> Table:
    """Of each figure a row for each decoder."""
    table = _table(extra.name, "mean", "difference", _interval(comparison))
    for column, baseline, others, *_ in extra.rows:
        table.add_row(_text(extra_title(column)))
        table.add_row(_text(f"  {comparison.decoders[0]}"), amount(column, baseline))
        for name, (value, gain, interval) in zip(comparison.candidates, others, strict=True):
            difference = Text(change(column, gain), style=STYLES[sign_of(column, *interval)])
            table.add_row(_text(f"  {name}"), amount(column, value), difference, change_span(column, *interval))
    return table


def tuning_to_terminal(page: TuningPage) -> Group:
    """The verdict, and a row for each candidate."""
    table = _table("candidate", f"{page.objective}, %", "gain", _interval(page.validated.comparison))
    for row in page.candidates:
        table.add_row(_text(row.name), row.value, Text(row.gain, style=STYLES[row.sign]), row.interval)
    return Group(_text(page.verdict), "", table, "", *(_text(f"note: {note}") for note in page.notes))


def _interval(comparison: Comparison) -> str:
    return f"{100 * comparison.confidence:g} % interval"


def _table(names: str, *figures: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(names, overflow="fold", vertical="bottom")
    for title in figures:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _text(line: str) -> Text:
    """As it stands: brackets of names are no markup."""
    return Text(printable(line))
