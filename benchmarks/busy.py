"""Time over argmax and over one read of the input: alone, and beside other programs on the same cores."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor

from benchmarks.measure import Times, interleave_in, mark, ratio
from benchmarks.neighbours import ALONE, BUSY, COUNTING, OPERATIONS, Neighbours
from benchmarks.workloads import WORKLOADS, Workload, pruned_share
from rankseg_plugins import RankSEG

#: How much more time over the base than alone a row may take beside others.
MOST_BUSY, MOST_BUSY_EXACT = 2.0, 1.5

EXPLANATION = f"""Each row alone, beside a process a core that only counts ("{COUNTING}"), and beside one PyTorch
program of small parallel operations ("{OPERATIONS}": `x.mul_(1.0).clamp_(-5, 5)` on 200,000 values, with as many
threads as here). The three take turns. "/ read": over `probs.sum()`. "busy / alone": time there over the time alone, of
ours and of the base; a program that shares its cores fairly with one other takes 2. Bold: above "at most", or, busy,
more than {MOST_BUSY:g} times (exact: {MOST_BUSY_EXACT:g}) the time over the base that it is
alone. "others": share of the cores that went to programs of others while "alone" was measured; where it is not small,
nothing was alone.
"""
_BUSY = [f"{name}: {each}" for name in BUSY for each in ("time / base", "busy / alone", "busy / alone, base")]
HEADER = [
    "workload", "shape", "options", "pruned", "base", "time / base", "at most", "time / read", "`max(1)` / base",
    *_BUSY, "base, ms", "others",
]  # fmt: skip
LOGITS_HEADER = [
    "workload", "shape", "options", "base", "time / base", "time / (softmax + argmax)", "at most", "time / read",
    *_BUSY, "base, ms", "others",
]  # fmt: skip

#: Options that are measured, as they stand in the table. The exact solver on one workload: it takes longest.
_PRUNING = {"`pruning_prob` 0.1": {"pruning_prob": 0.1}}
_EXACT = {"exact": {"solver": "exact"}}
#: In the names of image-sized workloads that are hard: many classes, or many undecided pixels.
_HARD = ("soft", "haze", "ADE20K")

#: Time over the base, in a quiet moment, when decisions were made of tensor operations: what is not to get slower.
_BEFORE = {"small 4x21": 0.93, "small 1x2": 1.86, "small 64x1": 41.0}
_BEFORE_EXACT = 6.6


def from_probabilities() -> Iterator[list[str]]:
    """Rows of all workloads, over ``argmax(1)`` or, of one channel, ``> 0.5``."""
    for workload in filter(lambda each: each.available, WORKLOADS):
        probs = workload.make()
        one = workload.shape[1] == 1
        base = partial(_foreground, probs, 0.5) if one else partial(probs.argmax, 1)
        variants = {"": {}, **_PRUNING, **(_EXACT if workload.name == "VOC" else {})}
        decoders = {name: _decoder(workload, options) for name, options in variants.items()}
        ours = {name: partial(decoder, probs) for name, decoder in decoders.items()}
        times, others = _measure({"base": base, "read": probs.sum, "max": partial(probs.max, 1), **ours})
        for name, decoder in decoders.items():
            most = most_of(workload, name)
            yield [
                workload.name,
                workload.description,
                name,
                f"{pruned_share(probs, decoder.pruning_prob):.0%}",
                "p > 0.5" if one else "argmax",
                mark(ratio(times[ALONE], name, "base"), most),
                f"{most:g}",
                f"{ratio(times[ALONE], name, 'read'):.1f}",
                "" if one else f"{ratio(times[ALONE], 'max', 'base'):.2f}",
                *busy_cells(times, name, MOST_BUSY_EXACT if name == "exact" else MOST_BUSY),
                f"{1000 * statistics.median(times[ALONE]['base']):.2f}",
                f"{others:.0%}",
            ]


def from_logits() -> Iterator[list[str]]:
    """Rows of all workloads but small ones, over argmax of the logits, and over softmax and argmax together."""
    for workload in filter(lambda each: each.available and "small" not in each.name, WORKLOADS):
        logits = workload.logits()
        one = workload.shape[1] == 1
        activation = "sigmoid" if one else "softmax"
        variants = {"": {}, **_PRUNING}
        ours = {
            name: partial(_decoder(workload, options).predict_logits, logits, activation)
            for name, options in variants.items()
        }
        base = partial(_foreground, logits, 0.0) if one else partial(logits.argmax, 1)
        activated = partial(_activated, logits, one)
        times, others = _measure({"base": base, "activated": activated, "read": logits.sum, **ours})
        for name in variants:
            yield [
                workload.name,
                workload.description,
                name,
                "logit > 0" if one else "argmax",
                f"{ratio(times[ALONE], name, 'base'):.2f}",
                mark(ratio(times[ALONE], name, "activated"), None if one else 1.0),
                "" if one else "1",
                f"{ratio(times[ALONE], name, 'read'):.1f}",
                *busy_cells(times, name),
                f"{1000 * statistics.median(times[ALONE]['base']):.2f}",
                f"{others:.0%}",
            ]


def most_of(workload: Workload, options: str) -> float:
    """What a row is to take over its base, at most."""
    if options == "exact":
        return _BEFORE_EXACT
    if workload.name in _BEFORE:
        return _BEFORE[workload.name]
    if workload.shape[1] == 1:
        return 6.0
    return 0.9 if options or any(each in workload.name for each in _HARD) else 0.7


def busy_cells(times: dict[str, Times], name: str, most: float = MOST_BUSY) -> Iterator[str]:
    """Of every busy condition: time over the base, and time over the time alone, of a contestant and of the base."""
    alone = times[ALONE]
    for condition in BUSY:
        busy = times[condition]
        yield mark(ratio(busy, name, "base"), most * ratio(alone, name, "base"))
        for each in (name, "base"):
            yield f"{ratio({'busy': busy[each], 'alone': alone[each]}, 'busy', 'alone'):.1f}"


def _measure(contestants: dict[str, Callable[[], object]]) -> tuple[dict[str, Times], float]:
    with Neighbours() as neighbours:
        return interleave_in(contestants, neighbours.conditions), neighbours.others()


def _decoder(workload: Workload, options: dict[str, Any]) -> RankSEG:
    return RankSEG(output_mode=workload.output_mode, **options)


def _foreground(values: Tensor, threshold: float) -> Tensor:
    return values > threshold


def _activated(logits: Tensor, one: bool) -> Tensor:
    return logits.sigmoid() > 0.5 if one else logits.softmax(1).argmax(1)
