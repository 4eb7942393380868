"""Several decisions on the same probabilities: what they have in common is done once, and counts for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.rma import Steps
from rankseg_plugins.core.values import Values
from rankseg_plugins.core.volumes import Volumes

T = TypeVar("T")


class Clock:
    """Seconds that go on by what work took also where it was done before: everybody reads what it takes alone."""

    def __init__(self) -> None:
        self.saved = 0.0

    def now(self) -> float:
        """Seconds from any beginning."""
        return time.perf_counter() + self.saved


class Once:
    """Work that is done when it is first asked for; all others get what was found, and must not write to it.

    Args:
        clock: of those who ask; None: nobody looks.

    Example:
        >>> once = Once()
        >>> once("sum", lambda: sum([1, 2])), once("sum", lambda: 1 / 0)
        (3, 3)
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._found: dict[Hashable, tuple[Any, float]] = {}
        self._clock = clock or Clock()

    def __call__(self, key: Hashable, work: Callable[[], T]) -> T:
        """What ``work`` returns, or what it returned before under this key."""
        if key in self._found:
            self._clock.saved += self._found[key][1]
            found: T = self._found[key][0]
            return found
        start = self._clock.now()
        found = work()
        self._found[key] = found, self._clock.now() - start
        return found


class SharedSteps:
    """``Steps`` of several decisions, on a CPU.

    A mask does not depend on which other classes are active: one search finds those of all classes. Decisions that take
    the same of them are one tensor.

    Args:
        steps: on the pixels that are decided on.
        once: keeps what was found.
    """

    def __init__(self, steps: Steps, once: Once) -> None:
        self._steps, self._once = steps, once

    @property
    def maximum(self) -> Tensor:
        """(B, C) largest probability of every image and class; after ``search``."""
        return self._steps.maximum

    def search(self, objective: Objective, pruning: float | Tensor) -> Volumes:
        """The best masks of the classes whose largest probability is above ``pruning``."""
        found = self._once(("search", objective), lambda: self._steps.search(objective, 0.0))
        return found.only(self.maximum > pruning)

    def labels(self, volumes: Volumes, objective: Objective, void_index: int | None) -> Tensor:
        """One label per pixel, (B, d) int64."""
        key = ("labels", objective, void_index, _which(volumes))
        return self._once(key, lambda: self._steps.labels(volumes, objective, void_index))

    def masks(self, volumes: Volumes) -> Tensor:
        """The masks themselves, (B, C, d) bool."""
        return self._once(("masks", _which(volumes)), lambda: self._steps.masks(volumes))

    def values(self) -> Values:
        """What other solvers look at."""
        return self._steps.values()


def _which(volumes: Volumes) -> bytes:
    # A class that is not active has a threshold of its own.
    return volumes.threshold.numpy().tobytes()
