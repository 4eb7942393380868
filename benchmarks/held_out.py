"""What a user gets: argmax, the reference package, RankSEG and the tuned decoder on images that were not tuned on.

The images are dealt into two halves; ``tune()`` chooses on each at its defaults (argmax where no gain is likely), and
what it chose decides on the other. Every image is so scored once. "Argmax of the classes of the set" knows which
classes the truths of the half hold at all.

``python -m benchmarks.held_out PROBS.npz [PROBS.npz ...]`` prints a table; about a minute for each set.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import rankseg as reference
import torch

from benchmarks.measure import table_head
from benchmarks.presence import held, joined
from benchmarks.tuning import IGNORE, samples_of
from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Sample, compare
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.tuning import tune

HEAD = (
    *("data", "decision", "image Dice, union", "95 % interval of the gain", "better / worse"),
    *("image Dice, label", "dataset IoU, label", "pixel accuracy"),
)
BASELINE, ACCURACY = "argmax", ("accuracy", "dataset")


def judged(images: list[Sample]) -> Comparison:
    """Decoders tuned on each half, on the other half."""
    order = np.random.default_rng(0).permutation(len(images))
    halves = [[images[index] for index in half] for half in np.array_split(order, 2)]
    parts = []
    for mine, others in (halves, halves[::-1]):
        seen = torch.stack([held(image) for image in mine]).any(0)
        decoders = {
            BASELINE: RankSEG("acc"),
            "argmax of the classes of the set": partial(RankSEG("acc"), active=seen),
            "`rankseg` 0.0.8": reference.RankSEG().predict,
            "RankSEG": RankSEG(),
            "tuned": tune(mine, ignore_index=IGNORE).decoder,
        }
        parts.append(compare(others, decoders, ignore_index=IGNORE, panels=0))
    return joined(parts)


def rows(data: str, found: Comparison) -> None:
    label = found.under("label")
    scores = [(found, "dice", "image"), (label, "dice", "image"), (label, "iou", "dataset"), (found, *ACCURACY)]
    for name in found.decoders:
        values, base = ([100 * each.level(of, *level) for each, *level in scores] for of in (name, BASELINE))
        if name == BASELINE:
            cells = [f"{value:.2f}" for value in values]
            paired = ["", ""]
        else:
            cells = [f"{value:.2f} ({value - before:+.2f})" for value, before in zip(values, base, strict=True)]
            gain = found.paired(name)
            low, high = (100 * end for end in gain.interval)
            paired = [f"{low:+.2f} to {high:+.2f}", f"{gain.wins} / {gain.losses}"]
        print(f"| {' | '.join([data, name, cells[0], *paired, *cells[1:]])} |", flush=True)


def main(paths: list[str]) -> None:
    if not paths:
        raise SystemExit("which data? python -m benchmarks.held_out PROBS.npz ..., with arrays probs and labels")
    print(table_head(HEAD, words=2))
    for path in map(Path, paths):
        rows(path.parent.name, judged(samples_of(path)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
