"""Other programs on the same cores: started once, halted, and let run while something is measured beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import torch

#: Each says that it is ready, and ends when its standard input does: when the benchmark has ended, however it did.
_PREAMBLE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
"""
_COUNT = "print(flush=True); n = 0\nwhile True: n += 1"
_OPERATIONS = """
import torch
torch.set_num_threads({threads})
x = torch.randn(200_000)
x.mul_(1.0).clamp_(-5, 5)
print(flush=True)
while True: x.mul_(1.0).clamp_(-5, 5)
"""

#: What a condition needs to have its effect on the scheduler, in seconds.
_SETTLING = 0.1

ALONE, COUNTING, OPERATIONS = "alone", "counting", "operations"
BUSY = (COUNTING, OPERATIONS)


class Neighbours:
    """Measures alone, beside a process a core that only counts, or beside small parallel operations of PyTorch.

    A context manager that starts all processes; ``conditions`` are context managers that let some of them run.
    """

    def __init__(self) -> None:
        self._busy = self._total = 0.0
        self._running: dict[str, list[subprocess.Popen[str]]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Neighbours:
        cores = len(os.sched_getaffinity(0))
        with ExitStack() as stack:
            self._running = {
                COUNTING: [stack.enter_context(_started(_COUNT)) for _ in range(cores)],
                OPERATIONS: [stack.enter_context(_started(_OPERATIONS.format(threads=torch.get_num_threads())))],
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def conditions(self) -> dict[str, Callable[[], AbstractContextManager[None]]]:
        """By name."""
        return {
            ALONE: self._alone,
            COUNTING: lambda: self._beside(COUNTING),
            OPERATIONS: lambda: self._beside(OPERATIONS),
        }

    def others(self) -> float:
        """Share of the cores that went to programs of others in condition "alone" since this was last asked."""
        share = self._busy / self._total if self._total else 0.0
        self._busy = self._total = 0.0
        return max(0.0, share)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        mine, (busy, total) = time.process_time(), _processors()
        yield
        busy_now, total_now = _processors()
        self._busy += busy_now - busy - (time.process_time() - mine)
        self._total += total_now - total

    @contextmanager
    def _beside(self, name: str) -> Iterator[None]:
        for process in self._running[name]:
            process.send_signal(signal.SIGCONT)
        time.sleep(_SETTLING)
        try:
            yield
        finally:
            for process in self._running[name]:
                process.send_signal(signal.SIGSTOP)


@contextmanager
def _started(program: str) -> Iterator[subprocess.Popen[str]]:
    """A process that was halted when it was ready."""
    # As a user starts it: what keeps threads from waiting for each other in this process is not set there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    process = subprocess.Popen(
        [sys.executable, "-c", _PREAMBLE + program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "\n":
            raise RuntimeError("a program to measure beside did not start")
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


def _processors() -> tuple[float, float]:
    """Seconds that all cores were busy with anything, and all seconds, idle ones included; guests of others count."""
    user, nice, system, idle, waiting, *others = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    busy = user + nice + system + sum(others)
    ticks = os.sysconf("SC_CLK_TCK")
    return busy / ticks, (busy + idle + waiting) / ticks
