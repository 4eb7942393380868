"""Tables in the style that MMSegmentation's own metrics print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from prettytable import PrettyTable
from torch import Tensor


def percent(scores: Tensor | np.ndarray) -> float:
    """Mean of the known scores in percent, rounded to two digits; NaN if none is known.

    Args:
        scores: scores of any shape, in [0, 1] or NaN. Mean and rounding keep their precision, as in ``IoUMetric``.

    Example:
        >>> percent(np.array([0.25, np.nan, 0.5]))
        37.5
    """
    array = np.asarray(scores)
    if np.isnan(array).all():
        return float("nan")
    # The second rounding takes what float32 leaves behind the two digits: 33.12, not 33.119998931884766.
    return round(float(np.round(np.nanmean(array) * 100, 2)), 2)


def class_table(classes: Sequence[str], scores: Sequence[str], decisions: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per class; for each score a column per decision, and their difference if there are two.

    Args:
        classes: names of the C classes.
        scores: names of the scores that are shown.
        decisions: for each decision by name, its scores by name: (C,) arrays in [0, 1] or NaN.

    Returns:
        The table as text.
    """
    table = PrettyTable()
    table.add_column("Class", list(classes))
    for score in scores:
        columns = {title: np.round(entries[score] * 100, 2) for title, entries in decisions.items()}
        for title, column in _with_difference(columns).items():
            table.add_column(score if len(decisions) == 1 else f"{score} {title}", list(column))
    found: str = table.get_string()
    return found


def level_table(summaries: Mapping[str, Mapping[str, float]], images: Mapping[str, Mapping[str, Tensor]]) -> str:
    """One row per score; a column per decision, and for two decisions their differences.

    Args:
        summaries: for each decision by name, one or two of them, its scores in percent by name.
        images: for each decision, by score, (B,) scores of the images; they belong to the summary's ``image_m<score>``.

    Returns:
        The table as text. For two decisions it says on how many images the second is better and worse than the first.
    """
    table = PrettyTable()
    names = list(next(iter(summaries.values())))
    table.add_column("Score", names)
    columns = {title: np.array(list(summary.values())) for title, summary in summaries.items()}
    for title, column in _with_difference(columns).items():
        table.add_column(title, [f"{value:.2f}" for value in column])
    if len(summaries) == 2:
        first, second = images.values()
        for title, sign in (("images better", 1), ("images worse", -1)):
            counts = {f"image_m{score}": int((sign * (second[score] - first[score]) > 0).sum()) for score in first}
            table.add_column(title, [counts.get(name, "") for name in names])
    found: str = table.get_string()
    return found


def _with_difference(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if len(columns) == 1:
        return columns
    first, second = columns.values()
    return {**columns, "difference": np.round(second - first, 2)}
