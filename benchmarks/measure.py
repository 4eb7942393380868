"""Time and memory of competing functions, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor
from torch.autograd.profiler import profile

Call = Callable[[], object]
#: Seconds per call of every contestant, one value a round.
Times = dict[str, list[float]]

#: Rounds in which contestants take turns.
ROUNDS = 5

#: A contestant that takes longer than this for one call, in seconds, is called once only.
PATIENCE = 15.0

#: Seconds that calls on small inputs take together in a round, and their number at most.
_ROUND, _MOST_CALLS = 0.05, 500


def table_head(titles: Sequence[str], words: int = 1) -> str:
    """Head of a Markdown table, of whose columns the first ``words`` hold words, and the others numbers.

    Example:
        >>> print(table_head(["data", "gain"]))
        | data | gain |
        | --- | ---: |
    """
    return f"| {' | '.join(titles)} |\n|{' --- |' * words}{' ---: |' * (len(titles) - words)}"


def interleave(contestants: Mapping[str, Call], rounds: int | None = None) -> Times:
    """Seconds per call of every contestant; the contestants take turns within each round.

    Small inputs are called many times a round, so that a round lasts longer than a turn of the scheduler.
    """
    return interleave_in(contestants, {"": nullcontext}, rounds)[""]


def interleave_in(
    contestants: Mapping[str, Call],
    conditions: Mapping[str, Callable[[], AbstractContextManager[object]]],
    rounds: int | None = None,
) -> dict[str, Times]:
    """The same in several conditions, which take turns too: what drifts on the machine meets all of them."""
    calls = {name: _calls_a_round(call) for name, call in contestants.items()}
    times: dict[str, Times] = {condition: {name: [] for name in contestants} for condition in conditions}
    for _ in range(rounds or ROUNDS):
        for condition, enter in conditions.items():
            with enter():
                for name, call in contestants.items():
                    taken = times[condition][name]
                    if not taken or taken[-1] < PATIENCE:
                        taken.append(_seconds(call, calls[name]))
    return times


def _calls_a_round(call: Call) -> int:
    fastest = _seconds(call, 1)
    if fastest < PATIENCE:
        # The first one may have compiled something, and the scheduler may stop any.
        fastest = min(_seconds(call, 1) for _ in range(5 if fastest < 1 else 1))
    return max(1, min(_MOST_CALLS, round(_ROUND / fastest)))


def _seconds(call: Call, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def ratio(times: Times, name: str, to: str) -> float:
    """Median of the ratio of two contestants over the rounds."""
    if len(times[name]) == len(times[to]):
        return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))
    return statistics.median(times[name]) / statistics.median(times[to])


def mark(value: float, most: float | None, digits: int = 2) -> str:
    """A number as it stands in a table: bold where it is above what is aimed at."""
    text = f"{value:.{digits}f}"
    # As it is read: what is printed as the limit keeps it.
    return f"**{text}**" if most is not None and float(text) > most else text


def extra_memory(call: Callable[[Tensor], Tensor], probs: Tensor) -> float:
    """Largest memory that ``call`` allocated beside its input and its result, as a share of the input.

    Counted by PyTorch's own allocator, so that it is the same in every run, and memory counts that is allocated but
    never touched. The result is left out from the moment on when it is allocated.
    """
    call(probs)  # what is made once and kept
    result, allocations = _profiled(call, probs)
    others = [size for address, size in allocations if address != result.untyped_storage().data_ptr()]
    return _largest(others) / (probs.numel() * probs.element_size())


def hidden_memory(call: Callable[[Tensor], Tensor], probs: Tensor) -> float:
    """By how much the process itself grows more than PyTorch's allocator counts, as a share of the input.

    That is memory of NumPy and numba. It means something in a process of its own whose ``malloc`` gives back at once
    what is freed, and the input must be large beside a megabyte, which is about what else comes and goes.
    """
    call(probs)
    _, allocations = _profiled(call, probs)
    counted = _largest([size for _, size in allocations])
    grown = min(_growth(lambda: call(probs)) for _ in range(3))
    return max(0, grown - counted) / (probs.numel() * probs.element_size())


def _growth(call: Call) -> int:
    """Bytes of memory that a call has in use at its peak, as the operating system counts them."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before = _status("VmRSS")
    result = call()
    peak = _status("VmHWM")
    del result
    return peak - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def _largest(sizes: list[int]) -> int:
    live = largest = 0
    for size in sizes:
        live += size
        largest = max(largest, live)
    return largest


def _profiled(call: Callable[[Tensor], Tensor], probs: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
    """What it returns, and address and size of every allocation in order of time; what is freed has a negative size."""
    # Not torch.profiler's: it refers to itself, and its many events would stay until Python looks for such circles.
    with profile(use_kineto=True, profile_memory=True) as profiler:
        result = call(probs)
    waiting, found = list(profiler.kineto_results.experimental_event_tree()), []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.name == "[memory]":
            found.append((event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size))
    return result, [(address, size) for _, address, size in sorted(found, key=lambda each: each[0])]
