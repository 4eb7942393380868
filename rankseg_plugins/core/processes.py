"""Several processes that share the work: what each of them holds, and random numbers of its own."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def seed_of_process(seed: int) -> int:
    """The first process draws the keys that a single one does, every other keys of its own."""
    distributed = torch.distributed
    running = distributed.is_available() and distributed.is_initialized()
    return seed + 1_000_003 * (distributed.get_rank() if running else 0)


def gather(ours: T) -> list[T]:
    """What every process holds, by rank, on each of them; in one process that alone. All of them must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [ours]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, ours)
    return parts
