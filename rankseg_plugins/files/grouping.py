"""Cases by name: the patient of a slice, the drive of a frame."""

from __future__ import annotations

import re


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
        pattern: see :func:`read_pattern`.
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
