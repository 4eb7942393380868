"""What a report says before its figures, where it is about more than a comparison."""

from __future__ import annotations

from typing import NamedTuple


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
