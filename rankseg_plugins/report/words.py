"""How figures are said, and what scores are called, in all forms of the report."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.figures import WORST
from rankseg_plugins.comparison.phrases import NONE, TITLES, accuracy, percent, points, sign, span
from rankseg_plugins.scores.extra import Column
from rankseg_plugins.scores.levels import LEVELS
from rankseg_plugins.scores.shown import LeftOut

#: Control characters, what breaks or turns lines, and the bytes of a file name that are not UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: Rows of the table of levels.
LEVEL_ROWS = (*((score, level) for score in TITLES for level in LEVELS), ("dice", "worst"), ("iou", "worst"))

EXPLANATION = (
    "Dataset: pixels of all images pooled, then the mean over classes. Image: mean over the classes of each image, "
    "then over images. Class: mean over the images of each class, then over classes."
)
ACCURACY = (
    "Accuracy is the share of the pixels of these classes that got the right label; at class level the mean recall of "
    "the classes."
)
TESTS = (
    "The interval is for the mean gain over all cases there could be, and is wide where few were seen; the tests ask "
    "only whether gains outweigh losses by rank (Wilcoxon) or in number (sign test), so they can be certain where the "
    "interval holds 0."
)
PRESENT = {
    "union": "A class counts in an image if truth or prediction hold it, so that a hallucinated class scores 0",
    "label": "A class counts in an image only if the truth holds it, so that hallucinated classes go unpunished",
}
CONVENTIONS = (
    "A class counts in an image if truth or prediction hold it (union), or only if the truth does (label): the same "
    "decision can gain by one and lose by the other"
)
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

#: A class is said to be left out where it is missed in this share of the images that hold it and showed it, and in so
#: many of them, and more often than it is left out rightly.
LEFT_OUT_SHARE, LEFT_OUT_FEWEST = 0.2, 2
#: Classes that a sentence names.
MOST_NAMED = 5


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


def milliseconds(seconds: float) -> str:
    """A time with one digit."""
    return NONE if math.isnan(seconds) else f"{1000 * seconds:.1f}"


def listed(fact: object) -> str:
    """A fact, or several of them."""
    return ", ".join(map(str, fact)) if isinstance(fact, (list, tuple)) else str(fact)


def p_value(value: float) -> str:
    """A p-value, never a false 0."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


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
    """``sign`` of a figure that may be better when it is lower."""
    return sign(low, high) if column.higher_is_better else sign(-high, -low)


def extra_title(column: Column) -> str:
    """Name of a row of an extra score."""
    return f"{column.title}, {column.unit}" + ("" if column.higher_is_better else " (lower is better)")


def level_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """Rows of the table of levels; of one class the accuracy is its recall, which has rows of its own."""
    return [row for row in LEVEL_ROWS if len(comparison.classes) > 1 or row[0] != "accuracy"]


def explanation(comparison: Comparison) -> str:
    """What the rows of that table are."""
    return EXPLANATION if len(comparison.classes) == 1 else f"{EXPLANATION} {ACCURACY}"


def row_title(score: str, level: str, comparison: Comparison) -> str:
    """Name of a row of the table of levels."""
    if score == "accuracy":
        return f"{level} {accuracy(comparison.scored_classes, comparison.classes)}"
    if level == "worst":
        return f"worst {100 * WORST:.0f} % of images, {TITLES[score]}"
    return f"{level} {TITLES[score]}"


def describe_alike(comparison: Comparison) -> list[str]:
    """A sentence on each decoder that others follow in every image; these others are not drawn."""
    copies: dict[str, list[str]] = {}
    for name in comparison.candidates:
        other = comparison.decides_as(name)
        if other is not None:
            copies.setdefault(other, []).append(name)
    return [f"{', '.join(names)} decide{'s' * (len(names) == 1)} as {other}." for other, names in copies.items()]


def describe_left_out(found: LeftOut, classes: Sequence[str], decoder: str, baseline: str = "argmax") -> str | None:
    """A sentence on the classes that a decision leaves out though they are there; None if there are none.

    Args:
        found: see ``rankseg_plugins.scores.shown.left_out``.
        classes: C names.
        decoder: what made the decision.
        baseline: what shows the classes.

    Example:
        >>> import torch
        >>> counted = LeftOut(torch.tensor([40, 9]), torch.tensor([34, 0]), torch.tensor([2, 0]))
        >>> describe_left_out(counted, ["sign", "road"], "rankseg")[:83]
        'rankseg leaves out classes that are there and argmax shows: sign in 34 of 40 images'
    """
    least = (LEFT_OUT_SHARE * found.found).clamp(min=LEFT_OUT_FEWEST)
    vanish = (found.missed >= least) & (found.missed > found.spared)
    rows = [(classes[label], int(found.missed[label]), int(found.found[label])) for label in vanish.nonzero().flatten()]
    if not rows:
        return None
    rows.sort(key=lambda row: -row[1])
    named = ", ".join(f"{name} in {missed} of {held} images" for name, missed, held in rows[:MOST_NAMED])
    more = f", and {len(rows) - MOST_NAMED} more" if len(rows) > MOST_NAMED else ""
    return (
        f"{decoder} leaves out classes that are there and {baseline} shows: {named}{more}. With RankSEG a lower "
        "pruning_prob, such as 0.1, shows them; PresenceRankSEG learns from labels like these which classes an image "
        "holds. tune tries both"
    )
