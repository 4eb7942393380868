"""What a comparison says of a decoder, in sentences that name the score and which classes count.

The first says what happened to the score that decides; the second, where there is one, which other scores that people
publish moved the other way. A gain that is a loss as soon as other classes count is not to be missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from rankseg_plugins.comparison import phrases
from rankseg_plugins.comparison.phrases import number_of, points, sign, span, title, unit

if TYPE_CHECKING:
    from rankseg_plugins.comparison.figures import Figures
    from rankseg_plugins.comparison.paired import Paired

#: What people publish: score, level and which classes count, None where that makes no difference.
HEADLINES = (
    ("dice", "image", "union"),
    ("dice", "image", "label"),
    ("iou", "image", "union"),
    ("iou", "image", "label"),
    ("iou", "dataset", "union"),
    ("accuracy", "dataset", None),
)


class Headline(NamedTuple):
    """What a score that people publish gains on the baseline, with its interval; shares.

    Args:
        score: ``"dice"``, ``"iou"`` or ``"accuracy"``.
        level: ``"image"`` or ``"dataset"``.
        present: which classes count, ``"union"`` or ``"label"``; None where that makes no difference.
        gain: mean.
        low: end of the interval.
        high: likewise.
        title: all but the figures in words.
    """

    score: str
    level: str
    present: str | None
    gain: float
    low: float
    high: float
    title: str


class Verdict(NamedTuple):
    """What happened to the score that decides, and to others.

    Args:
        sentence: on both.
        sign: ``"gain"``, ``"loss"`` or ``"unclear"``, of the score that decides.
        against: other scores that certainly moved the other way; where the first is unclear, that moved at all.
    """

    sentence: str
    sign: str
    against: tuple[Headline, ...]


def judge(comparison: Figures, decoder: str) -> Verdict:
    """The verdict on one decoder; see ``Comparison.verdict``."""
    paired, scoring = comparison.paired(decoder), comparison.scoring
    found = sign(*paired.interval)
    against = contrary(comparison, decoder, found, (scoring.score, "image", scoring.present))
    second = "" if comparison.decides_as(decoder) else _second(against, found)
    return Verdict(f"{_first(comparison, decoder, paired, found)}{second}", found, against)


def contrary(comparison: Figures, decoder: str, found: str, own: tuple[str, str, str]) -> tuple[Headline, ...]:
    """Scores that people publish that certainly moved the other way than one that they are held against.

    Args:
        comparison: of decoders.
        decoder: one of them.
        found: ``"gain"``, ``"loss"`` or ``"unclear"``: then every certain one.
        own: score, level and ``present`` of the one, which is not held against itself.
    """
    # With absent classes it is not one that people publish.
    same = own if comparison.scoring.absent == "skip" else None
    others = (each for each in headlines(comparison, decoder) if each[:3] != same)
    return tuple(each for each in others if sign(each.low, each.high) not in (found, "unclear"))


def headlines(comparison: Figures, decoder: str) -> list[Headline]:
    """What every score that people publish gains."""
    index, found = comparison.candidates.index(decoder), []
    accuracy = phrases.accuracy(comparison.scored_classes, comparison.classes)
    accuracy = "pixel accuracy" if accuracy == "accuracy" else f"dataset {accuracy}"
    for score, level, present in HEADLINES:
        if present is None and len(comparison.classes) == 1:
            continue  # recall alone, which a larger mask raises
        levels = comparison.under(present or "union").differences.levels
        called = title(score, level, present) if present else accuracy
        gain, low, high = levels[score, level][index].tolist()
        found.append(Headline(score, level, present, gain, low, high, called))
    return found


def _first(comparison: Figures, decoder: str, paired: Paired, found: str) -> str:
    what, images = unit(comparison.scoring), len(paired.names)
    low, high = paired.interval
    told = f"{100 * comparison.confidence:g} % interval {span(low, high)}"
    confidence = f"{phrases.TOO_FEW} for an interval" if math.isnan(low) else told
    worse = f"{paired.losses} of {images} images got worse, {paired.wins} better"
    if not images:
        return f"{decoder} cannot be judged: no image has a score with both decoders."
    other = comparison.decides_as(decoder)
    if other is not None:
        where = f"in each of {number_of(len(comparison.names), 'image')}"
        result = f": {what} is the same" if other == comparison.decoders[0] else ""
        return f"{decoder} decides as {other} does {where}{result}."
    lead = {
        "gain": f"{decoder} improves {what} by {points(paired.mean).lstrip('+')} points",
        "loss": f"{decoder} lowers {what} by {points(-paired.mean).lstrip('+')} points",
        "unclear": f"{decoder} makes no certain difference to {what}: {points(paired.mean)} points",
    }[found]
    return f"{lead} ({confidence}); {worse}."


def _second(against: tuple[Headline, ...], found: str) -> str:
    if not against:
        return ""
    return f" {'Certain all the same' if found == 'unclear' else 'But certainly the other way'}: {listed(against)}."


def listed(found: Iterable[Headline]) -> str:
    """Scores and what they gain."""
    return ", ".join(f"{each.title} {points(each.gain)} ({span(each.low, each.high)})" for each in found)
