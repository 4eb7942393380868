"""Groups of images, such as scanners or sites: does a decoder lose in one of them while it gains on the whole?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from rankseg_plugins.comparison.intervals.statistics import FEWEST, mean_of_known
from rankseg_plugins.comparison.phrases import named, number_of, points, sign, span, unit
from rankseg_plugins.comparison.sample import read_name

if TYPE_CHECKING:
    from rankseg_plugins.comparison.comparison import Comparison

#: By column, the value of every image or case by its name.
Groups = Mapping[str, Mapping[str, str]]

#: Names that messages list at most.
MOST_NAMED = 3


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


def read_groups(groups: object) -> dict[str, dict[str, str]]:
    """Bring groups into one form.

    Raises:
        TypeError: if they are no dict by column of dicts by name, or a value is no word.

    Example:
        >>> read_groups({"site": {"a": 1}})
        {'site': {'a': '1'}}
        >>> read_groups({"a": "north"})
        Traceback (most recent call last):
            ...
        TypeError: groups must be a dict of columns, such as {'site': {name: value}}, got 'north' for 'a'
    """
    if not isinstance(groups, Mapping):
        raise TypeError(f"groups must be a dict of columns, such as {{'site': {{name: value}}}}, got {groups!r}")
    for column, values in groups.items():
        if not isinstance(column, str) or not isinstance(values, Mapping):
            raise TypeError(
                f"groups must be a dict of columns, such as {{'site': {{name: value}}}}, got {values!r} for {column!r}"
            )
    return {column: read_values(column, values) for column, values in groups.items()}


def read_values(column: str, values: object) -> dict[str, str]:
    """Bring one column into one form.

    Raises:
        TypeError: if it is no dict by name, or a name or value is no word.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"groups must be a dict by the name of an image or case, got {values!r}")
    return {read_name("name", name): read_name(column, value) for name, value in values.items()}


def group_of(values: Mapping[str, str], name: str, case: str) -> str | None:
    """The value of an image, by its own name or by that of its case."""
    return values.get(name, values.get(case))


def check_groups(groups: Groups, images: Iterable[tuple[str, str]]) -> None:
    """Refuse images that are in no group.

    Args:
        groups: see ``read_groups``.
        images: name and case of each.

    Raises:
        ValueError: if one has no value; the message names the column and the first of them.

    Example:
        >>> check_groups({"site": {"a": "north"}}, [("a", "a"), ("b", "b")])
        Traceback (most recent call last):
            ...
        ValueError: groups must have a site for every image or its case, and have none for 'b'
    """
    images = list(images)
    for column, values in groups.items():
        bare = [name for name, case in images if group_of(values, name, case) is None]
        if bare:
            some = named(map(repr, bare), MOST_NAMED)
            raise ValueError(f"groups must have a {column} for every image or its case, and have none for {some}")


def split(comparison: Comparison, values: Mapping[str, str]) -> dict[str, Comparison]:
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


def group_tables(comparison: Comparison) -> list[GroupTable]:
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


def _row(value: str, part: Comparison) -> GroupRow:
    baseline, *others = (part.scoring.image_scores(part.areas(name)) for name in part.decoders)
    gains = [
        (float(mean_of_known(scores - baseline, -1)), *ends.tolist())
        for scores, ends in zip(others, part.differences.paired, strict=True)
    ]
    return GroupRow(value, len(part.names), int(part.cases.max()) + 1, float(mean_of_known(baseline, -1)), gains)


def group_losses(comparison: Comparison) -> list[str]:
    """A sentence on each decoder that certainly loses in a group and not certainly over all images."""
    sentences = []
    for index, decoder in enumerate(comparison.candidates):
        whole = sign(*comparison.differences.paired[index].tolist())
        lost = [
            f"{table.column} {row.value}, {points(gain)} points ({span(low, high)}; {number_of(row.images, 'image')})"
            for table in comparison.group_tables
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


def group_notes(comparison: Comparison) -> list[str]:
    """What to know of groups: which are too small to say, and which names have no image."""
    notes = []
    small = [
        f"{table.column} {row.value} ({row.cases})"
        for table in comparison.group_tables
        for row in table.rows
        if any(math.isnan(low) for _, low, _ in row.gains)
    ]
    if small:
        notes.append(f"Groups of fewer than {FEWEST} cases with a score are too small to say: {named(small, 6)}.")
    for table in comparison.group_tables:
        if table.unused:
            names = number_of(len(table.unused), "name")
            notes.append(
                f"The groups by {table.column} hold {names} of no image here: {named(table.unused, MOST_NAMED)}."
            )
    return notes


def groups_as_dict(comparison: Comparison) -> dict[str, Any]:
    """Every column as values for JSON."""
    if not comparison.groups:
        return {}
    found = {
        table.column: {
            row.value: {
                "images": row.images,
                "cases": row.cases,
                "baseline": row.baseline,
                "gains": {
                    name: {"mean": gain, "interval": ends}
                    for name, (gain, *ends) in zip(comparison.candidates, row.gains, strict=True)
                },
            }
            for row in table.rows
        }
        for table in comparison.group_tables
    }
    return {"groups": found, "group_losses": group_losses(comparison)}
