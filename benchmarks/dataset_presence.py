"""One rule for the whole data set on the classes that are likely to be there: does it gain over either of both alone?

Classes of a presence of at most 0.2 or 0.5 do not compete in an image, and GlobalRankSEG is fitted to what is left. All
is fitted to one half of the images, with labels, and scored on the other; 20 halves.
*Certainly* counts the halves where the difference in dataset IoU is more than two standard errors above 0, and below.

``python -m benchmarks.dataset_presence PROBS.npz [PROBS.npz ...]`` prints a table; about twenty minutes for four sets.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.measure import table_head
from benchmarks.presence import fitted, pooled
from benchmarks.tuning import HALVES, IGNORE, samples_of
from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Sample, Scoring, compare
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.tuning.choosing import CERTAIN

THRESHOLDS = (0.2, 0.5)
PRESENT = ("union", "label")
FIGURES = (("iou", "dataset"), ("dice", "image"))
#: Of the sample, a quarter of the default: the rule has two numbers a class.
MAX_PIXELS = 50_000
FITTED = {"with_labels": True, "max_pixels": MAX_PIXELS}
ALONE = "GlobalRankSEG, labels"
HEAD = (
    *("data", "present", "decision", "dataset IoU, points over argmax", "image Dice, points over argmax"),
    *("certainly better, worse than GlobalRankSEG", "than presence"),
)


def decoders_of(images: list[Sample]) -> dict[str, Decoder]:
    knowing = {rule: fitted(images, metric="iou", rule=rule) for rule in THRESHOLDS}
    return {
        "argmax": RankSEG("acc"),
        ALONE: pooled(images, **FITTED),
        **{presence_alone(rule): decoder for rule, decoder in knowing.items()},
        **{both(rule): pooled(images, decoder, rule, **FITTED) for rule, decoder in knowing.items()},
    }


def presence_alone(rule: float) -> str:
    return f"presence above {rule}"


def both(rule: float) -> str:
    return f"both, presence above {rule}"


def against(comparison: Comparison, baseline: str, decoder: str) -> Comparison:
    """Two decoders of a comparison, the first being the baseline."""
    pair = [comparison.decoders.index(each) for each in (baseline, decoder)]
    images = (each.only(pair) for each in comparison.measurements)
    return replace(comparison, decoders=(baseline, decoder), measurements=tuple(images))


def certainly(comparisons: list[Comparison], decoder: str, baseline: str) -> str:
    """In how many halves a decoder is certainly better than another, and in how many worse."""
    found = [against(each, baseline, decoder).differences for each in comparisons]
    score = "iou", "dataset"
    certain = [each.levels[score][0, 0] / each.errors[score][0] for each in found if each.errors[score][0]]
    return f"{sum(each > CERTAIN for each in certain)}, {sum(each < -CERTAIN for each in certain)}"


def measured(images: list[Sample]) -> list[Comparison]:
    found = []
    for seed in range(HALVES):
        mine, others = np.array_split(np.random.default_rng(seed).permutation(len(images)), 2)
        decoders = decoders_of([images[index] for index in mine])
        judged = [images[index] for index in others]
        found.append(compare(judged, decoders, ignore_index=IGNORE, panels=0, facts={}))
    return found


def rows(data: str, comparisons: list[Comparison]) -> None:
    for present in PRESENT:
        counted = [replace(each, scoring=Scoring(present=present)) for each in comparisons]
        for name in counted[0].candidates:
            cells = []
            for figure in FIGURES:
                gains = [100 * (each.level(name, *figure) - each.level("argmax", *figure)) for each in counted]
                cells.append(f"{np.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})")
            rule = next((each for each in THRESHOLDS if name == both(each)), None)
            cells += ["", ""] if rule is None else [
                certainly(counted, name, baseline) for baseline in (ALONE, presence_alone(rule))
            ]  # fmt: skip
            print(f"| {data} | {present} | {name} | {' | '.join(cells)} |", flush=True)


def main(paths: list[str]) -> None:
    print(table_head(HEAD, words=3))
    for path in map(Path, paths):
        rows(path.parent.name, measured(samples_of(path)))


if __name__ == "__main__":
    main(sys.argv[1:])
