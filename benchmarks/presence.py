"""Which classes are there: what each rule gives under both conventions, pooled, and what it costs.

PresenceRankSEG is fitted to one half of the images and scored on the other, with four different halves and both ways
round. "Presence known" is told which classes the truth holds: a bound. Time is the processor's for one image, against
RankSEG with a ``pruning_prob`` of 0.1, in one thread, the median of interleaved rounds.

``python -m benchmarks.presence PROBS.npz [PROBS.npz ...]`` prints the tables; about three minutes for four sets.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import table_head
from benchmarks.tuning import IGNORE, samples_of
from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.comparison import Sample, Scoring, compare
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import Decoder

SPLITS = 4
ROUNDS = 16
BOUND = "presence known"


def fitted(images: list[Sample], **options) -> PresenceRankSEG:
    decoder = PresenceRankSEG(len(images[0].probs), **options)
    for image in images:
        decoder.update(image.probs[None], image.labels[None], ignore_index=IGNORE)
    decoder.fit()
    return decoder


def held(image: Sample) -> torch.Tensor:
    return torch.stack([(image.labels == label).any() for label in range(len(image.probs))])


def pooled(
    images: list[Sample],
    presence: PresenceRankSEG | None = None,
    above: float = 0.2,
    with_labels: bool = False,
    **options,
) -> Callable:
    """GlobalRankSEG, alone or on classes that are likely to be there: the others have no probability."""

    def likely(probs: torch.Tensor) -> torch.Tensor:
        if presence is None:
            return probs
        q = presence.presence(probs)
        taken = (q > above) | (q == q.amax(1, keepdim=True))
        return probs * taken.view(*taken.shape, *[1] * (probs.ndim - 2))

    decoder = GlobalRankSEG(len(images[0].probs), **options)
    decoder.check_sums = False
    for image in images:
        truth = {"labels": image.labels[None], "ignore_index": IGNORE} if with_labels else {}
        decoder.update(likely(image.probs[None]), **truth)
    decoder.fit()
    return lambda probs: decoder(likely(probs))


def decoders_of(images: list[Sample]) -> dict[str, Decoder]:
    often = torch.stack([held(image) for image in images]).double().mean(0)
    by_score, by_threshold = fitted(images), {rule: fitted(images, rule=rule) for rule in (0.2, 0.5)}
    return {
        "argmax": RankSEG("acc"),
        **{f"RankSEG, pruning_prob {each}": RankSEG(pruning_prob=each) for each in (0.5, 0.1)},
        "presence, score, union": by_score,
        "presence, score, label": fitted(images, present="label"),
        **{f"presence, rule {rule}": decoder for rule, decoder in by_threshold.items()},
        "frequencies alone, union": PresenceRankSEG(len(often), frequencies=often),
        "GlobalRankSEG": pooled(images),
        "GlobalRankSEG, presence above 0.2": pooled(images, by_score),
    }


def joined(parts: list[Comparison]) -> Comparison:
    return replace(parts[0], measurements=tuple(each for part in parts for each in part.measurements))


def known(images: list[Sample]) -> Comparison:
    parts = []
    for image in images:
        told = {"argmax": RankSEG("acc"), BOUND: partial(RankSEG(), active=held(image))}
        parts.append(compare([image], told, ignore_index=IGNORE, panels=0))
    return joined(parts)


def rows(data: str, images: list[Sample]) -> None:
    splits = []
    for seed in range(SPLITS):
        halves = np.array_split(np.random.default_rng(seed).permutation(len(images)), 2)
        parts = []
        for mine, others in (halves, halves[::-1]):
            decoders = decoders_of([images[index] for index in mine])
            judged = [images[index] for index in others]
            parts.append(compare(judged, decoders, ignore_index=IGNORE, panels=0))
        splits.append(joined(parts))
    found = [(name, splits) for name in splits[0].decoders] + [(BOUND, [known(images)])]
    for name, comparisons in found:
        cells = []
        for present in ("union", "label"):
            counted = [replace(each, scoring=Scoring(present=present)) for each in comparisons]
            gains = [
                100 * (each.level(name, "dice", "image") - each.level("argmax", "dice", "image")) for each in counted
            ]
            cells.append(f"{statistics.mean(gains):+.2f}")
        pooled_iou = [
            100 * replace(each, scoring=Scoring(present="label")).level(name, "iou", "dataset") for each in comparisons
        ]
        print(f"| {data} | {name} | {' | '.join(cells)} | {statistics.mean(pooled_iou):.2f} |", flush=True)


def cost(data: str, images: list[Sample], mode: str) -> None:
    fits = [fitted(images, output_mode=mode, **options) for options in ({}, {"rule": 0.2}, {"present": "label"})]
    decoders = [RankSEG(pruning_prob=0.1, output_mode=mode), *fits]
    seconds: list[list[float]] = [[] for _ in decoders]
    for turn in range(ROUNDS):
        for image in images[:10]:
            # Each begins in turn, and fetches the image from memory.
            for index in np.roll(range(len(decoders)), turn):
                start = time.process_time()
                decoders[index](image.probs[None])
                seconds[index].append(time.process_time() - start)
    first, *others = map(statistics.median, seconds)
    shape = "x".join(map(str, images[0].probs.shape))
    ratios = " | ".join(f"{each / first:.2f}" for each in others)
    print(f"| {data} | {mode} | {shape} | {1000 * first:.2f} | {ratios} |", flush=True)


def enlarged(images: list[Sample], size: int = 512) -> list[Sample]:
    resized = []
    for image in images[:10]:
        probs = torch.nn.functional.interpolate(image.probs[None], size, mode="bilinear")[0]
        labels = torch.nn.functional.interpolate(image.labels[None, None].float(), size)[0, 0].long()
        resized.append(Sample(image.name, probs, labels))
    return resized


def main(paths: list[str]) -> None:
    sets = {path.parent.name: samples_of(path) for path in map(Path, paths)}
    print(table_head(("data", "decision", "image Dice, union", "image Dice, label", "dataset IoU, label"), words=2))
    for data, images in sets.items():
        rows(data, images)
    torch.set_num_threads(1)
    head = ("data", "decision", "C x H x W", "RankSEG, ms", "score, union", "rule 0.2", "score, label")
    print("\n" + table_head(head, words=3))
    for data, images in sets.items():
        for mode in ("multiclass", "multilabel"):
            cost(data, images, mode)
            cost(f"{data}, enlarged", enlarged(images), mode)


if __name__ == "__main__":
    main(sys.argv[1:])
