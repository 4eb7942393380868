"""How a comparison was made: versions, options, inputs; and what is known of decoders that were tuned before.

Which images a decoder was tuned on is remembered in its file, so that a comparison on the same ones can say so.
"""

from __future__ import annotations

import datetime
import hashlib
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from rankseg_plugins._version import __version__
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.comparison.scoring import Scoring

PACKAGES = ("torch", "numpy", "scipy")
#: Images that are remembered at most, and digits of each: the file stays short.
MOST, DIGITS = 100, 8
#: The share of them from which on two sets of images are said to be the same; masks of equal area are chance below it.
SHARE = 0.5


def collect_facts(
    arguments: Sequence[str] = (), hashes: Mapping[str, str] | None = None, unmatched: Sequence[str] = ()
) -> dict[str, Any]:
    """Facts for ``Comparison``.

    Args:
        arguments: of the command line.
        hashes: hash of the inputs of each image by name.
        unmatched: files without a partner.

    Returns:
        By title, words or a list of words.
    """
    facts: dict[str, Any] = {"rankseg_plugins": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    facts["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if arguments:
        facts["command"] = shlex.join(["rankseg-plugins", *arguments])
    if hashes:
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))
        facts["SHA-256 of all inputs"] = hashlib.sha256(lines.encode(errors="surrogatepass")).hexdigest()
    if unmatched:
        facts["without partner"] = list(unmatched)
    return facts


def describe_tuned(decoders: Mapping[str, Decoder], scoring: Scoring, measurements: Sequence[Measurement]) -> list[str]:
    """Sentences on decoders that were tuned where other classes count, or on the images that they are compared on."""
    tuned = {name: each for name, each in decoders.items() if isinstance(each, TunedDecoder) and not each.is_argmax}
    found = []
    for name, each in tuned.items():
        found += [scoring.describe_other(each.evidence, name), describe_seen(each.evidence, measurements, name)]
    return [sentence for sentence in found if sentence is not None]


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
        evidence: of a tuned decoder, with what ``remember`` gave.
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
