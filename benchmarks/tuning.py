"""Does tuning overfit? Tune on one half of the images, score on the other, with many different halves.

Once as :func:`~rankseg_plugins.evaluation.tune` decides, and once without the least number of cases that it asks for.

``python -m benchmarks.tuning PROBS.npz [PROBS.npz ...]`` prints a table; every image is decoded once.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rankseg_plugins.evaluation import Sample, tune
from rankseg_plugins.evaluation.choosing import choose
from rankseg_plugins.evaluation.comparison import Comparison

HALVES = 20
OBJECTIVES = ("dice_image", "iou_image", "iou_dataset")


def samples_of(path: Path) -> list[Sample]:
    with np.load(path) as file:
        probs, labels = torch.from_numpy(file["probs"]), torch.from_numpy(file["labels"]).long()
    return [Sample(str(i), *both) for i, both in enumerate(zip(probs, labels, strict=True))]


def other_half(comparison: Comparison, objective: str, min_cases: int, seed: int) -> tuple[bool, np.ndarray]:
    """Whether a candidate was kept, and its gain with the interval on the half that it was not chosen on."""
    order = np.random.default_rng(seed).permutation(len(comparison.measurements))
    first, second = (
        replace(comparison, measurements=tuple(comparison.measurements[i] for i in part), resamples=2000)
        for part in np.array_split(order, 2)
    )
    choice = choose(first, objective, min_cases=min_cases)
    score, level = objective.split("_")
    index = comparison.candidates.index(choice.winner)
    scored = 100 * second.differences.levels[score, level][index]
    return choice.certain, scored if choice.certain else np.zeros(3)


def table(path: Path) -> Iterator[str]:
    """A row for each objective and each least number of cases."""
    samples = samples_of(path)
    for objective in OBJECTIVES:
        found = tune(samples, objective, ignore_index=255, resamples=1)
        for min_cases in (20, 0):
            runs = [other_half(found.comparison, objective, min_cases, seed) for seed in range(HALVES)]
            kept, gains = sum(certain for certain, _ in runs), np.array([gain for _, gain in runs])
            low, mean, high = gains[:, 0].min(), gains[:, 0].mean(), gains[:, 0].max()
            cells = (path.parent.name, objective, min_cases, f"{kept} of {HALVES}", f"{mean:+.2f}")
            yield f"| {' | '.join(map(str, cells))} | {low:+.2f} to {high:+.2f} | {(gains[:, 2] < 0).sum()} |"


def main(paths: list[str]) -> None:
    print("| data | objective | `min_cases` | left argmax | mean gain, points | least to most | certainly worse |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for path in paths:
        for row in table(Path(path)):
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
