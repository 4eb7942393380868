"""The dataset-level decision on images that it was not fitted on, at every level, and what its guards do to it.

``python -m benchmarks.dataset_level PROBS.npz [PROBS.npz ...]`` fits on every second image and scores the others.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins import GlobalRankSEG
from rankseg_plugins.scores.areas import Areas, areas
from rankseg_plugins.scores.levels import LEVELS, SCORES

IGNORE = 255
#: Without the guards of spread and gain.
FREELY = {"max_spread": 1e6, "min_gain": 0}
PLAIN = {"min_images": 0, "min_dice": 0, **FREELY}
MIN_IMAGES, MIN_DICE = (0, 2, 5, 10), (0, 0.05, 0.1, 0.2)
HEAD = "| data | decision | dataset IoU | image IoU | class IoU | dataset Dice | image Dice | class Dice |"
GUARDS_HEAD = f"| data | `min_images` | {' | '.join(f'`min_dice` {value}' for value in MIN_DICE)} |"


def decisions(probs: Tensor, labels: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Of every second image, by name."""
    fitted_on, decided = slice(0, None, 2), probs[1::2]
    yield "argmax", decided.argmax(1)
    for name, options, truth in (
        ("global, no labels", {}, None),
        ("global, no labels, no guards", PLAIN, None),
        ("global, with labels", {}, labels[fitted_on]),
    ):
        decoder = GlobalRankSEG(probs.shape[1], **options)
        decoder.update(probs[fitted_on], truth, ignore_index=None if truth is None else IGNORE)
        decoder.fit()
        yield name, decoder(decided)


def counted(decided: Tensor, truth: Tensor, classes: int) -> Areas:
    """Classes that no image holds say nothing about a decision but that it hallucinates: they are left out."""
    present = truth[truth != IGNORE].unique()
    return Areas(*(each[:, present] for each in areas(decided, truth, classes, IGNORE)))


def guarded(probs: Tensor, labels: Tensor) -> Iterator[list[str]]:
    """Dataset IoU and number of pursued classes, a list over ``MIN_DICE`` for each of ``MIN_IMAGES``."""
    decoder = GlobalRankSEG(probs.shape[1], **FREELY)
    decoder.update(probs[::2])
    for min_images in MIN_IMAGES:
        # With fewer images than that fit() refuses.
        enough = min_images <= len(probs[::2])
        yield [cell(decoder, min_images, value, probs, labels) if enough else "refused" for value in MIN_DICE]


def cell(decoder: GlobalRankSEG, min_images: float, min_dice: float, probs: Tensor, labels: Tensor) -> str:
    decoder.min_images, decoder.min_dice = min_images, min_dice
    pursued = int(decoder.fit().pursued.sum())
    counts = counted(decoder(probs[1::2]), labels[1::2], probs.shape[1])
    return f"{100 * LEVELS['dataset'](counts, SCORES['iou']):.2f} ({pursued})"


def read(path: Path) -> tuple[Tensor, Tensor]:
    with np.load(path) as file:
        return torch.from_numpy(file["probs"]), torch.from_numpy(file["labels"]).long()


def main(paths: list[str]) -> None:
    print(f"{HEAD}\n|{' --- |' * 2}{' ---: |' * 6}")
    for path in map(Path, paths):
        probs, labels = read(path)
        for name, decided in decisions(probs, labels):
            counts = counted(decided, labels[1::2], probs.shape[1])
            scores = [
                f"{100 * LEVELS[level](counts, SCORES[score]):.2f}" for score in ("iou", "dice") for level in LEVELS
            ]
            print(f"| {path.parent.name} | {name} | {' | '.join(scores)} |", flush=True)
    print(f"\n{GUARDS_HEAD}\n| --- |{' ---: |' * (1 + len(MIN_DICE))}")
    for path in map(Path, paths):
        for min_images, cells in zip(MIN_IMAGES, guarded(*read(path)), strict=True):
            print(f"| {path.parent.name} | {min_images} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
