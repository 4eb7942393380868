"""Which group every image is in, such as a scanner or a site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rankseg_plugins.comparison.phrases import named
from rankseg_plugins.comparison.sample import read_name

#: By column, the value of every image or case by its name.
Groups = Mapping[str, Mapping[str, str]]

#: Names that messages list at most.
MOST_NAMED = 3


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
