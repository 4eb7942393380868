"""Groups of images, such as scanners or sites: does a decoder lose in one of them while it gains on the whole?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rankseg_plugins.comparison.blocks.groups import MOST_NAMED, group_of
from rankseg_plugins.comparison.intervals.statistics import FEWEST, mean_of_known
from rankseg_plugins.comparison.phrases import named, number_of, points, sign, span, unit

if TYPE_CHECKING:
    from rankseg_plugins.comparison.figures import Figures

    Kind = TypeVar("Kind", bound=Figures)


class GroupRow(NamedTuple):
    """The images of one value.

    Args:
        value: such as the name of a scanner.
        images: their number.
        cases: the number of their cases.
        baseline: mean score of an image.
        gains: of each other decoder the mean difference, NaN without a score, and both ends of its interval, NaN where
            the cases are too few to say.
    """

    value: str
    images: int
    cases: int
    baseline: float
    gains: list[tuple[float, float, float]]


class GroupTable(NamedTuple):
    """A column.

    Args:
        column: such as scanner.
        rows: by value.
        unused: names that no scored image or case has.
    """

    column: str
    rows: list[GroupRow]
    unused: list[str]


def split(comparison: Kind, values: Mapping[str, str]) -> dict[str, Kind]:
    """The images of each value as a comparison; see ``Comparison.by_group``."""
    parts: dict[str, list[Any]] = {}
    for each in comparison.measurements:
        parts.setdefault(str(group_of(values, each.name, each.case)), []).append(each)
    # What was pooled over all images, and pictures of the extremes of all, are of no group.
    nothing: dict[str, Any] = {
        "calibration": None,
        "improved": (),
        "damaged": (),
        "skipped": {},
        "presence": {},
        "groups": {},
    }
    return {
        value: replace(comparison, measurements=tuple(measured), **nothing) for value, measured in sorted(parts.items())
    }


def group_tables(comparison: Figures) -> list[GroupTable]:
    """Every column; see ``Comparison.group_tables``, which keeps them."""
    known = {*comparison.names, *(each.case for each in comparison.measurements)}
    return [
        GroupTable(
            column,
            [_row(value, part) for value, part in split(comparison, values).items()],
            [name for name in values if name not in known],
        )
        for column, values in comparison.groups.items()
    ]


def _row(value: str, part: Figures) -> GroupRow:
    baseline, *others = (part.scoring.image_scores(part.areas(name)) for name in part.decoders)
    gains = [
        (float(mean_of_known(scores - baseline, -1)), *ends.tolist())
        for scores, ends in zip(others, part.differences.paired, strict=True)
    ]
    return GroupRow(value, len(part.names), int(part.cases.max()) + 1, float(mean_of_known(baseline, -1)), gains)


def group_losses(comparison: Figures, tables: Sequence[GroupTable]) -> list[str]:
    """A sentence on each decoder that certainly loses in a group and not certainly over all images."""
    sentences = []
    for index, decoder in enumerate(comparison.candidates):
        if comparison.decides_as(decoder) is not None:
            continue  # said of the other one
        whole = sign(*comparison.differences.paired[index].tolist())
        lost = [
            f"{table.column} {row.value}, {points(gain)} points ({span(low, high)}; {number_of(row.images, 'image')})"
            for table in tables
            for row in table.rows
            for gain, low, high in [row.gains[index]]
            if sign(low, high) == "loss"
        ]
        if lost and whole != "loss":
            over = "improves it" if whole == "gain" else "makes no certain difference to it"
            sentences.append(
                f"{decoder} certainly lowers {unit(comparison.scoring)} in a group, though over all images it {over}: "
                f"{'; '.join(lost)}."
            )
    return sentences


def group_notes(tables: Sequence[GroupTable]) -> list[str]:
    """What to know of groups: which are too small to say, and which names have no image."""
    notes = []
    small = [
        f"{table.column} {row.value} ({row.cases})"
        for table in tables
        for row in table.rows
        if any(math.isnan(low) for _, low, _ in row.gains)
    ]
    if small:
        notes.append(f"Groups of fewer than {FEWEST} cases with a score are too small to say: {named(small, 6)}.")
    for table in tables:
        if table.unused:
            names = number_of(len(table.unused), "name")
            notes.append(
                f"The groups by {table.column} hold {names} of no image here: {named(table.unused, MOST_NAMED)}."
            )
    return notes
