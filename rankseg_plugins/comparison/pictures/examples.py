"""Keeps the images that a decoder improves and damages most, while thousands stream by."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.scores.truth import known_pixels


@dataclass(frozen=True)
class Example:
    """One image to draw, or the slice of a volume on which the decisions differ most.

    Args:
        name: of the image.
        gain: its score with the second decoder minus that with the baseline.
        truth: (H, W) int labels, -1 where pixels do not count.
        decisions: (H, W) labels of every decoder, the baseline first, -1 where void.
        image: (H, W, 3) uint8, the photograph; None where there is none.
    """

    name: str
    gain: float
    truth: np.ndarray
    decisions: tuple[np.ndarray, ...]
    image: np.ndarray | None = None


class Extremes:
    """The ``count`` images with the largest gains, and as many with the largest losses; others are forgotten."""

    def __init__(self, count: int, num_classes: int, ignore_index: int | None = None) -> None:
        self.count, self.num_classes, self.ignore_index = count, num_classes, ignore_index
        self._best: list[tuple[float, int, Example]] = []
        self._worst: list[tuple[float, int, Example]] = []
        self._seen = 0

    def offer(self, name: str, gain: float, truth: Tensor, decisions: Sequence[Tensor]) -> None:
        """Consider an image.

        Args:
            name: of the image.
            gain: its difference in score; NaN and 0 are not kept.
            truth: labels (*spatial) or masks (C, *spatial), in the form of
                ``rankseg_plugins.scores.truth.to_truth``.
            decisions: of every decoder, likewise.
        """
        if self._would_keep(gain):
            dimensions = decisions[0].ndim - (decisions[0].dtype == torch.bool)
            truth, *maps = _plane(*(self._as_labels(each, dimensions) for each in (truth, *decisions)))
            self.keep(Example(name, gain, truth.numpy(), tuple(each.numpy() for each in maps)))

    def keep(self, example: Example) -> None:
        """Consider an image that is drawable already."""
        if not self._would_keep(example.gain):
            return
        heap = self._heap(example.gain)
        # Earlier images win ties.
        self._seen += 1
        entry = (abs(example.gain), -self._seen, example)
        (heapq.heappush if len(heap) < self.count else heapq.heapreplace)(heap, entry)

    def _heap(self, gain: float) -> list[tuple[float, int, Example]]:
        return self._best if gain > 0 else self._worst

    def _would_keep(self, gain: float) -> bool:
        heap, changed = self._heap(gain), abs(gain) > 0  # False for NaN
        return changed and self.count > 0 and (len(heap) < self.count or abs(gain) > heap[0][0])

    def improved(self) -> tuple[Example, ...]:
        """The largest gain first."""
        return tuple(entry[2] for entry in sorted(self._best, reverse=True, key=lambda entry: entry[:2]))

    def damaged(self) -> tuple[Example, ...]:
        """The largest loss first."""
        return tuple(entry[2] for entry in sorted(self._worst, reverse=True, key=lambda entry: entry[:2]))

    def all(self) -> tuple[Example, ...]:
        """Everything that is kept."""
        return (*self.improved(), *self.damaged())

    def _as_labels(self, labels: Tensor, dimensions: int) -> Tensor:
        """Labels with -1 for void; of overlapping masks the highest class is shown, and 0 where there is none."""
        if labels.ndim > dimensions:
            ranks = torch.arange(1, len(labels) + 1, device=labels.device).view(-1, *[1] * (labels.ndim - 1))
            highest, known = ((labels == 1) * ranks).amax(0), known_pixels(labels, self.ignore_index)
            return highest if known is None else highest.masked_fill((highest == 0) & ~known.all(0), -1)
        labels = labels.long()
        void = (labels < 0) | (labels >= max(self.num_classes, 2))
        return labels.masked_fill(void if self.ignore_index is None else void | (labels == self.ignore_index), -1)


def _plane(*maps: Tensor) -> list[Tensor]:
    """Of volumes the slice on which the first two decisions differ most; all in the smallest integers."""
    if maps[0].ndim == 1:
        maps = tuple(each.unsqueeze(0) for each in maps)
    while maps[0].ndim > 2:
        plane = int((maps[1] != maps[2]).flatten(1).sum(1).argmax())
        maps = tuple(each[plane] for each in maps)
    small = all(not each.numel() or int(each.max()) <= torch.iinfo(torch.int8).max for each in maps)
    return [each.to("cpu", torch.int8 if small else torch.int16) for each in maps]
