"""Tables of time and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import rankseg as reference
import torch
from torch import Tensor

from benchmarks.measure import extra_memory, interleave, ratio
from benchmarks.workloads import UNDECIDED, WORKLOADS, Workload, generate, pruned_share, undecided_share
from rankseg_plugins import GlobalRankSEG, RankSEG, rankseg

Decide = Callable[[Tensor], Tensor]
Rows = Iterator[list[str]]

SPEED_HEADER = [
    "workload", "shape", "pruned", "undecided", "base", "ours, Dice", "ours, IoU", "ours, Dice, smooth 1",
    "ours, IoU, smooth 1", "ours, data set", "`rankseg`, Dice", "`rankseg` auto, Dice", "`rankseg`, IoU",
    "`rankseg`, Dice, smooth 1", "`rankseg`, IoU, smooth 1", "softmax", "`max(1)`", "base, ms",
]  # fmt: skip
MEMORY_HEADER = [
    "workload", "ours", "IoU", "`smooth` 1", "`pruning_prob` 0", "multilabel", "float16 input", "bfloat16 input",
    "a crop", "exact", "`rankseg`",
    "`rankseg` auto",
]  # fmt: skip
OPTIONS_HEADER = ["output", "input", "Dice, smooth 0", "Dice, smooth 1", "IoU, smooth 0", "IoU, smooth 1", "exact Dice"]
UNDECIDED_HEADER = ["probabilities", "shape", "options", "time / argmax", "time / half of the images", "ms"]
CURVE_HEADER = ["values", "shape", "ours, ns per value", "argmax, ns per value", "ours / argmax"]


def ours(workload: Workload, **options: object) -> Decide:
    return RankSEG(output_mode=workload.output_mode, **options)


def fitted(workload: Workload, probs: Tensor) -> Decide:
    decoder = GlobalRankSEG(probs.shape[1], output_mode=workload.output_mode, min_images=0)
    decoder.update(probs[..., :64, :64])
    decoder.fit()
    return decoder


def theirs(workload: Workload, **options: object) -> Decide:
    return reference.RankSEG(output_mode=workload.output_mode, **options).predict


def speed() -> Rows:
    """One row a workload. The base is argmax, or ``rankseg`` with its screening where there is a single channel."""
    for workload in filter(lambda each: each.available, WORKLOADS):
        probs = workload.make()
        auto = theirs(workload, safe_screening="auto")
        contestants = {
            "base": (lambda p: p.argmax(1)) if probs.shape[1] > 1 else auto,
            "ours, Dice": ours(workload),
            "ours, IoU": ours(workload, metric="iou"),
            "ours, Dice, smooth 1": ours(workload, smooth=1.0),
            "ours, IoU, smooth 1": ours(workload, metric="iou", smooth=1.0),
            "ours, data set": fitted(workload, probs),
            "theirs, Dice": theirs(workload),
            "auto, Dice": auto,
            "theirs, IoU": theirs(workload, metric="iou"),
            "theirs, Dice, smooth 1": theirs(workload, smooth=1.0),
            "theirs, IoU, smooth 1": theirs(workload, metric="iou", smooth=1.0),
            "softmax": (lambda p: p.softmax(1)) if probs.shape[1] > 1 else torch.sigmoid,
            "max": lambda p: p.max(1),
        }
        times = interleave(
            {name: lambda decide=decide, probs=probs: decide(probs) for name, decide in contestants.items()}
        )
        yield [
            workload.name,
            workload.description,
            f"{pruned_share(probs):.0%}",
            f"{undecided_share(probs):.2%}",
            "argmax" if probs.shape[1] > 1 else "`rankseg` auto",
            *(f"{ratio(times, name, 'base'):.2f}" for name in list(contestants)[1:]),
            f"{1000 * statistics.median(times['base']):.2f}",
        ]


def memory() -> Rows:
    """Extra peak memory as a share of the input, the result not counted."""
    for workload in filter(lambda each: each.available and "small" not in each.name, WORKLOADS):
        probs = workload.make()
        width = probs.shape[-1]
        crop = torch.cat([probs, probs[..., :1]], dim=-1)[..., :width]
        cells = [
            (ours(workload), probs),
            (ours(workload, metric="iou"), probs),
            (ours(workload, smooth=1.0), probs),
            (ours(workload, pruning_prob=0.0), probs),
            (RankSEG(output_mode="multilabel"), probs),
            (ours(workload), probs.half()),
            (ours(workload), probs.bfloat16()),
            (ours(workload), crop),
            (ours(workload, solver="exact"), probs),
            (theirs(workload), probs),
            (theirs(workload, safe_screening="auto"), probs),
        ]
        yield [workload.name, *(f"{extra_memory(*each):.2f}" for each in cells)]


def options() -> Rows:
    """Every mode and precision on the VOC-like workload, time over argmax of the same precision."""
    probs = WORKLOADS[0].make()
    for output_mode in ("multiclass", "multilabel"):
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            p = probs.to(dtype)
            contestants: dict[str, Decide] = {"argmax": lambda p: p.argmax(1)}
            for metric in ("dice", "iou"):
                for smooth in (0.0, 1.0):
                    contestants[f"{metric} {smooth}"] = RankSEG(metric, smooth, output_mode)
            contestants["exact"] = RankSEG(output_mode=output_mode, solver="exact")
            times = interleave({name: lambda d=decide, p=p: d(p) for name, decide in contestants.items()})
            yield [
                output_mode,
                str(dtype).removeprefix("torch."),
                *(f"{ratio(times, name, 'argmax'):.2f}" for name in list(contestants)[1:]),
            ]


def undecided() -> Rows:
    """Many undecided classes at once, time over argmax, and over what half of the images takes."""
    for workload in UNDECIDED:
        probs, decide = workload.make(), RankSEG(**workload.options)
        half = probs[: len(probs) // 2]
        contestants = {
            "ours": partial(decide, probs),
            "half": partial(decide, half),
            "argmax": partial(probs.argmax, 1),
        }
        times = interleave(contestants, rounds=3)
        yield [
            workload.name,
            "x".join(map(str, workload.shape)),
            ", ".join(f"{name} {value}" for name, value in workload.options.items() if name != "output_mode"),
            f"{ratio(times, 'ours', 'argmax'):.0f}",
            f"{ratio(times, 'ours', 'half'):.1f}",
            f"{1000 * statistics.median(times['ours']):.0f}",
        ]


def curve() -> Rows:
    """Cost per value over four orders of magnitude, four classes."""
    decide = RankSEG()
    for side in (50, 158, 500, 1581, 5000):
        probs = generate((1, 4, side, side), active=4, seed=0)
        times = interleave({"ours": lambda p=probs: decide(p), "argmax": lambda p=probs: p.argmax(1)})
        cost = {name: 1e9 * statistics.median(values) / probs.numel() for name, values in times.items()}
        yield [
            f"{probs.numel():.1e}",
            "x".join(map(str, probs.shape)),
            f"{cost['ours']:.2f}",
            f"{cost['argmax']:.2f}",
            f"{ratio(times, 'ours', 'argmax'):.2f}",
        ]


def large_sums() -> str:
    """The sum of 10^8 probabilities against numpy's extended precision."""
    from rankseg_plugins.core.tiled.rma import row_statistics
    from rankseg_plugins.core.tiled.tiles import Tiles

    probs = torch.rand(1, 1, 10**8, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    rankseg(probs, output_mode="multilabel")
    seconds = time.perf_counter() - start
    got = row_statistics(Tiles(probs)).mu.item()
    exact = float(np.sum(probs.numpy(), dtype=np.longdouble))
    error = abs(got - exact) / exact / torch.finfo(torch.float32).eps
    return (
        f"The sum of 10^8 float32 probabilities is off by {error:.3f} float32 eps (at most 4 are allowed); deciding on "
        f"them took {seconds:.1f} s."
    )
