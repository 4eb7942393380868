"""One command in several processes, as ``torchrun`` starts them: the first speaks for all, and they end together.

Whoever waits looks every now and then at what the processes share (the store), and a collective begins once all of them
are there: inside of one, a process would not notice Ctrl-C, nor that another has failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import torch

from rankseg_plugins.core.fits import processes
from rankseg_plugins.core.fits.processes import rank

#: Exit status of a process that ends because another failed.
OTHER_FAILED = 2
#: Seconds between two looks at the store.
PAUSE = 0.05

T = TypeVar("T")


class Group:
    """The processes of one command.

    Args:
        store: numbers that all of them see, a ``torch.distributed.Store``.
        world: how many they are.
    """

    def __init__(self, store: Any, world: int) -> None:
        self._store, self._world, self._met = store, world, 0

    def count(self, what: str, more: int = 0) -> int:
        """Add to a number that all processes share; without those that hold it, end this one."""
        try:
            number: int = self._store.add(what, more)
        except RuntimeError:
            sys.exit(OTHER_FAILED)
        return number

    def look(self) -> None:
        """End this process if another has failed."""
        if self.count("failed"):
            sys.exit(OTHER_FAILED)

    def meet(self, meanwhile: Callable[[], object]) -> None:
        """Wait for all others."""
        self._met += 1
        here = f"met {self._met}"
        self.count(here, 1)
        while self.count(here) < self._world:
            self.look()
            meanwhile()
            time.sleep(PAUSE)

    def end_alike(self) -> None:
        """Fail as all others do, such as by an option that does not exist, once the first has said why."""
        if rank() == 0:
            self.count("failed", 1)
        while not self.count("failed"):
            time.sleep(PAUSE)


_group: Group | None = None


def _is_shared() -> bool:
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Make a group of the processes that ``torchrun`` started, if it did; all but the first are silent in it."""
    global _group
    if not _is_shared():
        yield
        return
    with contextlib.ExitStack() as undone:
        _group = _joined()
        undone.callback(torch.distributed.destroy_process_group)
        if rank():
            # Ctrl-C ends it at once, wherever it waits; the first process says so.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            sys.stdout = sys.stderr = undone.enter_context(open(os.devnull, "w"))
            undone.callback(_speak)
        try:
            yield
        except SystemExit as end:
            if end.code:
                _group.end_alike()
            raise
        except Exception:
            if may_say_error():
                raise
            sys.exit(OTHER_FAILED)


def _joined() -> Group:
    distributed: Any = torch.distributed  # its stubs lack what follows
    store, place, world = next(iter(distributed.rendezvous("env://")))
    apart = distributed.PrefixStore
    torch.distributed.init_process_group("gloo", store=apart("collectives", store), rank=place, world_size=world)
    return Group(apart("command", store), world)


def _speak() -> None:
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def may_say_error() -> bool:
    """Whether no other process said why all of them end; this one is then heard, also if it is not the first."""
    if _group is None:
        return True
    if _group.count("failed", 1) > 1:
        return False
    _speak()
    return True


def meet(meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait for all processes, and end if one of them has failed; in one process go on.

    Args:
        meanwhile: called every now and then.
    """
    if _group is not None:
        _group.meet(meanwhile)


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, on each of them."""
    made = make() if rank() == 0 else None
    meet()
    return cast(T, processes.from_first(made))


class Steps:
    """Moves the bar of the first process by the images of all.

    Args:
        what: is counted.
        step: moves the bar by one image.
    """

    def __init__(self, what: str, step: Callable[[], object]) -> None:
        self._what, self._step, self._shown = what, step, 0

    def __call__(self, *ignored: object) -> None:
        """Of this process one image more is done."""
        self.look(1)

    def look(self, more: int = 0) -> None:
        """Show what the others did, and end if one of them has failed."""
        if _group is None:
            for _ in range(more):
                self._step()
            return
        done = _group.count(self._what, more)
        _group.look()
        for _ in range(done - self._shown):
            self._step()
        self._shown = done


def own_device(option: str, device: str) -> str:
    """The device of this process: of several on one machine, each takes its own GPU.

    Args:
        option: its name, for messages.
        device: as it was given.

    Raises:
        ValueError: for one GPU that all of them would take.
    """
    kind, _, index = device.partition(":")
    local = os.environ.get("LOCAL_RANK")
    if _group is None or kind != "cuda" or os.environ.get("LOCAL_WORLD_SIZE") == "1":
        return device
    if index:
        raise ValueError(f"{option} must be cuda in several processes, each of which takes its own GPU, got {device}")
    if local is None:
        raise ValueError(f"{option} cuda in several processes needs the variable LOCAL_RANK, which torchrun sets")
    return f"cuda:{local}"
