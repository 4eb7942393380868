"""A comparison in a few lines, for a prompt or a notebook, without the work for a whole report."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rankseg_plugins.comparison.intervals.statistics import mean_of_known
from rankseg_plugins.comparison.phrases import number_of, percent, points, span, unit

if TYPE_CHECKING:
    from rankseg_plugins.comparison.figures import Figures

#: Decoders beside the baseline in a summary, the best first: with all else that is at most 15 lines.
MOST_LISTED = 10


class Summary(NamedTuple):
    """What fits a prompt.

    Args:
        title: one line.
        rows: the heads of the columns, the baseline, and the best of the others, the largest gain first.
        more: how many others there are.
    """

    title: str
    rows: list[tuple[str, str, str, str]]
    more: int

    def text(self) -> str:
        """As a table for a prompt."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        aligned = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in self.rows)
        lines = [self.title, *("  ".join(cells).rstrip() for cells in aligned)]
        return "\n".join([*lines, *self._rest()])

    def html(self) -> str:
        """As a table for a notebook, in whatever style that has."""
        head, *rows = ([html.escape(cell) for cell in row] for row in self.rows)
        lines = ["".join(f'<th scope="col">{cell}</th>' for cell in head)]
        lines += (
            f'<th scope="row" style="text-align: left">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:])
            for row in rows
        )
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        rest = "".join(f"<p>{line}</p>" for line in self._rest())
        return f"<div><p>{html.escape(self.title)}</p><table>{table}</table>{rest}</div>"

    def _rest(self) -> list[str]:
        return [f"and {self.more} more"] if self.more > 0 else []


def summarise(comparison: Figures) -> Summary:
    """The decoders of a comparison with their scores, gains and intervals."""
    images, cases = len(comparison.names), int(comparison.cases.max()) + 1
    title = f"Comparison of {number_of(images, 'image')}"
    title += f" of {number_of(cases, 'case')}" if cases < images else ""
    head = ("decoder", f"{unit(comparison.scoring)}, %", "gain, points", f"{100 * comparison.confidence:g} % interval")
    values = [comparison.level(name, comparison.scoring.score, "image") for name in comparison.decoders]
    scores = np.stack([comparison.scoring.image_scores(comparison.areas(name)) for name in comparison.decoders])
    gains, intervals = mean_of_known(scores[1:] - scores[0], -1), comparison.differences.paired
    order = np.argsort(-np.nan_to_num(gains, nan=-np.inf), kind="stable")
    rows = [head, (comparison.decoders[0], percent(values[0]), "", "")]
    for index in order[:MOST_LISTED]:
        low, high = intervals[index]
        name, value = comparison.candidates[index], percent(values[1 + index])
        rows.append((name, value, points(float(gains[index])), span(float(low), float(high))))
    return Summary(title, rows, len(order) - MOST_LISTED)
