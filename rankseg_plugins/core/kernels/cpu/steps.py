"""The steps of a decision on a CPU: survey, guess, collect, finish; then choose and settle, or select."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cpu import labels as label_kernels
from rankseg_plugins.core.kernels.cpu import rows as row_kernels
from rankseg_plugins.core.kernels.cpu import thresholds
from rankseg_plugins.core.kernels.cpu.ground.source import (
    CALL,
    Make,
    decision,
    joined,
    make_plan,
    make_source,
    nothing,
    over_tasks,
    scratch,
)
from rankseg_plugins.core.kernels.cpu.ground.threads import run
from rankseg_plugins.core.kernels.cpu.rows import ROW
from rankseg_plugins.core.kernels.cpu.solvers.values import CpuValues
from rankseg_plugins.core.kernels.cpu.thresholds import Goal
from rankseg_plugins.core.objectives import Dice, Objective
from rankseg_plugins.core.volumes import Volumes

#: Pixels of a sample at most, and its share of all.
_SAMPLE, _SHARE = 8192, 16
#: The share of the values for which there is room between the bounds, and a little more in each task.
_ROOM, _MORE = 32, 1 << 11


class CpuSteps:
    """The steps of ``rankseg_plugins.core.rma`` on some pixels.

    Args:
        pixels: what is decided on.
        make: gives memory for the decision, of a shape and a type; a map of labels may be of any signed type that
            holds them.

    Attributes:
        maximum: (B, C) largest probability of every row, which is a class of an image; after ``search``.
    """

    def __init__(self, pixels: Pixels, make: Make = decision) -> None:
        self.pixels, self.make = pixels, make
        self.source, self.making = make_source(pixels)
        self.plan = make_plan(self.source)
        self.tables = int(pixels.values.shape[0]), self.source.classes
        #: Half precision is compared in float32, which takes twice the memory: there is less of it.
        self.narrow = 2 if self.source.form["half"] else 1
        self.tasks = self.tables[0] * self.plan.tasks
        self.dtype = torch.promote_types(pixels.values.dtype, torch.float32)
        self.rows, self.peaks = np.zeros(self.tables, ROW), scratch((*self.tables, self.plan.chunks), self.dtype)
        self._surveyed = False
        # Memory of the calls of kernels that have ended, for those that follow.
        self._spaces: list[dict[str, np.ndarray]] = []

    def _survey(self) -> tuple[np.ndarray, np.ndarray]:
        """Read every value once: a sample of every row, and what the survey counted of it."""
        size, rows = self.source.pixels, self.tables
        chosen = 0 if self.plan.chunks == 1 else min(_SAMPLE, size // (_SHARE * self.narrow))
        sample = scratch((*rows, chosen), self.dtype)
        sums, odd = np.zeros((self.tasks, rows[1])), np.zeros((self.tasks, 2), np.int64)
        upper = np.zeros((*sums.shape, len(row_kernels.CUTS), 2))
        places = _places(size, chosen)
        begins = np.searchsorted(places, np.arange(self.plan.chunks + 1) * self.plan.width)
        self._over_tasks(row_kernels.survey, sample, places, begins, sums, upper, self.peaks, odd)
        if odd[:, 0].any():
            self.pixels.check()
        if odd[:, 1].any():
            self.source = self.source.but(clamps=True)
            self.making = self.making or nothing(self.dtype)
        self.rows["mu"] = self._joined(sums)
        self.maximum, self._surveyed = torch.from_numpy(self.peaks.max(2)), True
        return sample, self._joined(upper)

    def search(self, objective: Objective, pruning: float | Tensor) -> Volumes:
        """See ``rankseg_plugins.core.rma.Steps``."""
        sample, upper = self._survey()
        rows, goal, active = self.rows, _goal(objective), self.maximum > pruning
        rows["is_open"] = active.numpy()
        rows["threshold"], rows["n"], rows["s"] = np.inf, 0, 0
        if self.plan.chunks == 1:
            self._over_tasks(thresholds.finish_small, rows, goal)
        else:
            self._guess(goal, sample, upper)
            del sample  # before the next memory is made
            while rows["is_open"].any():
                self._look(goal)
        threshold, n, s, mu = (torch.from_numpy(rows[name].copy()) for name in ("threshold", "n", "s", "mu"))
        return Volumes(threshold.to(self.dtype), n, s, mu, active)

    def _guess(self, goal: Goal, sample: np.ndarray, upper: np.ndarray) -> None:
        """Bounds of every threshold, by the sample."""
        of_a_row = sample.shape[2:]
        given = goal, self.source.pixels, sample, upper
        self._over_rows(thresholds.guess, *given, work=sample.size, more=lambda: (np.empty(of_a_row, sample.dtype),))

    def _look(self, goal: Goal) -> None:
        """Collect what lies between the bounds of the open rows, and finish those for which it is enough."""
        rows = self.rows
        before = rows.copy()
        self._collect_and_finish(
            goal, self.source.pixels * self.tables[1] // (self.plan.tasks * _ROOM * self.narrow) + _MORE
        )
        same = rows["is_open"] & (rows["low"] == before["low"]) & (rows["high"] == before["high"])
        # Too many pixels that smoothed Dice has to rank, in a haze of equal probabilities: one row at a time.
        still_open = rows["is_open"] & ~same
        for image, label in np.argwhere(same):
            rows["is_open"] = False
            rows["is_open"][image, label] = True
            self._collect_and_finish(goal, self.plan.share * self.plan.width)
            still_open[image, label] = rows["is_open"][image, label]
        rows["is_open"] = still_open

    def _collect_and_finish(self, goal: Goal, room: int) -> None:
        values, labels = scratch((self.tasks, room), self.dtype), scratch((self.tasks, room), torch.int16)
        found, counts = np.zeros(self.tasks, np.int64), np.zeros((self.tasks, self.tables[1], 3), np.int64)
        sums = np.zeros((self.tasks, self.tables[1], 2))
        self._over_tasks(row_kernels.collect, self.rows, self.peaks, values, labels, found, counts, sums)
        counts, sums = self._joined(counts), self._joined(sums)
        held = counts[..., 1] - counts[..., 2]
        # Where the values of each row begin, and after they were grouped: where they end.
        places = (held.cumsum() - held.ravel()).reshape(self.tables)
        grouped = scratch((int(held.sum()),), self.dtype)
        images = max(1, self.tables[0] * CALL // max(1, len(grouped)))
        run(
            lambda *part: row_kernels.group(*part, self.plan, values, labels, found, places, grouped),
            self.tables[0],
            images,
        )
        self._over_rows(thresholds.finish, goal, counts, sums, places, grouped, work=len(grouped))

    def masks(self, volumes: Volumes) -> Tensor:
        """See ``rankseg_plugins.core.rma.Steps``."""
        self._take(volumes)
        masks = self.make((*self.tables, self.source.pixels), torch.bool)
        self._over_tasks(label_kernels.select, self.rows, self.peaks, masks.numpy())
        return masks

    def labels(self, volumes: Volumes, objective: Objective, void_index: int | None) -> Tensor:
        """See ``rankseg_plugins.core.rma.Steps``."""
        self._take(volumes)
        batch, classes = self.tables
        labels = self.make((batch, self.source.pixels), torch.int64)
        disputed = np.zeros((batch, self.plan.chunks), np.int64)
        shared = np.zeros((self.tasks, classes, 2))
        tables = self.rows, self.peaks, labels.numpy(), disputed, shared
        self._over_tasks(label_kernels.choose, *tables, room=("codes", "rows"))
        if disputed.any():
            shared = self._joined(shared)
            self.rows["n"] -= shared[..., 0]
            self.rows["s"] -= shared[..., 1]
            # Where pruning left no class at all, every class competes for every pixel.
            competes = (volumes.active | ~volumes.active.any(1, keepdim=True)).numpy()
            self._over_tasks(
                label_kernels.settle, self.rows, _goal(objective), labels.numpy(), disputed, competes,
                void_index is not None, void_index or 0, room=("best", "places", "nobody", "rows"),
            )  # fmt: skip
        return labels

    def values(self) -> CpuValues:
        """See ``rankseg_plugins.core.rma.Steps``."""
        if not self._surveyed:
            self._survey()
        return CpuValues(self.source, self.making, self.plan, self.peaks)

    def _take(self, volumes: Volumes) -> None:
        for name in ("threshold", "n", "s"):
            self.rows[name] = getattr(volumes, name).numpy()

    def _over_tasks(self, kernel: Callable[..., object], *arguments: Any, room: tuple[str, ...] = ("rows",)) -> None:
        """For all tasks, with the named parts of memory that each call of the kernel may overwrite."""

        def work(first: int, last: int) -> None:
            try:
                space = self._spaces.pop()
            except IndexError:
                space = _space(self.plan.width, self.peaks.dtype)
            parts = (space[name] for name in room)
            kernel(first, last, self.source, self.making, self.plan, *arguments, *parts)
            self._spaces.append(space)

        over_tasks(work, self.source, self.plan, self.tables[0])

    def _over_rows(
        self, kernel: Callable[..., object], *arguments: Any, work: int, more: Callable[[], Any] = tuple
    ) -> None:
        number = self.tables[0] * self.tables[1]
        grain = max(1, number * CALL // max(1, 8 * work))
        run(lambda *part: kernel(*part, self.rows, *arguments, *more()), number, grain)

    def _joined(self, tables: np.ndarray) -> np.ndarray:
        return joined(tables, self.plan)


def _space(width: int, dtype: Any) -> dict[str, np.ndarray]:
    """What kernels overwrite: see ``rankseg_plugins.core.kernels.cpu.labels`` for the last four."""
    return {
        "rows": np.empty((6, width), dtype),
        "codes": np.empty(width, np.int32),
        "best": np.empty(width),
        "places": np.empty((2, width), np.int64),
        "nobody": np.empty(width, np.bool_),
    }


def _goal(objective: Objective) -> Goal:
    return Goal(isinstance(objective, Dice), float(objective.smooth))


@lru_cache(maxsize=16)
def _places(pixels: int, chosen: int) -> np.ndarray:
    """Pixels of a sample, (chosen,) rising: one of each of so many equal parts, at a place that looks random."""
    part = np.arange(chosen + 1, dtype=np.int64) * pixels // max(1, chosen)
    # Multiples of the golden ratio, of which no two agree with the width of an image.
    share = np.arange(chosen, dtype=np.float64) * 0.6180339887498949 % 1
    return part[:-1] + (share * np.diff(part)).astype(np.int64)
