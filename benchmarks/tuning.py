"""Does tuning overfit? Tune on one half of the images, score on the other, with many different halves.

``python -m benchmarks.tuning PROBS.npz [PROBS.npz ...]`` prints a table; every image is decoded once.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rankseg_plugins.evaluation import Sample, tune
from rankseg_plugins.evaluation.comparison import Comparison
from rankseg_plugins.evaluation.tuning import choose

HALVES = 20
OBJECTIVES = ("dice_image", "iou_image", "iou_dataset")


def samples_of(path: Path) -> list[Sample]:
    with np.load(path) as file:
        probs, labels = torch.from_numpy(file["probs"]), torch.from_numpy(file["labels"]).long()
    return [Sample(str(i), *both) for i, both in enumerate(zip(probs, labels, strict=True))]


def other_half(comparison: Comparison, objective: str, seed: int) -> tuple[bool, np.ndarray]:
    """Whether a candidate was kept, and its gain with the interval on the half that it was not chosen on."""
    order = np.random.default_rng(seed).permutation(len(comparison.measurements))
    first, second = (
        replace(comparison, measurements=tuple(comparison.measurements[i] for i in part), resamples=2000)
        for part in np.array_split(order, 2)
    )
    choice = choose(first, objective)
    score, level = objective.split("_")
    index = comparison.candidates.index(choice.winner)
    scored = 100 * second.differences.levels[score, level][index]
    return choice.certain, scored if choice.certain else np.zeros(3)


def main(paths: list[str]) -> None:
    print("| data | objective | runs that left argmax | mean gain, points | least to most | certainly worse |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for path in map(Path, paths):
        for score in ("dice", "iou"):
            found = tune(samples_of(path), f"{score}_image", ignore_index=255, resamples=1)
            for objective in (each for each in OBJECTIVES if each.startswith(score)):
                runs = [other_half(found.comparison, objective, seed) for seed in range(HALVES)]
                kept, gains = sum(certain for certain, _ in runs), np.array([gain for _, gain in runs])
                worse = int((gains[:, 2] < 0).sum())
                print(
                    f"| {path.parent.name} | {objective} | {kept} of {HALVES} | {gains[:, 0].mean():+.2f} "
                    f"| {gains[:, 0].min():+.2f} to {gains[:, 0].max():+.2f} | {worse} |",
                    flush=True,
                )


if __name__ == "__main__":
    main(sys.argv[1:])
