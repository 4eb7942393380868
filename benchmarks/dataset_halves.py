"""Is GlobalRankSEG safe without labels? Fitted to one half of the images and scored on the other, 20 halves a set.

*Certainly* counts the halves where the 95 % interval of the difference in image Dice, as ``compare`` gives it, lies
above 0, and below; and the same of an interval of the images at hand alone, 1.96 standard errors to either side, which
is narrower. Once with all guards, and once without those of spread and gain. "Tiles" are the same images cut in
``TILES`` x ``TILES`` pieces: from a set whose images hold every class that makes one where most are absent.

``python -m benchmarks.dataset_halves PROBS.npz [PROBS.npz ...]`` prints a table; about ten minutes for four sets.
"""

import sys
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measure import table_head
from benchmarks.tuning import HALVES, IGNORE, samples_of
from rankseg_plugins import GlobalRankSEG, RankSEG
from rankseg_plugins.comparison import Comparison, Sample, Scoring, compare
from rankseg_plugins.comparison.comparison import Paired

PRESENT = ("union", "label")
TILES = 3
MAX_PIXELS = 50_000
#: More than any number of images, and nothing.
GUARDS = {"all guards": {}, "no guard of spread and gain": {"max_spread": 1e6, "min_gain": 0}}
#: Of the standard error.
WIDTH = 1.96
HEAD = (
    *("data", "decision", "present", "dataset IoU, points over argmax", "image Dice, points over argmax"),
    *("certainly better, worse", "by the images alone"),
)


def tiles_of(images: list[Sample]) -> Iterator[Sample]:
    for image in images:
        height, width = (size // TILES for size in image.labels.shape)
        for index in range(TILES**2):
            rows, columns = (index // TILES) * height, (index % TILES) * width
            part = slice(rows, rows + height), slice(columns, columns + width)
            yield Sample(f"{image.name}-{index}", image.probs[(slice(None), *part)], image.labels[part])


def fitted(images: list[Sample]) -> Iterator[tuple[str, GlobalRankSEG]]:
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
            guarded.fit()
        yield name, guarded


def measured(images: list[Sample]) -> list[Comparison]:
    found = []
    for seed in range(HALVES):
        mine, others = np.array_split(np.random.default_rng(seed).permutation(len(images)), 2)
        decoders = {"argmax": RankSEG("acc"), **dict(fitted([images[index] for index in mine]))}
        judged = [images[index] for index in others]
        found.append(compare(judged, decoders, ignore_index=IGNORE, panels=0, facts={}))
    return found


def of_the_images(paired: Paired) -> tuple[float, float]:
    error = WIDTH * paired.differences.std(ddof=1) / np.sqrt(len(paired.differences))
    return paired.mean - error, paired.mean + error


def certainly(intervals: list[tuple[float, float]]) -> str:
    return f"{sum(low > 0 for low, _ in intervals)}, {sum(high < 0 for _, high in intervals)}"


def rows(data: str, comparisons: list[Comparison]) -> None:
    for name in comparisons[0].candidates:
        for present in PRESENT:
            counted = [replace(each, scoring=Scoring(present=present)) for each in comparisons]
            cells = []
            for figure in (("iou", "dataset"), ("dice", "image")):
                gains = [100 * (each.level(name, *figure) - each.level("argmax", *figure)) for each in counted]
                cells.append(f"{np.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})")
            paired = [each.paired(name) for each in counted]
            cells += [certainly([each.interval for each in paired]), certainly(list(map(of_the_images, paired)))]
            print(f"| {data} | {name} | {present} | {' | '.join(cells)} |", flush=True)


def main(paths: list[str]) -> None:
    print(table_head(HEAD, words=3))
    for path in map(Path, paths):
        images = samples_of(path)
        rows(path.parent.name, measured(images))
        rows(f"{path.parent.name}, tiles", measured(list(tiles_of(images))))


if __name__ == "__main__":
    main(sys.argv[1:])
