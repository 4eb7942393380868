"""Times on a GPU, over argmax there: called one by one, and replayed from a CUDA graph."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.speed import Decide, ours, theirs
from benchmarks.workloads import WORKLOADS

HEADER = [
    "workload", "shape", "base", "base, ms", "ours, Dice", "ours, IoU", "ours, Dice, smooth 1", "`rankseg`, Dice",
    "`rankseg` auto, Dice", "softmax", "graph: base, ms", "graph: ours, Dice", "graph: ours, IoU",
    "graph: ours, Dice, smooth 1", "extra memory / input",
]  # fmt: skip

#: Inputs take turns until together they are this large, in bytes: none of them stays in the GPU's cache.
_BEYOND_CACHE = 1 << 28


def explanation() -> str:
    return (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, with Triton. Time over the base (argmax, or\n"
        "`p > 0.5` where there is a single channel), called one after the other: a call on a small input lasts as\n"
        "long as the host needs to launch its kernels, and the base is a single one. Nothing of ours waits for the\n"
        "host, so that a CUDA graph can replay all of it: the columns of the graph, over the base in a graph, are the\n"
        "time that the GPU itself needs. The reference reads values back and cannot be captured.\n"
    )


def rows() -> Iterator[list[str]]:
    """One row a workload."""
    for workload in filter(lambda each: each.available, WORKLOADS):
        probs = workload.make().cuda()
        copies = [probs, *(probs.clone() for _ in range(min(63, _BEYOND_CACHE // (4 * probs.numel()))))]
        contestants: dict[str, Decide] = {
            "base": (lambda p: p.argmax(1)) if probs.shape[1] > 1 else (lambda p: p > 0.5),
            "dice": ours(workload),
            "iou": ours(workload, metric="iou"),
            "smooth": ours(workload, smooth=1.0),
            "theirs": theirs(workload),
            "auto": theirs(workload, safe_screening="auto"),
            "softmax": (lambda p: p.softmax(1)) if probs.shape[1] > 1 else torch.sigmoid,
        }
        turns = {name: _turn(decide, copies) for name, decide in contestants.items()}
        replays = {name: _captured(turns[name]) for name in ("base", "dice", "iou", "smooth")}
        called, replayed = _interleave(turns), _interleave(replays)
        yield [
            workload.name,
            workload.description,
            "argmax" if probs.shape[1] > 1 else "p > 0.5",
            f"{1000 * statistics.median(called['base']) / len(copies):.3f}",
            *(_ratio(called, name) for name in list(contestants)[1:]),
            f"{1000 * statistics.median(replayed['base']) / len(copies):.3f}",
            *(_ratio(replayed, name) for name in list(replays)[1:]),
            f"{_extra_memory(contestants['dice'], probs):.2f}",
        ]


def _turn(decide: Decide, copies: list[Tensor]) -> Callable[[], None]:
    def turn() -> None:
        for probs in copies:
            decide(probs)

    return turn


def _captured(turn: Callable[[], None]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        turn()  # what is compiled or loaded once must not be captured
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        turn()
    return graph.replay


def _interleave(turns: dict[str, Callable[[], None]], rounds: int = 7) -> dict[str, list[float]]:
    """Seconds per turn, one value a round, measured by the GPU's own clock."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for round_ in range(rounds + 1):
        for name, turn in turns.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            turn()
            end.record()
            end.synchronize()
            if round_:  # the first one warms up
                times[name].append(start.elapsed_time(end) / 1000)
    return times


def _ratio(times: dict[str, list[float]], name: str) -> str:
    return f"{statistics.median(a / b for a, b in zip(times[name], times['base'], strict=True)):.2f}"


def _extra_memory(decide: Decide, probs: Tensor) -> float:
    result = decide(probs)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    again = decide(probs)
    extra = torch.cuda.max_memory_allocated() - before - again.numel() * again.element_size()
    del result
    return extra / (probs.numel() * probs.element_size())
