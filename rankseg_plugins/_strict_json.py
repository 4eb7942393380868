"""JSON that says one thing."""

from __future__ import annotations

import json
from typing import Any


def read_json(text: str | bytes) -> Any:
    """Read JSON; what other readers take in one way or the other is refused.

    Raises:
        ValueError: if it is none, an object holds a key twice, or it is nested too deeply.

    Example:
        >>> read_json('{"temperature": 1, "temperature": 2}')
        Traceback (most recent call last):
            ...
        ValueError: the key 'temperature' occurs twice in one object
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice in one object")
        found[key] = value
    return found
