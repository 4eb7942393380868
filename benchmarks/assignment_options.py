"""Options of the assignment step that were tried: pruning by presence, and joint refinement of all classes.

*Presence* of a class in an image is the probability that it has any pixel at all, 1 - prod(1 - p); once over the
pixels, once over the means of 16 x 16 blocks, as if each block held one independent pixel. *Joint refinement* starts
from the labels of today and alternates between the statistics of each class's pixels and giving every pixel (or only
the pixels that no class or several classes selected) to the class that gains most by it.

``python -m benchmarks.assignment_options PROBS.npz [PROBS.npz ...]`` prints a table for each file, and one for
generated probabilities whose truth is drawn from them.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from benchmarks.dataset_presence import against
from benchmarks.measure import table_head
from benchmarks.workloads import generate
from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Comparison, Sample, Scoring, compare
from rankseg_plugins.core.objectives import OBJECTIVES, Objective

IGNORE = 255
BLOCK = 16
DAMPING = 0.5
POWERS = (1.0, 0.3)
PRUNING = (0.5, 0.3, 0.1)
LARGEST = "largest probability > {}"
COLUMNS = (("dice", "image"), ("iou", "image"), ("iou", "dataset"), ("accuracy", "dataset"))
PRUNING_HEAD = (
    "active if",
    "active classes",
    "labelled classes",
    "expected {metric}",
    "image Dice",
    "image IoU",
    "dataset IoU",
    "pixel accuracy",
    "gain over argmax",
    "95 % interval",
    "better / worse",
    "time over argmax",
)
REFINEMENT_HEAD = (
    "active if",
    "expected {metric}",
    "all pixels",
    "contested",
    "contested, 2 rounds",
    "bound",
    "image {metric}, all pixels",
    "95 % interval",
    "better / worse",
    "contested",
    "contested, 2 rounds",
    "time over unrefined, all pixels",
    "contested, 2 rounds",
)

Decoder = Callable[[Tensor], Tensor]
#: Which classes are active: (1, C, H, W) -> (C,) bool.
Pruning = Callable[[Tensor], Tensor]


def by_maximum(threshold: float, probs: Tensor) -> Tensor:
    """As ``RankSEG`` prunes: the largest probability; all classes if none is left."""
    active = probs.flatten(2).amax(-1)[0] > threshold
    return active | ~active.any()


def by_presence(threshold: float, block: int, probs: Tensor) -> Tensor:
    """1 - prod(1 - p) over the means of blocks; the most probable class is always active."""
    means = avg_pool2d(probs.double(), block, ceil_mode=True)
    # Logarithms: a product of thousands of small factors would be 0 in every floating point format.
    absent = torch.log1p(-means.clamp(max=1)).flatten(2).sum(-1)[0]
    return (-torch.expm1(absent) > threshold) | (absent == absent.amin())


ACTIVE: dict[str, Pruning] = {
    **{LARGEST.format(q): partial(by_maximum, q) for q in PRUNING},
    **{f"presence over pixels > {q}": partial(by_presence, q, 1) for q in (0.5, 0.99)},
    **{f"presence over blocks > {q}": partial(by_presence, q, BLOCK) for q in (0.5, 0.9, 0.99)},
}
REFINED = [*ACTIVE][: len(PRUNING) + 1]
#: By name: whether only contested pixels move, and the rounds.
REFINEMENTS = {", all pixels": (False, 20), ", contested": (True, 20), ", contested, 2 rounds": (True, 2)}
#: Masks that may overlap, each the best of its class.
BOUND = ", bound"


def decode(metric: str, pruning: Pruning, output_mode: str, probs: Tensor) -> Tensor:
    """RankSEG on the active classes alone."""
    active = pruning(probs).view(1, -1, 1, 1)
    return RankSEG(metric, output_mode=output_mode, pruning_prob=0.0)(probs.masked_fill(~active, 0))


def refine(metric: str, pruning: Pruning, contested_only: bool, rounds: int, probs: Tensor) -> Tensor:
    """Labels of today, then joint refinement of the active classes."""
    classes = pruning(probs).nonzero().squeeze(1)
    labels = decode(metric, pruning, "multiclass", probs).flatten()
    movable = torch.ones_like(labels, dtype=torch.bool)
    if contested_only:
        movable = decode(metric, pruning, "multilabel", probs).sum(1).flatten() != 1
    p, index = probs.flatten(2)[0, classes].double(), torch.searchsorted(classes, labels)
    return classes[best_round(OBJECTIVES[metric](), p, index, movable, rounds)].view(1, *probs.shape[2:])


def best_round(objective: Objective, p: Tensor, index: Tensor, movable: Tensor, rounds: int) -> Tensor:
    """Alternate between the statistics of every class and the class of every pixel, and keep the best round.

    Args:
        objective: its mean score over the classes decides.
        p: (K, d) probabilities of the active classes.
        index: (d,) in 0..K-1, the class of every pixel to start from.
        movable: (d,) bool, False where a pixel keeps its class.
        rounds: how often pixels are assigned anew, at most.
    """
    mu, best, kept, blend = p.sum(1), -1.0, index, None
    for _ in range(rounds + 1):
        t = torch.bincount(index, minlength=len(p)).double()
        m = torch.zeros_like(mu).index_add_(0, index, p.gather(0, index[None])[0])
        score = objective.score(m, t, mu).mean().item()
        if score > best:
            best, kept = score, index
        # Undamped, two classes may hand the same pixels to each other for ever.
        now = torch.stack([m, t])
        blend = now if blend is None else blend + DAMPING * (now - blend)
        gain = objective.gain(p, *blend.unsqueeze(-1), mu.unsqueeze(-1))
        moved = torch.where(movable, gain.argmax(0), index)
        if torch.equal(moved, index) and torch.equal(blend, now):
            break
        index = moved
    return kept


def decoders(metric: str) -> dict[str, Decoder]:
    """Every decision by name; argmax, which the others are compared with, is the first."""
    found: dict[str, Decoder] = {"argmax": RankSEG("acc")}
    for name, pruning in ACTIVE.items():
        found[name] = partial(decode, metric, pruning, "multiclass")
        if name in REFINED:
            for how, options in REFINEMENTS.items():
                found[name + how] = partial(refine, metric, pruning, *options)
            found[name + BOUND] = partial(decode, metric, pruning, "multilabel")
    # The same decisions, as they are taken today: their time counts.
    return found | {LARGEST.format(q): RankSEG(metric, pruning_prob=q) for q in PRUNING}


class Scored:
    """A decoder that keeps the exact expected scores of what it decides, outside the time it takes."""

    def __init__(self, decoder: Decoder, metric: str) -> None:
        self.decoder, self.scorer = decoder, RankSEG(metric)
        self.scores: list[float] = []
        self.classes: list[int] = []

    def __call__(self, probs: Tensor) -> Tensor:
        """Decide, and nothing else: this is timed."""
        self.probs, self.decided = probs, self.decoder(probs)
        return self.decided

    @property
    def expected(self) -> float:
        """Mean over the images, in percent."""
        return 100 * float(np.mean(self.scores))

    def score(self) -> None:
        """Score the last decision; a mean over all classes, where an empty mask counts 0."""
        scores = self.scorer.expected_score(self.probs, self.decided)
        self.scores.append(scores.mean().item())
        self.classes.append(int((scores > 0).sum()))


def measured(samples: list[Sample], metric: str) -> tuple[dict[str, Scored], Comparison]:
    """All decoders take turns on each image."""
    scored = {name: Scored(decoder, metric) for name, decoder in decoders(metric).items()}

    def score(_: object) -> None:
        for each in scored.values():
            each.score()

    options = {"ignore_index": IGNORE, "scoring": Scoring(metric), "panels": 0, "facts": {}, "on_measured": score}
    return scored, compare(samples, scored, **options)


def gain(comparison: Comparison, baseline: str, name: str) -> tuple[str, str, str]:
    """Cells of the gain of one decision over another."""
    paired = against(comparison, baseline, name).paired(name)
    low, high = (f"{100 * end:+.2f}" for end in paired.interval)
    return f"{100 * paired.mean:+.2f}", f"{low} to {high}", f"{paired.wins} / {paired.losses}"


def pruning_rows(samples: list[Sample], scored: dict[str, Scored], comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Which classes are active: a row each, with how many are and how many got a pixel."""
    times = np.median(comparison.seconds / comparison.seconds[0], 1)
    for name in ("argmax", *ACTIVE):
        plain, each = name == "argmax", scored[name]
        active = "" if plain else f"{np.mean([ACTIVE[name](sample.probs[None]).sum() for sample in samples]):.1f}"
        levels = (f"{100 * comparison.level(name, *column):.2f}" for column in COLUMNS)
        gains = ("", "", "") if plain else gain(comparison, "argmax", name)
        time = f"{times[comparison.decoders.index(name)]:.1f}"
        yield name, active, f"{np.mean(each.classes):.1f}", f"{each.expected:.2f}", *levels, *gains, time


