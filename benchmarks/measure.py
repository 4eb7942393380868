"""Time and memory of competing functions, measured side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer

#: A contestant that takes longer than this for one call, in seconds, is called once only.
PATIENCE = 8.0


def interleave(contestants: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, list[float]]:
    """Seconds per call of every contestant, one value a round; the contestants take turns within each round.

    Small inputs are called many times a round, so that a round lasts some milliseconds.
    """
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
        for name, call in contestants.items()
    }
    first = {name: timer.timeit(1).median for name, timer in timers.items()}
    calls = {name: max(1, min(200, round(0.02 / seconds))) for name, seconds in first.items()}
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            if first[name] < PATIENCE:
                times[name].append(timer.timeit(calls[name]).median)
    return {name: values or [first[name]] for name, values in times.items()}


def ratio(times: dict[str, list[float]], name: str, to: str) -> float:
    """Median of the ratio of two contestants over the rounds."""
    if len(times[name]) == len(times[to]):
        return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))
    return statistics.median(times[name]) / statistics.median(times[to])


def extra_memory(call: Callable[[torch.Tensor], torch.Tensor], probs: torch.Tensor) -> float:
    """Largest memory that ``call`` allocated beside its input and its result, as a share of the input.

    Counted by PyTorch's own allocator, so that it is the same in every run, and memory counts that is allocated but
    never touched.
    """
    call(probs)  # what is made once and kept
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call(probs)
    live = largest = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            largest = max(largest, live)
    kept = result.numel() * result.element_size()
    return (largest - kept) / (probs.numel() * probs.element_size())
