"""Is GlobalRankSEG safe without labels? Fitted to one half of the images and scored on the other, 20 halves a set.

*Certainly* counts the halves where the 95 % interval of the difference in image Dice, as ``compare`` gives it, lies
above 0, and below; and the same of an interval of the images at hand alone, 1.96 standard errors to either side, which
is narrower. *Promised* is what the fits say. Once with all guards, and once without those of spread and gain. "Tiles"
are the same images cut in ``TILES`` x ``TILES`` pieces: from a set whose images hold every class that makes one where
most are absent. "Softened" ones are made unsure by ``TEMPERATURE``.

``python -m benchmarks.dataset_halves PROBS.npz [PROBS.npz ...]`` prints a table, and of the sets as they are the
classes that the guard of spread leaves out; about ten minutes for four sets.
"""

import sys
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.measure import table_head
from benchmarks.tuning import HALVES, IGNORE, samples_of
from rankseg_plugins import GlobalRankSEG, RankSEG
from rankseg_plugins.comparison import Comparison, Sample, Scoring, compare
from rankseg_plugins.comparison.paired import Paired
from rankseg_plugins.core.pooled.fit import GlobalFit

PRESENT = ("union", "label")
TILES = 3
TEMPERATURE = 2
MAX_PIXELS = 50_000
#: More than any number of images, and nothing.
GUARDS = {"all guards": {}, "no guard of spread and gain": {"max_spread": 1e6, "min_gain": 0}}
#: Of the standard error.
WIDTH = 1.96
HEAD = (
    *("data", "decision", "present", "dataset IoU, points over argmax", "image Dice, points over argmax"),
    *("certainly better, worse", "by the images alone", "promised, points"),
)


class Half(NamedTuple):
    """The decisions on one half of the images, and the fits to the other."""

    comparison: Comparison
    fits: dict[str, GlobalFit]


def tiles_of(images: list[Sample]) -> Iterator[Sample]:
    for image in images:
        height, width = (size // TILES for size in image.labels.shape)
        for index in range(TILES**2):
            rows, columns = (index // TILES) * height, (index % TILES) * width
            part = slice(rows, rows + height), slice(columns, columns + width)
            yield Sample(f"{image.name}-{index}", image.probs[(slice(None), *part)], image.labels[part])


def softened(image: Sample) -> Sample:
    probs = image.probs.clamp(min=torch.finfo(torch.float16).tiny) ** (1 / TEMPERATURE)
    return Sample(image.name, probs / probs.sum(0), image.labels)


def fitted(images: list[Sample]) -> Iterator[tuple[str, GlobalRankSEG, GlobalFit]]:
    """The same sample of pixels, fitted with every set of guards."""
    decoder = GlobalRankSEG(len(images[0].probs), max_pixels=MAX_PIXELS)
    decoder.check_sums = False
    for image in images:
        decoder.update(image.probs[None])
    for name, options in GUARDS.items():
        guarded = deepcopy(decoder)
        for option, value in options.items():
            setattr(guarded, option, value)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="GlobalRankSEG pursues no class")
            yield name, guarded, guarded.fit()


def measured(images: list[Sample]) -> list[Half]:
    found = []
    for seed in range(HALVES):
        mine, others = np.array_split(np.random.default_rng(seed).permutation(len(images)), 2)
        parts = list(fitted([images[index] for index in mine]))
        decoders = {"argmax": RankSEG("acc"), **{name: decoder for name, decoder, _ in parts}}
        judged = [images[index] for index in others]
        comparison = compare(judged, decoders, ignore_index=IGNORE, panels=0, facts={})
        found.append(Half(comparison, {name: fit for name, _, fit in parts}))
    return found


def of_the_images(paired: Paired) -> tuple[float, float]:
    error = WIDTH * paired.differences.std(ddof=1) / np.sqrt(len(paired.differences))
    return paired.mean - error, paired.mean + error


def certainly(intervals: list[tuple[float, float]]) -> str:
    return f"{sum(low > 0 for low, _ in intervals)}, {sum(high < 0 for _, high in intervals)}"


def rows(data: str, halves: list[Half]) -> None:
    for name in GUARDS:
        promised = [100 * (half.fits[name].after - half.fits[name].before) for half in halves]
        for present in PRESENT:
            counted = [replace(half.comparison, scoring=Scoring(present=present)) for half in halves]
            cells = []
            for figure in (("iou", "dataset"), ("dice", "image")):
                gains = [100 * (each.level(name, *figure) - each.level("argmax", *figure)) for each in counted]
                cells.append(f"{np.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})")
            paired = [each.paired(name) for each in counted]
            cells += [certainly([each.interval for each in paired]), certainly(list(map(of_the_images, paired)))]
            cells.append(f"{min(promised):.2f} to {max(promised):.2f}")
            print(f"| {data} | {name} | {present} | {' | '.join(cells)} |", flush=True)


def spread(data: str, halves: list[Half]) -> Iterator[str]:
    for seed, half in enumerate(halves):
        for label, reason in half.fits["all guards"].left_out.items():
            if "max_spread" in reason:
                yield f"{data}, half {seed}, class {label}: {reason}"


def main(paths: list[str]) -> None:
    print(table_head(HEAD, words=3))
    found: list[str] = []
    for path in map(Path, paths):
        images, data = samples_of(path), path.parent.name
        halves = measured(images)
        rows(data, halves)
        found += spread(data, halves)
        rows(f"{data}, tiles", measured(list(tiles_of(images))))
        rows(f"{data}, softened", measured(list(map(softened, images))))
    print("", *found, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
