"""The names under which callbacks log, and what several callbacks of one Trainer must not share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankseg_plugins.lightning.loaders import default_suffix
from rankseg_plugins.lightning.reporting import BASELINE

if TYPE_CHECKING:
    from rankseg_plugins.lightning.callback import RankSEGCallback

GAIN, SKIPPED = "gain", "skipped"
#: RankSEG itself, argmax and the difference.
DECISIONS = ("", BASELINE, GAIN)


def join(*parts: str) -> str:
    """A name of its parts; empty ones are left out.

    Example:
        >>> join("val", "rankseg", "", "dice_image")
        'val/rankseg/dice_image'
    """
    return "/".join(part for part in parts if part)


def check_neighbour(one: RankSEGCallback, other: RankSEGCallback) -> None:
    """Refuse two callbacks of one Trainer of which one would overwrite what the other gives.

    Raises:
        ValueError: if a logged name, the folder of the report or ``predict_labels`` is the same.
    """
    prefixes = f"prefix={one.prefix!r} and prefix={other.prefix!r}"
    for stage in ("val", "test"):
        shared = sorted(_names(one, stage) & _names(other, stage))
        if shared:
            raise ValueError(f"the RankSEGCallbacks with {prefixes} would both log {shared[0]!r}: give other prefixes")
    if one.report is not None and other.report is not None and Path(one.report).resolve() == other.report.resolve():
        raise ValueError(f"the RankSEGCallbacks with {prefixes} need two folders, both have report={str(one.report)!r}")
    if one.predict_labels is not None and one.predict_labels == other.predict_labels:
        raise ValueError(
            f"the RankSEGCallbacks with {prefixes} need two keys, both have predict_labels={one.predict_labels!r}"
        )


def _names(callback: RankSEGCallback, stage: str) -> set[str]:
    """All that it may log, as far as it is known before there are dataloaders."""
    # The names of dataloaders come last, so that one that Lightning numbers stands for the others.
    named = [default_suffix(0)] if callback.dataloaders is None else callback.dataloaders.values()
    suffixes = ["", *(f"/{name}" for name in named)]
    return {name for suffix in suffixes for name in callback.names(stage, suffix)}
