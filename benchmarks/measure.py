"""Time and memory of competing functions, measured side by side."""

from __future__ import annotations

import ctypes
import multiprocessing
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
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


def extra_memory(make_input: Callable[[], torch.Tensor], call: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Largest memory that ``call`` needed beside its input and its result, as a share of the input.

    Measured as the growth of the process's resident set in a fresh process; Linux only.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_memory, args=(make_input, call, sender))
    process.start()
    sender.close()
    share = receiver.recv()
    process.join()
    return share


def _measure_memory(make_input: Callable, call: Callable, sender) -> None:
    # Threads of the parent do not survive a fork.
    torch.set_num_threads(1)
    probs = make_input()
    # A first call brings in code. What it freed but left mapped would hide what the second one needs.
    call(probs if probs.numel() < 1 << 24 else probs[..., :64])
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    result = call(probs)
    peak = _status("VmHWM") - before - result.numel() * result.element_size()
    sender.send(max(0.0, peak / (probs.numel() * probs.element_size())))
    sender.close()


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
