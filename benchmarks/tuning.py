"""Does tuning overfit? Tune on one half of the images, score on the other, with many different halves.

In the race are argmax; RankSEG with every default temperature and ``pruning_prob``, for Dice and for IoU; GlobalRankSEG
with every temperature and both metrics, fitted without labels to the half that is tuned on; and PresenceRankSEG with
every temperature, the rules that are usual for the score and both metrics, fitted within folds of that half. Once with
the last, and once without; under both ways to count the classes of an image. *Unguarded* is the gain of the candidate
that gains most on the first half, whatever its error; *certainly* is by more than two standard errors.

``python -m benchmarks.tuning PROBS.npz [PROBS.npz ...]`` prints a table, and one of images that were softened on
purpose; about half an hour for four sets.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.measure import table_head
from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TemperatureScaling
from rankseg_plugins.comparison import Sample, Scoring, compare
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.comparison.recording import Recorder
from rankseg_plugins.tuning import Tuner, tune
from rankseg_plugins.tuning.candidates import TEMPERATURES, final
from rankseg_plugins.tuning.choosing import ARGMAX, CERTAIN, choose, read_keep
from rankseg_plugins.tuning.presence import BY_SCORE, BY_THRESHOLD, usual_rules

HALVES = 20
IGNORE = 255
METRICS = ("dice", "iou")
OBJECTIVES = ("dice_image", "iou_image", "iou_dataset")
PRESENT = ("union", "label")
MIN_CASES = 20
RULES = (*BY_SCORE, *BY_THRESHOLD)
#: Columns of a race, without presence and with it.
_RACE = ("least to most", "certainly worse", "unguarded")
HEAD = (
    *("data", "objective, present", "`min_cases`"),
    *("without presence: gain", *_RACE),
    *("**with presence: gain**", *_RACE),
    "chosen",
)
SOFTENED_HEAD = ("decision", "image Dice, %", "gain, points", "95 % interval")


def samples_of(path: Path) -> list[Sample]:
    """In float32, as every image is decoded many times."""
    with np.load(path) as file:
        probs, labels = torch.from_numpy(file["probs"]).float(), torch.from_numpy(file["labels"]).long()
    return [Sample(str(i), *both) for i, both in enumerate(zip(probs, labels, strict=True))]


class Outcome(NamedTuple):
    """What is chosen on one half of the images, and what it gains on the other, with its standard error, in points.

    ``unguarded`` is the gain on the other half of the candidate that gains most on the first.
    """

    chosen: str
    gain: float
    error: float
    unguarded: float


class Race:
    """A race on one half of the images, of which parts can be left out, and the other half to score its winner on."""

    def __init__(self, samples: list[Sample], seed: int, present: str, samplewise: Comparison) -> None:
        order = np.random.default_rng(seed).permutation(len(samples))
        first, self.second = np.array_split(order, 2)
        self.samples, self.present = samples, present
        tuner = Tuner(len(samples[0].probs), metrics=METRICS, ignore_index=IGNORE, scoring=Scoring(present=present))
        fitting = tuner.fitting(("samplewise", "global"), presence=RULES, seed=seed)
        half = [samples[index] for index in first]
        for sample in half:
            fitting.update(sample)
        self.fitted = fitting.fit()
        argmax = {ARGMAX: tuner.candidates[ARGMAX]}
        self.candidates = tuner.candidates | self.fitted
        known = replace(
            samplewise,
            measurements=tuple(samplewise.measurements[index] for index in first),
            scoring=Scoring(present=present),
        )
        self.whole = joined(known, self.measured(half, argmax | self.fitted))

    def measured(self, samples: list[Sample], decoders: Mapping[str, Decoder]) -> Comparison:
        """Decoders on some of the images."""
        return measured(samples, decoders, self.present)

    def outcome(self, objective: str, min_cases: int, with_presence: bool) -> Outcome:
        """What is chosen on the first half, scored on the other."""
        score, level = objective.split("_")
        usual = usual_rules(Scoring(present=self.present), level) if with_presence else ()
        kept = [index for index, name in enumerate(self.whole.decoders) if rule_of(name) in (None, *map(str, usual))]
        images = (each.only(kept) for each in self.whole.measurements)
        race = replace(
            self.whole, decoders=tuple(self.whole.decoders[index] for index in kept), measurements=tuple(images)
        )
        choice = choose(race, objective, min_cases=min_cases, keep=read_keep(None, objective))
        chosen = choice.winner if choice.used else ARGMAX
        gains = race.differences.levels[score, level][:, 0]
        most = race.candidates[int(np.nanargmax(gains))] if np.nanmax(gains) > 0 else ARGMAX
        scored = {name: final(self.candidates[name]) for name in (ARGMAX, chosen, most)}
        found = {ARGMAX: (0.0, 0.0)}
        if len(scored) > 1:
            comparison = self.measured([self.samples[index] for index in self.second], scored)
            figures = comparison.differences.levels[score, level][:, 0], comparison.differences.errors[score, level]
            found.update(zip(comparison.candidates, zip(*(100 * each for each in figures), strict=True), strict=True))
        return Outcome(chosen, *found[chosen], found[most][0])


def measured(samples: list[Sample], decoders: Mapping[str, Decoder], present: str = "union") -> Comparison:
    options = {"ignore_index": IGNORE, "panels": 0, "scoring": Scoring(present=present)}
    recorder = Recorder(decoders, num_classes=len(samples[0].probs), **options)
    for sample in samples:
        recorder.add(sample)
    return recorder.comparison(facts={})


def joined(first: Comparison, second: Comparison) -> Comparison:
    """Both on the same images, each with argmax first."""
    images = (
        replace(
            mine,
            counts=np.concatenate([mine.counts, theirs.counts[1:]]),
            seconds=np.r_[mine.seconds, theirs.seconds[1:]],
            # Theirs that are not argmax again are others than all of mine.
            same=np.r_[mine.same, np.where(theirs.same[1:] == 0, 0, theirs.same[1:] + len(mine.same))],
        )
        for mine, theirs in zip(first.measurements, second.measurements, strict=True)
    )
    return replace(first, decoders=(*first.decoders, *second.candidates), measurements=tuple(images))


def rule_of(name: str) -> str | None:
    """Of a candidate that knows which classes are there, how it chooses them."""
    return name.split("rule=")[1].split(")")[0] if name.startswith("presence") else None


def kind(name: str) -> str:
    """What a candidate is, without its temperature, ``pruning_prob`` and metric."""
    return " ".join(filter(None, (name.split("(")[0], rule_of(name))))


def row(data: str, present: str, objective: str, min_cases: int, races: list[Race]) -> str:
    cells: list[object] = [data, f"{objective}, {present}", min_cases]
    for with_presence in (False, True):
        found = [race.outcome(objective, min_cases, with_presence) for race in races]
        kept = Counter(kind(each.chosen) for each in found if each.chosen != ARGMAX)
        gains = np.array([each.gain for each in found])
        worse = sum(each.gain + CERTAIN * each.error < 0 for each in found)
        unguarded = np.mean([each.unguarded for each in found])
        cells += [f"{gains.mean():+.2f}", f"{gains.min():+.2f} to {gains.max():+.2f}", worse, f"{unguarded:+.2f}"]
    chosen = "; ".join(f"{name} ({count})" for name, count in kept.most_common()) or "argmax always"
    return f"| {' | '.join(map(str, [*cells, chosen]))} |"


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
    print(table_head(HEAD, words=2))
    for path in map(Path, paths):
        samples = samples_of(path)
        samplewise = measured(samples, Tuner(len(samples[0].probs), metrics=METRICS).candidates)
        few = len(samples) // 2 < MIN_CASES
        for present in PRESENT:
            races = [Race(samples, seed, present, samplewise) for seed in range(HALVES)]
            for objective in OBJECTIVES:
                for min_cases in (MIN_CASES, 0) if few else (MIN_CASES,):
                    print(row(path.parent.name, present, objective, min_cases, races), flush=True)
    print("\n" + table_head(SOFTENED_HEAD))
    for each in softened_rows():
        print(each, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
