"""Threads of our own: what they hold, and what becomes of errors."""

import os
import threading
import weakref

import pytest

from rankseg_plugins.core.kernels.cpu.ground import threads


class Work:
    """Callable, and its life can be watched."""

    def __init__(self):
        self.done = []

    def __call__(self, first, last):
        self.done += range(first, last)


@pytest.mark.usefixtures("two_threads")
def test_memory_is_given_back_while_others_keep_the_pool_busy():
    """A helper that never began must not keep what it would have worked on."""
    pool, begun, ended = threads._pool(os.getpid()), threading.Barrier(pool_size() + 1), threading.Event()
    busy = [pool.submit(lambda: (begun.wait(), ended.wait())) for _ in range(pool_size())]
    begun.wait()
    try:
        work = Work()
        threads.run(work, 5)
        assert sorted(work.done) == [0, 1, 2, 3, 4]
        watched = weakref.ref(work)
        del work
        assert watched() is None
    finally:
        ended.set()
        for each in busy:
            each.result()


def pool_size():
    return threads._pool(os.getpid())._max_workers


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("error", [IndexError, ValueError, KeyboardInterrupt])
def test_no_error_is_lost(error):
    def fail(first, last):
        raise error("of the work")

    with pytest.raises(error, match="of the work"):
        threads.run(fail, 8)
