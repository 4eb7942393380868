"""Tables of time: objectives and precisions beside the reference package, hard inputs, and growth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import rankseg as reference
import torch
from torch import Tensor

from benchmarks import measure
from benchmarks.measure import interleave, ratio
from benchmarks.workloads import UNDECIDED, VOC, WORKLOADS, Workload, generate, undecided_share
from rankseg_plugins import GlobalRankSEG, RankSEG, rankseg

Decide = Callable[[Tensor], Tensor]
Rows = Iterator[list[str]]

SPEED_HEADER = [
    "workload", "shape", "undecided", "base", "ours, Dice", "ours, IoU", "ours, Dice, smooth 1",
    "ours, IoU, smooth 1", "ours, data set", "`rankseg`, Dice", "`rankseg` auto, Dice", "`rankseg`, IoU",
    "`rankseg`, Dice, smooth 1", "`rankseg`, IoU, smooth 1", "softmax",
]  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    **{f"{name}, smooth {smooth}": {"metric": metric, "smooth": smooth}
       for name, metric in (("Dice", "dice"), ("IoU", "iou")) for smooth in (0, 1)},
    "exact Dice": {"solver": "exact"},
}  # fmt: skip
OPTIONS_HEADER = ["output", "input", *_OPTIONS]
UNDECIDED_HEADER = ["probabilities", "shape", "options", "time / argmax", "time / half of the images", "ms"]
CURVE_HEADER = ["values", "shape", "ours, ns per value", "argmax, ns per value", "ours / argmax"]


def ours(workload: Workload, **options: object) -> RankSEG:
    return RankSEG(**{"output_mode": workload.output_mode, **options})


def fitted(workload: Workload, probs: Tensor) -> Decide:
    decoder = GlobalRankSEG(probs.shape[1], output_mode=workload.output_mode, min_images=0)
    decoder.update(probs[..., :64, :64])
    decoder.fit()
    return decoder


def theirs(workload: Workload, **options: object) -> Decide:
    return reference.RankSEG(output_mode=workload.output_mode, **options).predict


def speed() -> Rows:
    """One row a workload. The base is argmax, or a threshold where there is a single channel."""
    for workload in filter(lambda each: each.available, WORKLOADS):
        probs = workload.make()
        contestants = {
            "base": (lambda p: p.argmax(1)) if probs.shape[1] > 1 else (lambda p: p > 0.5),
            "ours, Dice": ours(workload),
            "ours, IoU": ours(workload, metric="iou"),
            "ours, Dice, smooth 1": ours(workload, smooth=1.0),
            "ours, IoU, smooth 1": ours(workload, metric="iou", smooth=1.0),
            "ours, data set": fitted(workload, probs),
            "theirs, Dice": theirs(workload),
            "auto, Dice": theirs(workload, safe_screening="auto"),
            "theirs, IoU": theirs(workload, metric="iou"),
            "theirs, Dice, smooth 1": theirs(workload, smooth=1.0),
            "theirs, IoU, smooth 1": theirs(workload, metric="iou", smooth=1.0),
            "softmax": (lambda p: p.softmax(1)) if probs.shape[1] > 1 else torch.sigmoid,
        }
        times = interleave(
            {name: lambda decide=decide, probs=probs: decide(probs) for name, decide in contestants.items()}
        )
        yield [
            workload.name,
            workload.description,
            f"{undecided_share(probs):.2%}",
            "argmax" if probs.shape[1] > 1 else "p > 0.5",
            *(f"{ratio(times, name, 'base'):.2f}" for name in list(contestants)[1:]),
        ]


def options() -> Rows:
    """Every mode and precision on the VOC-like workload, time over argmax of the same values."""
    inputs = {"multiclass": VOC.make(), "multilabel": VOC.make(), "multiclass, from logits": VOC.logits()}
    for mode, values in inputs.items():
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            v = values.to(dtype)
            contestants: dict[str, Callable[[], Tensor]] = {"argmax": partial(v.argmax, 1)}
            for name, chosen in _OPTIONS.items():
                decoder = RankSEG(output_mode=mode.split(",")[0], **chosen)
                contestants[name] = partial(decoder.predict_logits if "logits" in mode else decoder, v)
            times = interleave(contestants)
            cells = (f"{ratio(times, name, 'argmax'):.2f}" for name in _OPTIONS)
            yield [mode, str(dtype).removeprefix("torch."), *cells]


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
        times = interleave(contestants, rounds=min(3, measure.ROUNDS))
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


def long_sums() -> str:
    """The mask of 10^8 probabilities against that of a threshold found in numpy's extended precision."""
    probs = torch.rand(1, 1, 10**8, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    mask = rankseg(probs, output_mode="multilabel")
    seconds = time.perf_counter() - start
    p = probs.numpy()
    best = p > dice_threshold(p)
    return (
        f"The mask of 10^8 float32 probabilities has {int(best.sum()):,} pixels, as a threshold found in extended "
        f"precision gives it; ours differs in {int((best != mask.numpy()).sum())} of them, and took {seconds:.1f} s."
    )


def dice_threshold(p: np.ndarray) -> np.longdouble:
    """Dinkelbach's iteration on all pixels, every sum in extended precision."""
    mu, threshold, raised = p.sum(dtype=np.longdouble), np.longdouble(0), np.longdouble(0.5)
    while raised != threshold:
        threshold, above = raised, p[p > raised]
        raised = above.sum(dtype=np.longdouble) / (len(above) + mu + 1) if len(above) else threshold
    return threshold
