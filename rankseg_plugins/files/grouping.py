"""Cases by name, the patient of a slice or the drive of a frame; and groups of them by a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankseg_plugins.comparison.blocks.groups import Groups, check_groups
from rankseg_plugins.files.errors import InputError, blaming

if TYPE_CHECKING:
    from rankseg_plugins.files.cases import Case

#: Of the first column of a table of groups.
NAME = "name"


def read_pattern(option: str, pattern: str) -> re.Pattern[str]:
    """The pattern whose match in the name of an image is its case.

    Args:
        option: its name, for messages.
        pattern: a regular expression.

    Raises:
        ValueError: if it is none.
    """
    try:
        return re.compile(pattern)
    except (re.error, TypeError, RecursionError, OverflowError) as error:
        raise ValueError(f"{option} must be a regular expression, got {pattern!r}: {error}") from error


def case_of(name: str, pattern: re.Pattern[str], option: str) -> str:
    """The case of an image.

    Args:
        name: of the image, perhaps its path.
        pattern: see ``read_pattern``.
        option: what the pattern was given as, for messages.

    Raises:
        ValueError: if nothing in the name matches. An empty match says nothing, either, and would make one case of all
            images.

    Example:
        >>> case_of("patient07_slice3", read_pattern("group_by", "^[^_]+"), "group_by")
        'patient07'
        >>> case_of("patient07_slice3", read_pattern("group_by", "^[0-9]*"), "group_by")
        Traceback (most recent call last):
            ...
        ValueError: group_by '^[0-9]*' has an empty match in the name 'patient07_slice3'
    """
    match = pattern.search(name)
    if match is None or not match[0]:
        how = "does not match" if match is None else "has an empty match in"
        raise ValueError(f"{option} {pattern.pattern!r} {how} the name {name!r}")
    return match[0]


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Groups of images or cases: a CSV file with a head, whose first column is ``name``.

    Returns:
        By each other column, the value of every name; see ``Comparison``.

    Raises:
        InputError: if it cannot be read or is no such table; the message names the row.
    """
    with blaming(path), path.open(encoding="utf-8-sig", newline="") as file:
        head, *rows = list(csv.reader(file, strict=True)) or [[]]
    head = [title.strip() for title in head]
    if len(head) < 2 or head[0] != NAME or not all(head) or len(set(head)) < len(head):
        raise InputError(
            path, f"must begin with the columns {NAME!r} and one or more of groups, got {', '.join(head)!r}"
        )
    found: dict[str, dict[str, str]] = {column: {} for column in head[1:]}
    for number, row in enumerate(rows, 2):
        if row:
            _take_row(found, head, [cell.strip() for cell in row], path, number)
    return found


def _take_row(
    found: Mapping[str, dict[str, str]], head: Sequence[str], row: Sequence[str], path: Path, number: int
) -> None:
    if len(row) != len(head):
        raise InputError(path, f"row {number} must have {len(head)} cells, got {len(row)}")
    for title, cell in zip(head, row, strict=True):
        if not cell:
            raise InputError(path, f"row {number} has no {title}")
    name, *values = row
    for column, value in zip(head[1:], values, strict=True):
        if name in found[column]:
            raise InputError(path, f"row {number} is another one of {name!r}")
        found[column][name] = value


def check_table(path: Path | None, table: Groups, cases: Sequence[Case]) -> None:
    """Refuse a table without a row for an image, or for its case.

    Raises:
        InputError: if there is one; the message names the first few.
    """
    try:
        check_groups(table, [(case.name, case.name if case.group is None else case.group) for case in cases])
    except ValueError as error:
        raise InputError(path or "", error) from error
