"""The decoders that are compared, and what an evaluation of one of them leaves behind."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins import RankSEG
from rankseg_plugins.scores import Areas, levels

SCORES = ("iou", "dice")
LEVELS = ("dataset", "image", "class")


@dataclass(frozen=True)
class Decision:
    """A column of the table.

    Args:
        name: one or two words.
        detail: what is not at its default, or empty.
        options: options of ``RankSEG``; None is plain argmax.
    """

    name: str
    detail: str = ""
    options: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def title(self) -> str:
        """Name and detail in one line."""
        return f"{self.name} ({self.detail})" if self.detail else self.name

    def decoder(self) -> RankSEG:
        """The decision as a module on probabilities."""
        return RankSEG(metric="acc") if self.options is None else RankSEG(**self.options)


ARGMAX = Decision("argmax")
DICE = Decision("RankSEG dice", options={"metric": "dice"})
#: The package's defaults first. 0.1 is no tuned value: it shows what the option does.
DECISIONS = (
    ARGMAX,
    DICE,
    Decision("RankSEG iou", options={"metric": "iou"}),
    Decision("RankSEG dice", "pruning_prob=0.1", {"metric": "dice", "pruning_prob": 0.1}),
    Decision("RankSEG iou", "pruning_prob=0.1", {"metric": "iou", "pruning_prob": 0.1}),
)


class LabelMaps:
    """Label maps of many images, compressed: a real validation set times every decision is large."""

    def __init__(self) -> None:
        self._maps: list[tuple[tuple[int, ...], bytes]] = []

    def extend(self, labels: Iterable[Tensor]) -> None:
        """Add label maps (H, W) with labels of 0 to 255."""
        for each in labels:
            pixels = each.to("cpu", torch.uint8).numpy()
            self._maps.append((pixels.shape, zlib.compress(pixels.tobytes(), 1)))

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, index: int) -> np.ndarray:
        shape, packed = self._maps[index]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)


@dataclass(frozen=True)
class Outcome:
    """What one toolkit made of one decision.

    Args:
        labels: the decided labels of every validation image, in the order of the files.
        scores: value in [0, 1] of each score and level, by names such as ``dice_image``.
        areas: pixel counts of every image and class, where the toolkit's evaluation kept them.
    """

    labels: LabelMaps
    scores: dict[str, float]
    areas: Areas | None = None


def score_areas(areas: Areas) -> dict[str, float]:
    """Every score and level of the pixel counts of all images."""
    return {
        f"{score}_{level}": levels.LEVELS[level](areas, levels.SCORES[score]).item()
        for score in SCORES
        for level in LEVELS
    }
