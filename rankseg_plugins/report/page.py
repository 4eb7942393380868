"""What a report says, worked out once for all of its forms: HTML, Markdown, terminal."""

from __future__ import annotations

from typing import NamedTuple

from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.phrases import percent
from rankseg_plugins.report.words import CONVENTIONS, describe_left_out

#: With fewer cases the intervals are rough.
FEW_CASES = 20


class Section(NamedTuple):
    """A part with a heading: a sentence, a table and pieces of code, each perhaps absent.

    Args:
        title: the heading.
        text: plain text.
        head: of the table.
        rows: of the table, as long as ``head``.
        code: title and text of each piece.
    """

    title: str
    text: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    code: tuple[tuple[str, str], ...] = ()


class Introduction(NamedTuple):
    """Stands in place of the verdicts on single decoders.

    Args:
        title: of the page.
        verdict: the most important sentence.
        sign: ``"gain"``, ``"loss"`` or ``"unclear"``.
        notes: what to know about it.
        sections: between the verdict and the figures.
        bridge: leads to the figures of the comparison.
    """

    title: str
    verdict: str
    sign: str
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    bridge: str = ""


class Page(NamedTuple):
    """The sentences of a report; its figures are the tables of the comparison.

    Args:
        comparison: names, tables and facts.
        verdicts: the most important sentences, and :func:`~rankseg_plugins.report.words.sign` of each.
        notes: what a reader should know before trusting the figures.
        calibration: whether the network is too sure or not sure enough; None where nothing was measured.
        introduction: stands in place of the verdicts on single decoders.
    """

    comparison: Comparison
    verdicts: list[tuple[str, str]]
    notes: list[str]
    calibration: str | None
    introduction: Introduction | None = None


def read_page(comparison: Comparison, introduction: Introduction | None = None) -> Page:
    """What a report of a comparison says, perhaps with an introduction above."""
    verdicts = [(introduction.verdict, introduction.sign)] if introduction else _verdicts(comparison)
    return Page(comparison, verdicts, _notes(comparison), _calibration(comparison), introduction)


def _verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    return [comparison.verdict(decoder)[:2] for decoder in comparison.candidates]


def _notes(comparison: Comparison) -> list[str]:
    found = [f"{CONVENTIONS}.", *(f"{each}." for each in comparison.cautions)]
    cases = int(comparison.cases.max()) + 1
    if cases < FEW_CASES:
        found.append(f"Only {cases} cases: the intervals are rough, and usually too narrow.")
    absent = [name for name, images, *_ in comparison.tables.classes if not images]
    if absent:
        found.append(f"No truth holds {_some(absent)}. Pixels that are given to such a class only cost.")
    baseline, *others = comparison.tables.decoders
    for row in others:
        sentence = describe_left_out(row.left_out, comparison.scored_classes, row.name, baseline.name)
        found += [] if sentence is None else [f"{sentence}."]
    if len(comparison.candidates) > 1:
        found.append(
            "Several decoders were tried on the same images: the best of them looks a little better than it is. "
            "Choose on one set of images, and measure on another."
        )
    if comparison.skipped:
        found.append(f"{len(comparison.skipped)} images could not be read or scored and are left out; see the end.")
    return found


def _calibration(comparison: Comparison) -> str | None:
    """Whether the network is too sure or not sure enough, by its top label."""
    measured = comparison.calibration
    if measured is None:
        return None
    off = 100 * measured.overconfidence()[-1]
    how = "too sure of its labels" if off > 0 else "less sure of its labels than it may be"
    sentence = f"Expected calibration error {percent(measured.error()[-1])} %"
    if abs(off) < 0.5:
        return f"{sentence}. On average the probabilities are as high as they should be."
    return f"{sentence}. On average the network is {how}: probability minus frequency is {off:+.1f} points."


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more classes" if len(names) > most else "")
