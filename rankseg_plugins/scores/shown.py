"""Which classes a decision shows: where it leaves out some that another one shows, rightly or wrongly."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rankseg_plugins.scores.areas import Areas


class LeftOut(NamedTuple):
    """Images, of every class (C,), that a baseline shows a class in; the numbers of several sets of images add up.

    Args:
        found: where the truth holds it.
        missed: of these, where the decision leaves it out.
        spared: where the truth does not hold it and the decision leaves it out.
    """

    found: Tensor
    missed: Tensor
    spared: Tensor

    def plus(self, other: LeftOut) -> LeftOut:
        """Of both sets of images."""
        return LeftOut(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def left_out(baseline: Areas, decided: Areas) -> LeftOut:
    """Count where a decision leaves out classes that a baseline shows.

    Args:
        baseline: counts (B, C).
        decided: of the same images.

    Example:
        >>> import torch
        >>> shows, hides, label = torch.tensor([[3, 2]]), torch.tensor([[5, 0]]), torch.tensor([[4, 1]])
        >>> left_out(Areas(label * 0, shows, label), Areas(label * 0, hides, label)).missed
        tensor([0, 1])
    """
    hidden = (baseline.prediction > 0) & (decided.prediction == 0)
    there = baseline.label > 0
    found = there & (baseline.prediction > 0)
    return LeftOut(*(each.sum(0) for each in (found, hidden & there, hidden & ~there)))
