"""Do probabilities mean what they say? Reliability curves and expected calibration error, from sums of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from torch import Tensor

BINS = 15
#: Pixels that are binned at once: bounds the memory for large volumes.
CHUNK = 1 << 22
#: Of a pixel; a power of 2, so that multiples are exact.
GRAIN = 2.0**-20


@dataclass(frozen=True)
class Calibration:
    """Probabilities against frequencies, in bins of equal width. Add two to pool their pixels.

    A row is a class: all pixels, its probability there, and whether the pixel is of the class. With more than one class
    and one label per pixel the last row is the *top label*: the largest probability, and whether argmax is right.

    Args:
        count: pixels in each bin, (rows, bins) float64.
        confidence: sum of the probabilities in each bin.
        correct: pixels of the class in each bin.

    Source: Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015; by class:
    Kull et al., "Beyond temperature scaling", NeurIPS 2019.

    Example:
        >>> probs = torch.tensor([[0.9, 0.9, 0.9, 0.9]])  # one class, four pixels, three of them foreground
        >>> measured = calibration(probs, torch.tensor([[True, True, True, False]]))
        >>> measured.error().round(4)  # |0.9 - 3/4|
        array([0.15])
    """

    count: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray

    def __add__(self, other: Calibration) -> Calibration:
        """Pool the pixels of both."""
        return Calibration(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)

    def pooled(self, rows: Sequence[int]) -> Calibration:
        """Some rows as a single one."""
        return Calibration(*(each[list(rows)].sum(0, keepdims=True) for each in astuple(self)))

    def rounded(self) -> Calibration:
        """With sums of probabilities in steps of 2^-20 of a pixel: such are added without loss, in whatever order.

        That is, up to 2^33 pixels in a bin.

        Example:
            >>> true = torch.ones(1, 9, dtype=torch.bool)
            >>> one, two, three = (calibration(torch.full((1, 9), p), true).rounded() for p in (0.61, 0.62, 0.63))
            >>> bool(((one + two + three).confidence == (three + two + one).confidence).all())
            True
        """
        return replace(self, confidence=np.round(self.confidence / GRAIN) * GRAIN)

    def error(self) -> np.ndarray:
        """Expected calibration error of each row, (rows,) in [0, 1]: mean distance of probability and frequency."""
        return self._share(np.abs(self.confidence - self.correct).sum(1))

    def overconfidence(self) -> np.ndarray:
        """Mean probability minus frequency of each row, (rows,) in [-1, 1]: above 0 the network is too sure."""
        return self._share((self.confidence - self.correct).sum(1))

    def underconfidence(self, num_classes: int) -> float:
        """How much more often decisions are right than their probability says, in [-1, 1]; NaN without pixels.

        Of the top label where it was taken, otherwise of the threshold 1/2 of every class.

        Args:
            num_classes: C.

        Example:
            >>> probs = torch.tensor([[0.6, 0.6, 0.4]])  # three pixels, each decided rightly, 60 % sure
            >>> round(calibration(probs, torch.tensor([[True, True, False]])).underconfidence(1), 3)
            0.4
        """
        if len(self.count) > num_classes:
            return -float(self.overconfidence()[-1])
        decided = np.sign(self.confidence - self.count / 2)
        with np.errstate(invalid="ignore"):
            return float((decided * (self.correct - self.confidence)).sum() / self.count.sum())

    def curve(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean probability, frequency and share of the pixels of every bin that holds any."""
        held = self.count[row] > 0
        count = self.count[row][held]
        return self.confidence[row][held] / count, self.correct[row][held] / count, count / count.sum()

    def _share(self, total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return total / self.count.sum(1)


def calibration(probs: Tensor, truth: Tensor, kept: Tensor | None = None, bins: int = BINS) -> Calibration:
    r"""Bin the probabilities of one image.

    With labels, a pixel without any probability, such as outside of a crop, is left out: it says nothing about its
    class, and would count as a decision that nobody is sure of.

    Args:
        probs: (C, \*spatial) in [0, 1], floating point.
        truth: labels (\*spatial) of 0 to C - 1 where they are kept, or bool masks (C, \*spatial).
        kept: optional bool (\*spatial): False leaves a pixel out; with masks also (C, \*spatial), for each by its own.
        bins: number of bins; bin k holds [k / bins, (k + 1) / bins), the last one also 1.

    Returns:
        C rows, and one more for the top label if C > 1 and the truth is one label per pixel.
    """
    probs, classes = probs.flatten(1), len(probs)
    masks = truth.flatten(1) if truth.dtype == torch.bool else None
    labels = None if masks is not None else truth.flatten()
    kept = torch.ones_like(probs[:1], dtype=torch.bool) if kept is None else kept.reshape(-1, probs.shape[1])
    kept = kept.expand(classes if masks is not None else 1, -1)
    top = classes > 1 and labels is not None
    sums = torch.zeros(3, classes + top, bins, dtype=torch.float64, device="cpu")
    for start in range(0, probs.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        if masks is not None:
            for row, held in enumerate(kept[:, part]):
                index = _add(sums[:2, row], probs[row, part][held].double())
                sums[2, row] += torch.bincount(index[masks[row, part][held]], minlength=bins).cpu()
        if labels is not None:
            held = kept[0, part] & (probs[:, part] > 0).any(0)
            confidence, true = probs[:, part][:, held].double(), labels[part][held]
            for row in range(classes):
                _add(sums[:2, row], confidence[row])
            index = true * bins + _bin(confidence.gather(0, true[None])[0], bins)
            sums[2, :classes] += torch.bincount(index, minlength=classes * bins).view(classes, bins).cpu()
        if top and labels is not None:
            largest, decided = confidence.max(0)
            index = _add(sums[:2, -1], largest)
            sums[2, -1] += torch.bincount(index[decided == true], minlength=bins).cpu()
    return Calibration(*sums.numpy())


def _add(sums: Tensor, confidence: Tensor) -> Tensor:
    """Add to the counts and confidences; return the bin of every pixel."""
    bins = sums.shape[1]
    index = _bin(confidence, bins)
    sums[0] += torch.bincount(index, minlength=bins).cpu()
    sums[1] += torch.bincount(index, weights=confidence, minlength=bins).cpu()
    return index


def _bin(confidence: Tensor, bins: int) -> Tensor:
    return (confidence * bins).long().clamp_(0, bins - 1)
