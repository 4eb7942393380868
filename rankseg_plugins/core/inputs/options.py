"""Options as users write them: brought into one form, or refused in words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from numbers import Integral, Real

from rankseg_plugins.core.inputs.probabilities import check_choice

#: Which classes have a score in an image, and what one counts that has none; see ``rankseg_plugins.scores.levels``.
PRESENT = ("union", "label")
ABSENT = {"skip": math.nan, "zero": 0.0, "one": 1.0}
OUTPUT_MODES = ("multiclass", "multilabel")


def fold(value: object) -> object:
    """Upper and lower case, and blanks around, make no difference in option values."""
    return value.strip().lower() if isinstance(value, str) else value


def read_choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """The allowed value that ``value`` means.

    Raises:
        TypeError: unless it is a string.
        ValueError: if it means none of them.

    Example:
        >>> read_choice("solver", " rma", ("RMA", "exact"))
        'RMA'
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    canonical = {fold(option): option for option in allowed}.get(fold(value), value)
    check_choice(name, canonical, allowed)
    return canonical


def suggest(name: str, allowed: Sequence[str]) -> str:
    """What to say of a name that is not allowed, as the end of a message: the nearest one, and all that are.

    Example:
        >>> suggest("metrc", ("metric", "smooth"))
        "did you mean 'metric'? Allowed are metric, smooth"
    """
    nearest = difflib.get_close_matches(name, allowed, n=1, cutoff=0.0)[0]
    return f"did you mean {nearest!r}? Allowed are {', '.join(allowed)}"


def read_mode(output_mode: object, channels: int) -> str:
    """The output mode; None is what fits the number of channels: one alone needs ``"multilabel"``.

    Raises:
        TypeError: unless it is a string or None.
        ValueError: for an unknown one.
    """
    if output_mode is None:
        return "multilabel" if channels == 1 else "multiclass"
    return read_choice("output_mode", output_mode, OUTPUT_MODES)


def read_real(name: str, value: object, low: float, high: float) -> float:
    """The number as a float, if it is finite and lies in [low, high].

    Raises:
        TypeError: unless it is a real number.
        ValueError: if it lies outside.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {type(value).__name__}")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        span = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"finite and >= {low:g}"
        raise ValueError(f"{name} must be {span}, got {value!r}")
    return number


def read_integer(name: str, value: object, least: int = -(2**63)) -> int:
    """The number as an int, if it fits into int64 and is at least ``least``.

    Raises:
        TypeError: unless it is an integer.
        ValueError: if it is too large or too small.

    Example:
        >>> read_integer("num_classes", 0, least=1)
        Traceback (most recent call last):
            ...
        ValueError: num_classes must be at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} must fit into int64, got {value}")
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return number


def read_index(name: str, value: object) -> int | None:
    """A label with a part of its own, such as ``ignore_index``; None if there is none. See ``read_integer``."""
    return None if value is None else read_integer(name, value)
