"""Which images a decoder was tuned on: remembered in its file, so that a comparison on the same ones can say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rankseg_plugins.comparison.measuring import Measurement

#: Images that are remembered at most, and digits of each: the file stays short.
MOST, DIGITS = 100, 8
#: The share of them from which on two sets of images are said to be the same; masks of equal area are chance below it.
SHARE = 0.5


def remember(measurements: Iterable[Measurement]) -> str:
    """Some of the images in few letters: hashes of the pixels that the truth gives to each class.

    Names and decisions have no part in it. Truth of less than two classes, or an empty mask, tells nothing.

    Example:
        >>> measured = Measurement("a", "a", np.array([[[3, 4], [3, 5], [5, 4]]]), np.zeros(1))
        >>> remember([measured])
        '40ebbd27'
    """
    return " ".join(sorted(_hashes(measurements))[:MOST])


def describe_seen(evidence: Mapping[str, Any], measurements: Iterable[Measurement], decoder: str) -> str | None:
    """A sentence on a decoder that was tuned on the images that it is compared on; None where it was not.

    Args:
        evidence: of a tuned decoder, with what :func:`remember` gave.
        measurements: of the comparison.
        decoder: its name.
    """
    seen = set(str(evidence.get("seen", "")).split())
    again = len(seen & _hashes(measurements))
    if not again or again < SHARE * len(seen):
        return None
    return (
        f"{decoder} was tuned on images that are measured here, {again} of {len(seen)} that it remembers: its gain is "
        "flattered. Measure it on others"
    )


def _hashes(measurements: Iterable[Measurement]) -> set[str]:
    areas = (each.counts[0, 2] for each in measurements)
    return {
        hashlib.sha256(np.ascontiguousarray(each, dtype="<i8").tobytes()).hexdigest()[:DIGITS]
        for each in areas
        if (each > 0).sum() >= min(2, len(each))
    }
