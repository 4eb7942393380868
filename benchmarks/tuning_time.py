"""What tuning takes, over a plain loop of argmax and scoring."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.busy import busy_cells
from benchmarks.measure import interleave_in, mark, ratio
from benchmarks.neighbours import ALONE, BUSY, Neighbours
from benchmarks.workloads import normal_field
from rankseg_plugins.comparison import Sample, compare
from rankseg_plugins.tuning import tune

EXPLANATION = """100 images of 11x180x240, generated, with a truth that is drawn from the probabilities; over a loop
that takes argmax of each and its Dice of every class from a confusion matrix. Tuning measures argmax and every
candidate, and draws its intervals. The columns are those of the tables above.
"""
HEADER = [
    "what", "decoders", "time / loop", "at most",
    *(f"{name}: {each}" for name in BUSY for each in ("time / loop", "busy / alone", "busy / alone, loop")),
    "loop, s", "others",
]  # fmt: skip
IMAGES = 100


def rows() -> Iterator[list[str]]:
    """Tuning at its defaults, and a comparison of two decoders."""
    samples = list(generated(IMAGES))
    calls = {"tune": lambda: tune(samples).comparison, "compare": lambda: compare(samples, panels=0)}
    with Neighbours() as neighbours:
        times = interleave_in({"base": partial(loop, samples), **calls}, neighbours.conditions, min(3, measure.ROUNDS))
        others = neighbours.others()
    for name, most in {"tune": 6.0, "compare": None}.items():
        yield [
            f"`{name}`",
            str(len(calls[name]().decoders)),
            mark(ratio(times[ALONE], name, "base"), most),
            "" if most is None else f"{most:g}",
            *busy_cells(times, name),
            f"{statistics.median(times[ALONE]['base']):.2f}",
            f"{others:.0%}",
        ]


def generated(count: int) -> Iterator[Sample]:
    """Probabilities, and a truth of independent pixels that has them."""
    probs = normal_field((count, 11, 180, 240), 4, 1.5).softmax(1)
    generator = torch.Generator().manual_seed(0)
    for index, each in enumerate(probs):
        drawn = torch.rand(each.shape[1:], generator=generator)
        yield Sample(str(index), each, (each.cumsum(0)[:-1] < drawn).sum(0))


def loop(samples: list[Sample]) -> Tensor:
    """Mean Dice of argmax over images and classes, as anybody would write it."""
    return torch.stack([dice(each.probs.argmax(0), each.labels, len(each.probs)) for each in samples]).nanmean()


def dice(decided: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Of every class."""
    confusion = torch.bincount((truth * classes + decided).flatten(), minlength=classes**2).view(classes, classes)
    return 2 * confusion.diag() / (confusion.sum(0) + confusion.sum(1))
