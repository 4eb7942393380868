"""Levels of a score from sums of fixed size, so that memory does not grow with the data and processes can add up.

The entries and the ways of averaging are those of ``rankseg_plugins.scores.levels``; here their sums are kept instead
of the entries. The worst-case levels need the distribution of the scores, kept as histograms with a count and a sum in
each bin: exact unless the worst share ends inside a bin, and never off by more than the width of a bin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import ABSENT
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.areas import Areas
from rankseg_plugins.scores.checks import as_tuple, check_index
from rankseg_plugins.scores.levels import LEVELS, SCORES, entries, lowest

#: Bins of the histograms. There is one of images and one for each class, of which a data set may have hundreds.
BINS = {"image": 100_000, "class": 1000}
Scores = tuple[str, ...]


def check_options(
    num_classes: int,
    score: str | Sequence[str],
    levels: str | Sequence[str],
    ignore_index: int | None,
    absent: str,
    worst: float | Sequence[float] | None,
) -> tuple[Scores, tuple[str, ...], tuple[float, ...]]:
    """Check the options of a multi-level score; return scores, levels and worst shares as tuples.

    Raises:
        TypeError: for a value of the wrong type.
        ValueError: for a value that is unknown or out of range.
    """
    if not isinstance(num_classes, int) or isinstance(num_classes, bool):
        raise TypeError(f"num_classes must be an integer, got {num_classes!r}")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    check_index("ignore_index", ignore_index)
    scores, levels = as_tuple("score", score, str), as_tuple("levels", levels, str)
    shares = () if worst is None else as_tuple("worst", worst, (int, float))
    for name, given, allowed in (("score", scores, SCORES), ("levels", levels, LEVELS)):
        for value in given:
            check_choice(name, value, tuple(allowed))
        if not given or len(set(given)) < len(given):
            raise ValueError(f"{name} must name each choice once and at least one, got {given}")
    check_choice("absent", absent, tuple(ABSENT))
    for share in shares:
        if not 0 < share <= 1:
            raise ValueError(f"worst must be a share in (0, 1], got {share}")
    shown = [f"{100 * share:g}" for share in shares]
    if len(set(shown)) < len(shown):
        raise ValueError(f"worst must hold shares that differ within six digits, got {shares}")
    if shares and levels == ("dataset",):
        raise ValueError("worst needs the level 'image' or 'class', got levels=('dataset',)")
    return scores, levels, shares


def worst_name(score: str, level: str, share: float) -> str:
    """Key of a worst-case level.

    Example:
        >>> worst_name("dice", "image", 0.05)
        'dice_image_worst5'
    """
    return f"{score}_{level}_worst{100 * share:g}"


def level_names(scores: Scores, levels: tuple[str, ...], worst: tuple[float, ...]) -> list[str]:
    """Keys of every level of every score, in order."""
    names = []
    for score in scores:
        for level in levels:
            shares = worst if level != "dataset" else ()
            names += [f"{score}_{level}", *(worst_name(score, level, share) for share in shares)]
    return names


def empty_sums(num_classes: int, scores: Scores, with_histogram: bool) -> dict[str, Tensor]:
    """Sums of no image at all, by name."""
    kinds = len(scores)
    sums = {name: torch.zeros(num_classes, dtype=torch.int64) for name in Areas._fields}
    sums |= {
        "image_sum": torch.zeros(kinds, dtype=torch.float64),
        "image_count": torch.zeros(kinds, dtype=torch.int64),
        "class_sum": torch.zeros(kinds, num_classes, dtype=torch.float64),
        "class_count": torch.zeros(kinds, num_classes, dtype=torch.int64),
    }
    if with_histogram:
        for level, rows in (("image", 1), ("class", num_classes)):
            sums[f"{level}_bin_count"] = torch.zeros(kinds, rows, BINS[level], dtype=torch.int64)
            sums[f"{level}_bin_sum"] = torch.zeros(kinds, rows, BINS[level], dtype=torch.float64)
    return sums


def sums_of(areas: Areas, scores: Scores, absent: str, with_histogram: bool) -> dict[str, Tensor]:
    """Sums over one batch, by name."""
    tables = torch.stack([entries(areas, SCORES[score], absent=absent) for score in scores])  # (scores, B, C)
    images = tables.nanmean(2, keepdim=True)
    sums = {name: count.sum(0) for name, count in zip(Areas._fields, areas, strict=True)}
    sums |= {
        "image_sum": images.nansum((1, 2)),
        "image_count": (~images.isnan()).sum((1, 2)),
        "class_sum": tables.nansum(1),
        "class_count": (~tables.isnan()).sum(1),
    }
    if with_histogram:
        for level, values in (("image", images), ("class", tables)):
            sums[f"{level}_bin_count"], sums[f"{level}_bin_sum"] = _histogram(values.transpose(1, 2), BINS[level])
    return sums


def levels_of(
    sums: dict[str, Tensor],
    scores: Scores,
    levels: tuple[str, ...],
    absent: str,
    worst: tuple[float, ...],
) -> dict[str, Tensor]:
    """Every level of every score as a float64 scalar, NaN where nothing was there to score."""
    pooled = Areas(*(sums[name] for name in Areas._fields))
    result = {}
    for index, score in enumerate(scores):
        means = {
            "dataset": entries(pooled, SCORES[score], absent=absent),
            "image": sums["image_sum"][index] / sums["image_count"][index],
            "class": sums["class_sum"][index] / sums["class_count"][index],
        }
        for level in levels:
            result[f"{score}_{level}"] = means[level].nanmean()
            for share in worst if level != "dataset" else ():
                mean = _mean_of_lowest(sums[f"{level}_bin_count"][index], sums[f"{level}_bin_sum"][index], share)
                result[worst_name(score, level, share)] = mean.nanmean()
    return result


def _histogram(values: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Counts and sums per bin over the last dimension of (scores, rows, N); NaN is left out."""
    known = ~values.isnan()
    values = values.nan_to_num(0.0)
    index = (values * bins).long().clamp(max=bins - 1)
    count = torch.zeros(*values.shape[:2], bins, dtype=torch.int64, device=values.device)
    total = torch.zeros(*values.shape[:2], bins, dtype=torch.float64, device=values.device)
    return count.scatter_add_(2, index, known.long()), total.scatter_add_(2, index, values)


def _mean_of_lowest(count: Tensor, total: Tensor, share: float) -> Tensor:
    """Mean of the lowest ``share`` of each row's scores, rounded up to whole entries; NaN for a row without any."""
    wanted = lowest(count.sum(1, keepdim=True), share)
    before = count.cumsum(1) - count
    taken = (wanted - before).clamp(min=0).minimum(count)
    return (taken * total / count.clamp(min=1)).sum(1) / wanted[:, 0]
