"""Scores, and differences between them, in the words and digits of every report, table and verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.scores.levels import SCORES

NONE = "n/a"
TOO_FEW = "too few cases"
#: How scores are called, in the order of tables; one that is not named here is called by its own name.
NAMED = {"dice": "Dice", "iou": "IoU", "accuracy": "accuracy"}
TITLES = {**NAMED, **{score: score for score in SCORES if score not in NAMED}}


def accuracy(scored: Sequence[str], classes: Sequence[str]) -> str:
    """What the accuracy over some classes is called: with pixels of no scored class, it is a recall.

    Example:
        >>> accuracy(["road", "sky"], ["road", "sky"]), accuracy(["foreground"], ["foreground"])
        ('accuracy', 'foreground recall')
    """
    if len(classes) == 1:
        return "foreground recall"
    return TITLES["accuracy"] if len(scored) == len(classes) else "recall of pixels of scored classes"


def title(score: str, level: str, counted: str | None = None) -> str:
    """A score at a level, and which classes count.

    Example:
        >>> title("iou", "dataset", "union")
        'dataset IoU (union)'
    """
    return f"{level} {TITLES[score]}" + ("" if counted is None else f" ({counted})")


def unit(scoring: Scoring, level: str = "image") -> str:
    """The deciding score and which classes count.

    Example:
        >>> unit(Scoring("dice", "union", "one"))
        'image Dice (union, absent one)'
    """
    absent = "" if scoring.absent == "skip" else f", absent {scoring.absent}"
    return title(scoring.score, level, scoring.present + absent)


def number_of(number: int, what: str) -> str:
    """Things and their number.

    Example:
        >>> number_of(1, "case"), number_of(2, "case")
        ('1 case', '2 cases')
    """
    return f"{number} {what}" + ("" if number == 1 else "s")


def named(names: Iterable[str], most: int, more: str = "more") -> str:
    """The first few names, and how many more there are.

    Example:
        >>> named(["a", "b", "c"], 2), named(["a"], 2)
        ('a, b and 1 more', 'a')
    """
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} {more}" if len(names) > most else "")


def percent(value: float) -> str:
    """A share in percent, two digits."""
    return NONE if math.isnan(value) else f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference in percentage points with its sign; what rounds to nothing has none."""
    if math.isnan(value):
        return NONE
    rounded = round(100 * value, 2)
    return f"{rounded:+.2f}" if rounded else "0.00"


def span(low: float, high: float) -> str:
    """An interval in percentage points; none is told of too few cases."""
    return TOO_FEW if math.isnan(low) or math.isnan(high) else f"{points(low)} to {points(high)}"


def gained(gain: float, low: float, high: float) -> str:
    """A difference with its interval; without a difference that alone is said.

    Example:
        >>> gained(0.02, 0.01, 0.03), gained(math.nan, math.nan, math.nan)
        ('+2.00 (+1.00 to +3.00)', 'n/a')
    """
    return points(gain) + ("" if math.isnan(gain) else f" ({span(low, high)})")


def sign(low: float, high: float) -> str:
    """``"gain"``, ``"loss"`` or ``"unclear"``, by the interval of a difference."""
    return "gain" if low > 0 else "loss" if high < 0 else "unclear"
