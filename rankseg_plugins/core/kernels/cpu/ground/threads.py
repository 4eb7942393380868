"""Kernels run in Python's own threads: they give up the interpreter's lock, and nothing waits at a barrier.

Which thread works on which piece changes no result: every piece writes to a place of its own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def run(work: Callable[[int, int], object], tasks: int, grain: int = 1) -> None:
    """Call ``work(first, last)`` for all tasks, ``grain`` at a time, in as many threads as PyTorch would use.

    An error in one call ends them all, and so does Ctrl-C.

    Args:
        work: done in any order and any thread.
        tasks: their number.
        grain: tasks of a call, at least 1.
    """
    waiting = deque(range(0, tasks, grain))
    if len(waiting) < 2 or torch.get_num_threads() < 2:
        for first in waiting:
            work(first, min(first + grain, tasks))
        return

    # Emptied at the end: a helper that had no time to begin keeps no memory that it would have worked on.
    held = [work]

    def help_out() -> None:
        while True:
            try:
                first = waiting.popleft()
            except IndexError:
                return
            try:
                held[0](first, min(first + grain, tasks))
            except BaseException:
                waiting.clear()
                raise

    helpers = min(torch.get_num_threads(), len(waiting)) - 1
    futures = [_pool(os.getpid()).submit(help_out) for _ in range(helpers)]
    try:
        help_out()
    finally:
        # One that was not begun, as others keep the pool busy, has nothing left to do.
        begun = [future for future in futures if not future.cancel()]
        for future in begun:
            future.exception()
        held.clear()
    for future in begun:
        future.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: those of a parent do not live on after a fork."""
    return ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="rankseg")
