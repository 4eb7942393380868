"""Time and memory of competing functions, measured side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch.autograd.profiler import profile
from torch.utils.benchmark import Timer

#: A contestant that takes longer than this for one call, in seconds, is called once only.
PATIENCE = 15.0


def interleave(contestants: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
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
    never touched. The result is left out from the moment on when it is allocated.
    """
    call(probs)  # what is made once and kept
    # Not torch.profiler's: it refers to itself, and its many events would stay until Python looks for such circles.
    with profile(use_kineto=True, profile_memory=True) as profiler:
        result = call(probs)
    live = largest = 0
    for address, size in _allocations(profiler):
        if address != result.untyped_storage().data_ptr():
            live += size
            largest = max(largest, live)
    return largest / (probs.numel() * probs.element_size())


def _allocations(profiler: profile) -> list[tuple[int, int]]:
    """Address and size of every allocation in order of time; those that are freed have a negative size."""
    waiting, found = list(profiler.kineto_results.experimental_event_tree()), []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.name == "[memory]":
            found.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    return [(address, size) for _, address, size in sorted(found, key=lambda each: each[0])]
