"""What a comparison says, in words and figures that all forms of the report share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rankseg_plugins.comparison.comparison import WORST
from rankseg_plugins.scores.levels import LEVELS, SCORES
from rankseg_plugins.scores.shown import describe_left_out, left_out

if TYPE_CHECKING:
    from rankseg_plugins.comparison.comparison import Comparison, Paired
    from rankseg_plugins.comparison.tables import DecoderRow

#: How scores are called, in the order of tables; one that is not named here is called by its own name.
NAMED = {"dice": "Dice", "iou": "IoU", "accuracy": "accuracy"}
TITLES = {**NAMED, **{score: score for score in SCORES if score not in NAMED}}
#: With fewer cases the intervals are rough.
FEW_CASES = 20
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


def row_title(score: str, level: str) -> str:
    """Name of a row of the table of levels."""
    if level == "worst":
        return f"worst {100 * WORST:.0f} % of images, {TITLES[score]}"
    return f"{level} {TITLES[score]}"


def unit(comparison: Comparison) -> str:
    """The deciding score."""
    return f"image {TITLES[comparison.scoring.score]}"


def verdicts(comparison: Comparison, rows: Iterable[DecoderRow]) -> list[tuple[str, str]]:
    """Of every decoder but the baseline a sentence, and its :func:`sign`."""
    return [(_verdict(comparison, row.name, row.paired), sign(*row.paired.interval)) for row in rows if row.paired]


def _verdict(comparison: Comparison, decoder: str, paired: Paired) -> str:
    """One sentence: the gain of a decoder, how sure it is, and how many images got worse."""
    what, images = unit(comparison), len(paired.names)
    confidence = f"{100 * comparison.confidence:g} % interval {span(*paired.interval)}"
    worse = f"{paired.losses} of {images} images got worse, {paired.wins} better"
    if not images:
        return f"{decoder} cannot be judged: no image has a score with both decoders."
    lead = {
        "gain": f"{decoder} improves {what} by {points(paired.mean).lstrip('+')} points",
        "loss": f"{decoder} lowers {what} by {points(-paired.mean).lstrip('+')} points",
        "unclear": f"{decoder} makes no certain difference to {what}: {points(paired.mean)} points",
    }[sign(*paired.interval)]
    return f"{lead} ({confidence}); {worse}."


def warnings(comparison: Comparison) -> list[str]:
    """What a reader should know before trusting the figures."""
    found = []
    cases = int(comparison.cases.max()) + 1
    if cases < FEW_CASES:
        found.append(f"Only {cases} cases: the intervals are rough, and usually too narrow.")
    truth = comparison.areas(comparison.decoders[0]).label.sum(0)
    absent = [name for name, area in zip(comparison.scored_classes, truth.tolist(), strict=True) if not area]
    if absent:
        found.append(f"No truth holds {_some(absent)}. Pixels that are given to such a class only cost.")
    baseline, *others = comparison.decoders
    for decoder in others:
        counted = left_out(comparison.areas(baseline), comparison.areas(decoder))
        sentence = describe_left_out(counted, comparison.scored_classes, decoder, baseline)
        found += [] if sentence is None else [f"{sentence}."]
    if len(comparison.candidates) > 1:
        found.append(
            "Several decoders were tried on the same images: the best of them looks a little better than it is. "
            "Choose on one set of images, and measure on another."
        )
    if comparison.skipped:
        found.append(f"{len(comparison.skipped)} images could not be read or scored and are left out; see the end.")
    return found


def calibration_sentence(comparison: Comparison) -> str | None:
    """Whether the network is too sure or not sure enough, by its top label."""
    measured = comparison.calibration
    if measured is None:
        return None
    off = 100 * measured.overconfidence()[-1]
    how = "too sure of its labels" if off > 0 else "less sure of its labels than it may be"
    sentence = f"Expected calibration error {percent(measured.error()[-1])} %"
    if abs(off) < 0.5:
        return f"{sentence}. On average the probabilities are as high as they should be."
    return f"{sentence}. On average the network is {how}: probability minus frequency is {off:+.1f} points."


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more classes" if len(names) > most else "")
