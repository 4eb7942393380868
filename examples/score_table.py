"""Scores as small tables: those of RankSEGCallbacks, and those of the same images decided in several ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from rankseg_plugins.scores import areas, levels

if TYPE_CHECKING:
    from rankseg_plugins.lightning import RankSEGCallback


def print_scores(callbacks: Mapping[str, RankSEGCallback], stage: str) -> None:
    """Print the last scores of a stage (``"val"`` or ``"test"``) of one dataloader, in percent.

    Args:
        callbacks: by the name of what they decide by; the same scores of the same images.
        stage: of the Trainer.
    """
    columns = {name: _by_score(callback, stage) for name, callback in callbacks.items()}
    print(f"{'score, %':24}{'argmax':>8}" + "".join(f"{name:>9}{'gain':>8}" for name in columns))
    for score, (argmax, _, _) in next(iter(columns.values())).items():
        values = "".join(
            f"{100 * ours:9.2f}{100 * gain:+8.2f}" for _, ours, gain in (c[score] for c in columns.values())
        )
        print(f"{score:24}{100 * argmax:8.2f}{values}")


def _by_score(callback: RankSEGCallback, stage: str) -> dict[str, tuple[float, float, float]]:
    """Argmax, the decoder and its gain."""
    scores, start = callback.scores_of_stage[stage], f"{stage}/{callback.prefix}/"
    found = {}
    for name, ours in scores.items():
        score = name.removeprefix(start)
        argmax, gain = scores.get(f"{start}argmax/{score}"), scores.get(f"{start}gain/{score}")
        if argmax is not None and gain is not None:  # others are no scores, such as the number of images left out
            found[score] = (argmax, ours, gain)
    return found


def print_decisions(decisions: Mapping[str, Tensor], truth: Tensor, num_classes: int) -> None:
    r"""Print a column for each way of deciding, in percent.

    Args:
        decisions: by the name of the way, labels (B, \*spatial), or bool masks (B, C, \*spatial).
        truth: labels (B, \*spatial), or integer masks (B, C, \*spatial) of zeros and ones.
        num_classes: C.
    """
    counts = {name: areas(decided, truth, num_classes) for name, decided in decisions.items()}
    print_columns(
        {
            name: {
                f"{score}_{level}": 100 * float(function(each, levels.SCORES[score]))
                for score in ("dice", "iou")
                for level, function in levels.LEVELS.items()
            }
            for name, each in counts.items()
        }
    )


def print_columns(columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print a column for each way of deciding.

    Args:
        columns: by the name of the way, its scores in percent by their names; the same of each.
    """
    width = max(16, *(len(score) + 2 for score in next(iter(columns.values()))))
    print(f"{'score, %':{width}}" + "".join(f"{name:>{_width(name)}}" for name in columns))
    for score in next(iter(columns.values())):
        row = "".join(f"{values[score]:{_width(name)}.2f}" for name, values in columns.items())
        print(score.ljust(width) + row)


def _width(name: str) -> int:
    return max(9, len(name) + 2)