def refinement_rows(scored: dict[str, Scored], comparison: Comparison) -> Iterator[tuple[str, ...]]:
    """Joint refinement of all and of the contested pixels, and the overlapping masks that no labels can beat."""
    seconds = dict(zip(comparison.decoders, comparison.seconds, strict=True))
    every, contested, short = REFINEMENTS
    for name in REFINED:
        changes = (f"{scored[name + how].expected - scored[name].expected:+.2f}" for how in (*REFINEMENTS, BOUND))
        others = (gain(comparison, name, name + how)[0] for how in (contested, short))
        times = (f"{np.median(seconds[name + how] / seconds[name]):.0f}" for how in (every, short))
        expected = f"{scored[name].expected:.2f}"
        yield name, expected, *changes, *gain(comparison, name, name + every), *others, *times


def read(path: Path) -> list[Sample]:
    with np.load(path) as file:
        probs, labels = torch.from_numpy(file["probs"]).float(), torch.from_numpy(file["labels"]).long()
    return [Sample(str(i), *both) for i, both in enumerate(zip(probs, labels, strict=True))]


def drawn(power: float) -> list[Sample]:
    """Generated probabilities and truths drawn from them, pixel by pixel: here the model is right.

    Args:
        power: of the probabilities, before they are normalised anew; below 1 it makes them less sure.
    """
    images, classes, active, size = 48, 8, 5, 96
    probs = generate((images, classes, size, size), active, seed=1) ** power
    probs /= probs.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(probs.movedim(1, -1).flatten(0, -2), 1, generator=generator).view(images, size, size)
    return [Sample(str(i), *both) for i, both in enumerate(zip(probs, labels, strict=True))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.assignment_options", description=__doc__)
    parser.add_argument("paths", type=Path, nargs="*", metavar="PROBS.npz")
    parser.add_argument("--metric", choices=("dice", "iou"), default="dice")
    arguments = parser.parse_args()
    sources: dict[str, Callable[[], list[Sample]]] = {path.parent.name: partial(read, path) for path in arguments.paths}
    sources |= {f"generated, power {power}": partial(drawn, power) for power in POWERS}
    title = {"dice": "Dice", "iou": "IoU"}[arguments.metric]
    for name, load in sources.items():
        samples = load()
        held = np.mean([len(sample.labels[sample.labels != IGNORE].unique()) for sample in samples])
        print(f"## {name}: {len(samples)} images, {held:.1f} of {len(samples[0].probs)} classes in each truth\n")
        found = measured(samples, arguments.metric)
        show(PRUNING_HEAD, title, pruning_rows(samples, *found))
        show(REFINEMENT_HEAD, title, refinement_rows(*found))


def show(head: tuple[str, ...], title: str, rows: Iterable[tuple[str, ...]]) -> None:
    print(table_head(head).format(metric=title))
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


if __name__ == "__main__":
    main()
