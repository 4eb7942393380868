"""Several processes that share the work: what each of them does and holds, and random numbers of its own."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def _is_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Which of the processes this is, from 0; the only one is 0."""
    return torch.distributed.get_rank() if _is_group() else 0


def number() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if _is_group() else 1


def share() -> slice:
    """What this process does of a list that all of them hold: one element of as many as there are processes.

    Example:
        >>> list("abc")[share()]  # in a single process
        ['a', 'b', 'c']
    """
    return slice(rank(), None, number())


def seed_of_process(seed: int) -> int:
    """The first process draws the keys that a single one does, every other keys of its own."""
    return seed + 1_000_003 * rank()


def gather(ours: T) -> list[T]:
    """What every process holds, by rank, on each of them; in one process that alone. All of them must call it."""
    if not _is_group():
        return [ours]
    parts: list[Any] = [None] * number()
    torch.distributed.all_gather_object(parts, ours)
    return parts


def from_first(ours: T) -> T:
    """What the first process holds, on each of them. All of them must call it."""
    if not _is_group():
        return ours
    held = [ours]
    torch.distributed.broadcast_object_list(held, src=0)
    return held[0]
