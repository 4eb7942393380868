"""Do probabilities mean what they say? Reliability curves and expected calibration error, from sums of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.kernels import has_numba

BINS = 15
#: Pixels that are binned at once: bounds the memory for large volumes.
CHUNK = 1 << 20
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
        """Some rows as a single one.

        Example:
            >>> probs, truth = torch.tensor([[0.9, 0.9], [0.1, 0.1]]), torch.tensor([0, 1])
            >>> calibration(probs, truth).pooled([0, 1]).frequency()  # of all classes, without the top label
            array([0.5])
        """
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
        """Expected calibration error of each row, (rows,) in [0, 1]: mean distance of probability and frequency.

        Example:
            >>> probs, truth = torch.tensor([[0.8, 0.8], [0.2, 0.2]]), torch.tensor([0, 0])
            >>> calibration(probs, truth).error().round(4)  # two classes, top label: each is off by 0.2
            array([0.2, 0.2, 0.2])
        """
        return self._share(np.abs(self.confidence - self.correct).sum(1))

    def overconfidence(self) -> np.ndarray:
        """Mean probability minus frequency of each row, (rows,) in [-1, 1]: above 0 the network is too sure.

        Example:
            >>> probs, truth = torch.tensor([[0.8, 0.8], [0.2, 0.2]]), torch.tensor([0, 0])
            >>> calibration(probs, truth).overconfidence().round(4)
            array([-0.2,  0.2, -0.2])
        """
        return self._share((self.confidence - self.correct).sum(1))

    def likely(self) -> np.ndarray:
        """Mean probability of each row, (rows,) in [0, 1]; NaN without pixels.

        Example:
            >>> calibration(torch.tensor([[0.75, 0.25]]), torch.tensor([[True, True]])).likely()
            array([0.5])
        """
        return self._share(self.confidence.sum(1))

    def frequency(self) -> np.ndarray:
        """Share of the pixels of each row that are of its class, (rows,) in [0, 1]; NaN without pixels.

        Example:
            >>> calibration(torch.tensor([[0.75, 0.25]]), torch.tensor([[True, False]])).frequency()
            array([0.5])
        """
        return self._share(self.correct.sum(1))

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
        """Mean probability, frequency and share of the pixels of every bin that holds any.

        Example:
            >>> probs, truth = torch.tensor([[0.75, 0.75, 0.25, 0.25]]), torch.tensor([[True, True, True, False]])
            >>> calibration(probs, truth).curve(0)
            (array([0.25, 0.75]), array([0.5, 1. ]), array([0.5, 0.5]))
        """
        held = self.count[row] > 0
        count = self.count[row][held]
        return self.confidence[row][held] / count, self.correct[row][held] / count, count / count.sum()

    def _share(self, total: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            found: np.ndarray = total / self.count.sum(1)
            return found


def calibration(probs: Tensor, truth: Tensor, kept: Tensor | None = None, bins: int = BINS) -> Calibration:
    """Bin the probabilities of one image.

    With labels, a pixel without any probability, such as outside of a crop, is left out: it says nothing about its
    class, and would count as a decision that nobody is sure of.

    Args:
        probs: (C, *spatial) in [0, 1], floating point.
        truth: labels (*spatial) of 0 to C - 1 where they are kept, or bool masks (C, *spatial).
        kept: optional bool (*spatial): False leaves a pixel out; with masks also (C, *spatial), for each by its own.
        bins: number of bins; bin k holds [k / bins, (k + 1) / bins), the last one also 1.

    Returns:
        C rows, and one more for the top label if C > 1 and the truth is one label per pixel.
    """
    probs, truth = probs.flatten(1), truth.flatten(1) if truth.dtype == torch.bool else truth.flatten()
    if kept is None:  # by NumPy, which fills memory without waiting for other threads
        kept = torch.from_numpy(np.ones((1, probs.shape[1]), np.bool_)).to(probs.device)
    kept = kept.reshape(-1, probs.shape[1])
    of_piece = _of_masks if truth.dtype == torch.bool else _of_labels
    pieces = [each.split(CHUNK, -1) for each in (probs, truth, kept)]
    sums = [of_piece(some, true, counts, bins) for some, true, counts in zip(*pieces, strict=True)]
    return Calibration(*torch.stack(sums).sum(0).cpu().numpy())


def _of_masks(probs: Tensor, masks: Tensor, kept: Tensor, bins: int) -> Tensor:
    """The three fields, (3, C, bins)."""
    return torch.cat([_binned(probs, kept, bins), _binned(probs, kept & masks, bins)[:1]])


def _of_labels(probs: Tensor, labels: Tensor, kept: Tensor, bins: int) -> Tensor:
    """Likewise, with the top label if there is more than one class."""
    if len(probs) > 1 and _has_kernel(probs):
        from rankseg_plugins.core.kernels.cpu.counts import labels_binned

        return labels_binned(probs, labels, kept[0], bins)
    kept, labels = kept & (probs.amax(0) > 0), labels.where(kept[0], 0)
    masks = torch.zeros_like(probs, dtype=torch.bool).scatter_(0, labels[None], True)
    sums = _of_masks(probs, masks, kept, bins)
    if len(probs) == 1:
        return sums
    largest, decided = probs.max(0)
    return torch.cat([sums, _of_masks(largest[None], (decided == labels)[None], kept, bins)], 1)


def _has_kernel(probs: Tensor) -> bool:
    return probs.device.type == "cpu" and probs.dtype == torch.float32 and has_numba()


def _binned(probs: Tensor, kept: Tensor, bins: int) -> Tensor:
    """Number and sum of the probabilities that are kept in every bin, (2, rows, bins) float64."""
    if _has_kernel(probs):
        from rankseg_plugins.core.kernels.cpu.counts import binned

        return binned(probs, kept, bins)
    values, rows, width = probs.double(), len(probs), bins + 1
    # What does not count goes to a bin of its own: faster than leaving it out.
    index = (values * bins).long().clamp_(0, bins - 1).masked_fill_(~kept, bins)
    index += width * torch.arange(rows, device=probs.device).unsqueeze(1)
    sums = (torch.bincount(index.flatten(), each, minlength=rows * width) for each in (None, values.flatten()))
    return torch.stack([each.view(rows, width)[:, :bins].double() for each in sums])
