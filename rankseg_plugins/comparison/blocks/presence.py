"""How likely decoders took classes to be there, against how often they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.scores.truth import known_pixels

#: Of probabilities, of which an image gives one for each class.
BINS = 10

#: In bins for each class (C rows), by decoder; only of decoders that know of presence.
Presence = Mapping[str, Calibration]


def judged(
    told: Sequence[Tensor | None], truth: Tensor, spatial: int, ignore_index: int | None = None
) -> np.ndarray | None:
    """How likely each decoder took each class of an image to be there, as far as the truth can be asked.

    Args:
        told: (C,) of each decoder; None of those that know nothing of it.
        truth: labels (*spatial) or masks (C, *spatial), as ``rankseg_plugins.scores.truth.to_truth`` gives them.
        spatial: number of spatial dimensions.
        ignore_index: label whose pixels do not count.

    Returns:
        (decoders, C) float64, NaN where a decoder knows nothing, or no pixel of the class or image is known; None where
        nothing is left.

    Example:
        >>> q = torch.tensor([0.5, 0.25])
        >>> judged([None, q], torch.tensor([1, 255]), 1, ignore_index=255)
        array([[ nan,  nan],
               [0.5 , 0.25]])
        >>> judged([None, q], torch.tensor([255, 255]), 1, ignore_index=255) is None
        True
    """
    classes = next((len(each) for each in told if each is not None), 0)
    unknown = torch.full((classes,), torch.nan, dtype=torch.float64, device="cpu")
    found = torch.stack([unknown if each is None else each.detach().double().cpu() for each in told])
    known = known_pixels(truth, ignore_index) if classes else None
    if known is not None:
        asked = known.flatten(1).any(1) if truth.ndim > spatial else known.any()
        found = found.masked_fill(~asked.cpu(), torch.nan)
    return None if found.isnan().all() else found.numpy()


def presence_of(decoders: Iterable[str], q: np.ndarray | None, there: np.ndarray) -> Presence:
    """Of one image.

    Args:
        decoders: their names.
        q: what ``judged`` found.
        there: (C,) bool, whether the truth holds each class.

    Example:
        >>> q = np.array([[np.nan, np.nan], [0.96, 0.04]])
        >>> found = presence_of(["argmax", "tuned"], q, np.array([True, False]))
        >>> list(found), found["tuned"].count[:, -1]
        (['tuned'], array([1., 0.]))
    """
    if q is None:
        return {}
    return {name: _binned(row, there) for name, row in zip(decoders, q, strict=True) if not np.isnan(row).all()}


def _binned(q: np.ndarray, there: np.ndarray) -> Calibration:
    known, sums = np.flatnonzero(~np.isnan(q)), np.zeros((3, len(q), BINS))
    index = np.minimum((BINS * q[known]).astype(np.int64), BINS - 1)
    sums[:, known, index] = np.stack([np.ones(len(known)), q[known], there[known]])
    return Calibration(*sums).rounded()


def together(parts: Iterable[Presence]) -> Presence:
    """Of several sets of images."""
    return reduce(_sum, parts, {})


def _sum(one: Presence, other: Presence) -> Presence:
    return {**one, **{name: one[name] + found if name in one else found for name, found in other.items()}}


def describe_presence(measured: Calibration, classes: Sequence[int]) -> dict[str, Any]:
    """What a report says of it, as values that JSON holds.

    Args:
        measured: of one decoder.
        classes: that count.

    Returns:
        ``"frequency"``, how often each class is there, and ``"likely"``, its mean probability (None where no image
        says); ``"bins"``, of tenths of probability that any class has: the mean one, the share of these classes that
        are there, and their number; and ``"error"``, the expected calibration error of all classes together.

    Example:
        >>> seen = [([0.96], [True]), ([0.94], [True]), ([0.12], [False])]
        >>> found = together(presence_of(["tuned"], np.array([q]), np.array(there)) for q, there in seen)
        >>> describe_presence(found["tuned"], [0])["bins"]
        [[0.12, 0.0, 1], [0.95, 1.0, 2]]
    """
    pooled, kept = measured.pooled(classes), list(classes)
    likely, share, part = pooled.curve(0)
    number = (part * pooled.count.sum()).round().astype(int)
    return {
        "frequency": _known(measured.frequency()[kept]),
        "likely": _known(measured.likely()[kept]),
        "bins": list(map(list, zip(likely.round(6).tolist(), share.round(6).tolist(), number.tolist(), strict=True))),
        "error": float(pooled.error()[0]),
    }


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(each) else each for each in values.tolist()]
