"""Does tuning overfit? Tune on one half of the images, score on the other, with many different halves.

In the race are argmax, RankSEG with every default temperature and ``pruning_prob``, for Dice and for IoU, and
GlobalRankSEG with every temperature and both metrics, fitted without labels to the half that is tuned on. Once as
:func:`~rankseg_plugins.tuning.tune` decides, and once without the least number of cases that it asks for.

``python -m benchmarks.tuning PROBS.npz [PROBS.npz ...]`` prints a table, and one of images that were softened on
purpose; about six minutes.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TemperatureScaling
from rankseg_plugins.comparison import Sample, compare
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.comparison.recording import Recorder
from rankseg_plugins.tuning import Tuner, tune
from rankseg_plugins.tuning.candidates import TEMPERATURES, GlobalCandidates
from rankseg_plugins.tuning.choosing import choose

HALVES = 20
RESAMPLES = 2000
IGNORE = 255
METRICS = ("dice", "iou")
OBJECTIVES = ("dice_image", "iou_image", "iou_dataset")
MIN_CASES = (20, 0)


def samples_of(path: Path) -> list[Sample]:
    """In float32, as every image is decoded many times."""
    with np.load(path) as file:
        probs, labels = torch.from_numpy(file["probs"]).float(), torch.from_numpy(file["labels"]).long()
    return [Sample(str(i), *both) for i, both in enumerate(zip(probs, labels, strict=True))]


def measured(samples: list[Sample], decoders: Mapping[str, Decoder]) -> Comparison:
    recorder = Recorder(decoders, num_classes=len(samples[0].probs), ignore_index=IGNORE, panels=0)
    for sample in samples:
        recorder.add(sample)
    return recorder.comparison(facts={}, resamples=RESAMPLES)


def joined(first: Comparison, second: Comparison) -> Comparison:
    """Both on the same images, each with argmax first."""
    images = (
        replace(
            mine,
            counts=np.concatenate([mine.counts, theirs.counts[1:]]),
            seconds=np.r_[mine.seconds, theirs.seconds[1:]],
        )
        for mine, theirs in zip(first.measurements, second.measurements, strict=True)
    )
    return replace(first, decoders=(*first.decoders, *second.candidates), measurements=tuple(images))


def halves(samples: list[Sample]) -> Iterator[tuple[Comparison, Comparison]]:
    """All candidates on the half that is tuned on, and on the other."""
    classes = len(samples[0].probs)
    candidates = Tuner(classes, metrics=METRICS).candidates
    argmax = dict(list(candidates.items())[:1])
    samplewise = measured(samples, candidates)
    for seed in range(HALVES):
        order = np.random.default_rng(seed).permutation(len(samples))
        first, second = np.array_split(order, 2)
        pooled = GlobalCandidates(classes, metrics=METRICS)
        for index in first:
            pooled.update(samples[index].probs)
        whole = joined(samplewise, measured(samples, argmax | pooled.fit()))
        yield tuple(replace(whole, measurements=tuple(whole.measurements[i] for i in half)) for half in (first, second))


def kind(name: str) -> str:
    """What a candidate is, without its temperature and ``pruning_prob``."""
    return name.split(",")[0].split(" at ")[0].replace("(metric=", ", ").rstrip(")")


def row(data: str, objective: str, min_cases: int, parts: list[tuple[Comparison, Comparison]]) -> str:
    score, level = objective.split("_")
    gains, kept = np.zeros((len(parts), 3)), Counter()
    for run, (first, second) in enumerate(parts):
        choice = choose(first, objective, min_cases=min_cases)
        if choice.certain:
            kept[kind(choice.winner)] += 1
            gains[run] = 100 * second.differences.levels[score, level][second.candidates.index(choice.winner)]
    chosen = "; ".join(f"{name} ({count})" for name, count in kept.most_common()) or "none"
    low, mean, high = gains[:, 0].min(), gains[:, 0].mean(), gains[:, 0].max()
    cells = (data, objective, min_cases, f"{sum(kept.values())} of {len(parts)}", chosen, f"{mean:+.2f}")
    return f"| {' | '.join(map(str, cells))} | {low:+.2f} to {high:+.2f} | {(gains[:, 2] < 0).sum()} |"


def softened(count: int, seed: int, temperature: float = 2.0, size: int = 24) -> list[Sample]:
    """Smooth probabilities of a rare foreground, labels drawn from them, then softened by ``temperature``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 5, 5, generator=generator) * 2 - 1.5
    logits = torch.nn.functional.interpolate(coarse, size, mode="bilinear")[:, 0]
    labels = (torch.rand(logits.shape, generator=generator) < logits.sigmoid()).long()
    foreground = (logits / temperature).sigmoid()
    probs = torch.stack([1 - foreground, foreground], 1)
    return [Sample(f"{seed}-{i}", probs[i], labels[i]) for i in range(count)]


def softened_rows() -> Iterator[str]:
    """Decoders on fresh images whose probabilities are known to be softened; what is tuned or fitted had others."""
    seen = softened(100, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that these probabilities are too unsure is what is shown
        by_default, wider = (tune(seen, temperatures=each).decoder for each in (TEMPERATURES, (0.5, *TEMPERATURES)))
        scaling = TemperatureScaling(2)
        for sample in seen:
            scaling.update(sample.probs[None], sample.labels[None])
        scaling.fit()
        decoders = {
            "argmax": RankSEG("acc"),
            "`RankSEG()`": RankSEG(),
            f"`tune()`: temperature {by_default.temperature:g}": by_default,
            f"`tune()` with 0.5 among the temperatures: {wider.temperature:g}": wider,
            f"`RankSEG()` after `TemperatureScaling`: {scaling.temperature.item():.2f}": lambda probs: RankSEG()(
                scaling(probs)
            ),
        }
        found = compare(softened(400, seed=2), decoders, panels=0)
    yield f"| argmax | {100 * found.level('argmax', 'dice', 'image'):.2f} | | |"
    for name in found.candidates:
        paired, value = found.paired(name), found.level(name, "dice", "image")
        low, high = (f"{100 * end:+.2f}" for end in paired.interval)
        yield f"| {name} | {100 * value:.2f} | {100 * paired.mean:+.2f} | {low} to {high} |"


def main(paths: list[str]) -> None:
    print(
        "| data | objective | `min_cases` | left argmax | for | mean gain, points | least to most | certainly worse |"
    )
    print("| --- | --- | ---: | ---: | --- | ---: | ---: | ---: |")
    for path in map(Path, paths):
        parts = list(halves(samples_of(path)))
        for objective in OBJECTIVES:
            for min_cases in MIN_CASES:
                print(row(path.parent.name, objective, min_cases, parts), flush=True)
    print("\n| decision | image Dice, % | gain, points | 95 % interval |")
    print("| --- | ---: | ---: | ---: |")
    for each in softened_rows():
        print(each, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
