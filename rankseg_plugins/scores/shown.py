"""Which classes a decision shows: where it leaves out some that another one shows, rightly or wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rankseg_plugins.scores.areas import Areas

#: A class is said to be left out where it is missed in this share of the images that hold it and showed it, and in so
#: many of them, and more often than it is left out rightly.
SHARE, FEWEST = 0.2, 2
#: Classes that a sentence names.
NAMED = 5


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


def describe_left_out(found: LeftOut, classes: Sequence[str], decoder: str, baseline: str = "argmax") -> str | None:
    """A sentence on the classes that a decision leaves out though they are there; None if there are none.

    Args:
        found: what :func:`left_out` counted.
        classes: C names.
        decoder: what made the decision.
        baseline: what shows the classes.

    Example:
        >>> import torch
        >>> counted = LeftOut(torch.tensor([40, 9]), torch.tensor([34, 0]), torch.tensor([2, 0]))
        >>> describe_left_out(counted, ["sign", "road"], "rankseg")[:83]
        'rankseg leaves out classes that are there and argmax shows: sign in 34 of 40 images'
    """
    least = (SHARE * found.found).clamp(min=FEWEST)
    vanish = (found.missed >= least) & (found.missed > found.spared)
    rows = [(classes[label], int(found.missed[label]), int(found.found[label])) for label in vanish.nonzero().flatten()]
    if not rows:
        return None
    rows.sort(key=lambda row: -row[1])
    named = ", ".join(f"{name} in {missed} of {held} images" for name, missed, held in rows[:NAMED])
    more = f", and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return (
        f"{decoder} leaves out classes that are there and {baseline} shows: {named}{more}. With RankSEG a lower "
        "pruning_prob, such as 0.1, shows them; PresenceRankSEG learns from labels like these which classes an image "
        "holds. tune() tries both"
    )
