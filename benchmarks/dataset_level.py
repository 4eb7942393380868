"""The dataset-level decision on images that it was not fitted on, at every level.

``python -m benchmarks.dataset_level PROBS.npz [PROBS.npz ...]`` fits on every second image and scores the others.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins import GlobalRankSEG
from rankseg_plugins.evaluation.areas import Areas, areas
from rankseg_plugins.evaluation.levels import LEVELS, SCORES

IGNORE = 255
PLAIN = {"min_images": 0, "min_dice": 0}
HEAD = "| data | decision | dataset IoU | image IoU | class IoU | dataset Dice | image Dice | class Dice |"


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
        decoder.update(probs[fitted_on], truth, ignore_index=IGNORE)
        decoder.fit()
        yield name, decoder(decided)


def main(paths: list[str]) -> None:
    print(f"{HEAD}\n|{' --- |' * 2}{' ---: |' * 6}")
    for path in map(Path, paths):
        with np.load(path) as file:
            probs, labels = torch.from_numpy(file["probs"]), torch.from_numpy(file["labels"]).long()
        truth = labels[1::2]
        # Classes that no image holds say nothing about a decision but that it hallucinates: they are left out.
        present = truth[truth != IGNORE].unique()
        for name, decided in decisions(probs, labels):
            counts = Areas(*(each[:, present] for each in areas(decided, truth, probs.shape[1], IGNORE)))
            scores = [
                f"{100 * LEVELS[level](counts, SCORES[score]):.2f}" for score in ("iou", "dice") for level in LEVELS
            ]
            print(f"| {path.parent.name} | {name} | {' | '.join(scores)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
