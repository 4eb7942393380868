"""How figures are said, and what scores are called, in all forms of the report."""

from __future__ import annotations

import math
import re

from rankseg_plugins.comparison.comparison import WORST, Comparison
from rankseg_plugins.scores.extra import Column
from rankseg_plugins.scores.levels import LEVELS, SCORES

#: How scores are called, in the order of tables; one that is not named here is called by its own name.
NAMED = {"dice": "Dice", "iou": "IoU", "accuracy": "accuracy"}
TITLES = {**NAMED, **{score: score for score in SCORES if score not in NAMED}}
NONE = "n/a"
#: Control characters, what breaks or turns lines, and the bytes of a file name that are not UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: Rows of the table of levels.
LEVEL_ROWS = (*((score, level) for score in TITLES for level in LEVELS), ("dice", "worst"), ("iou", "worst"))

EXPLANATION = (
    "Dataset: pixels of all images pooled, then the mean over classes. Image: mean over the classes of each image, "
    "then over images. Class: mean over the images of each class, then over classes. Accuracy is the share of the "
    "pixels of these classes that got the right label; at class level the mean recall of the classes."
)
PRESENT = {
    "union": "A class counts in an image if truth or prediction hold it, so that a hallucinated class scores 0",
    "label": "A class counts in an image only if the truth holds it, so that hallucinated classes go unpunished",
}
SHOWN = (
    "In how many images each decoder shows a class, in brackets those of them whose truth holds it. Showing a class "
    "that is not there costs where classes of truth or prediction count, and missing one costs always."
)
EXTRA = (
    "Mean over the classes of each image, then over images; in brackets the difference to the baseline and its "
    "interval, image by image."
)
ABSENT = {
    "skip": "an absent class is left out",
    "zero": "an absent class counts as 0",
    "one": "an absent class counts as 1",
}


def printable(text: str) -> str:
    r"""A name as one line that every page and terminal shows; what cannot be seen as Python writes it.

    Example:
        >>> print(printable("scan\x1b[31m\n\udce9"))
        scan\x1b[31m\n\udce9
    """
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(text: str, most: int) -> str:
    """Text with its middle left out, if it is longer than ``most`` characters.

    Example:
        >>> shortened("a name beyond all measure", 11)
        'a nam…asure'
    """
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - 1 - most // 2) :]}"


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
    """An interval in percentage points."""
    return "unknown" if math.isnan(low) or math.isnan(high) else f"{points(low)} to {points(high)}"


def milliseconds(seconds: float) -> str:
    """A time with one digit."""
    return NONE if math.isnan(seconds) else f"{1000 * seconds:.1f}"


def listed(fact: object) -> str:
    """A fact, or several of them."""
    return ", ".join(map(str, fact)) if isinstance(fact, (list, tuple)) else str(fact)


def p_value(value: float) -> str:
    """A p-value, never a false 0."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def sign(low: float, high: float) -> str:
    """``"gain"``, ``"loss"`` or ``"unclear"``, by the interval of a difference."""
    return "gain" if low > 0 else "loss" if high < 0 else "unclear"


def amount(column: Column, value: float) -> str:
    """A figure of an extra score, two digits; shares in percent."""
    return percent(value) if column.is_share else NONE if math.isnan(value) else f"{value:.2f}"


def change(column: Column, value: float) -> str:
    """A difference of such figures with its sign; shares in points."""
    return points(value if column.is_share else value / 100)


def change_span(column: Column, low: float, high: float) -> str:
    """An interval of such differences."""
    return span(low, high) if column.is_share else span(low / 100, high / 100)


def sign_of(column: Column, low: float, high: float) -> str:
    """:func:`sign` of a figure that may be better when it is lower."""
    return sign(low, high) if column.higher_is_better else sign(-high, -low)


def extra_title(column: Column) -> str:
    """Name of a row of an extra score."""
    return f"{column.title}, {column.unit}" + ("" if column.higher_is_better else " (lower is better)")


def row_title(score: str, level: str) -> str:
    """Name of a row of the table of levels."""
    if level == "worst":
        return f"worst {100 * WORST:.0f} % of images, {TITLES[score]}"
    return f"{level} {TITLES[score]}"


def unit(comparison: Comparison) -> str:
    """The deciding score."""
    return f"image {TITLES[comparison.scoring.score]}"
