"""RMA and the greedy multiclass rule, stated once over four steps, which every device takes in its own way.

1. **Survey**: one look at every probability finds sum and maximum of every class, and bounds of its threshold.
2. **Collect** the few pixels between the bounds, and finish on these alone. The best mask of a ratio of linear
   functions is ``{p > threshold}``; Dinkelbach's iteration finds the threshold from count and sum of the pixels above
   the current one. Dice with ``smooth > 0`` is a ratio and a little more: its best mask lacks some of the least
   probable pixels of the ratio's, if any, and only these are ranked.
3. **Choose**: a pixel that exactly one class selected keeps it. These pixels fix, for each class, a mask of ``t``
   pixels that sum to ``m``.
4. **Settle**: a pixel that several classes selected goes to the one of them that gains most by it, and a pixel that no
   class selected to the active class that gains most. Equal gains: the lowest class index. A pixel without any
   probability, such as one outside of a crop, says nothing about the classes: it is labelled 0, as argmax labels it.

Source: Wang & Dai, "RankSEG-RMA", NeurIPS 2025 (the objective and the greedy rule); Dinkelbach, "On nonlinear
fractional programming", Management Science 13 (1967) (the iteration).
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.values import Values
from rankseg_plugins.core.volumes import Classes, Volumes


class Steps(Protocol):
    """The steps on some pixels: numba's, Triton's, or those of the graph; ``rankseg_plugins.core.paths`` chooses."""

    @property
    def maximum(self) -> Tensor:
        """(B, C) largest probability of every image and class; after ``search``."""

    def search(self, objective: Objective, pruning: float | Tensor) -> Volumes:
        """Survey, collect and finish: the best mask of every class whose largest probability is above ``pruning``.

        Raises:
            ValueError: for values that are no probabilities, or of which none can be made; in a graph and on an
                accelerator an assertion fails.
        """

    def labels(self, volumes: Volumes, objective: Objective, void_index: int | None) -> Tensor:
        """Choose and settle: one label per pixel, (B, d) int64.

        Args:
            volumes: the masks, those that were found or others.
            objective: whose gain settles the disputed pixels.
            void_index: label of the pixels that no class selected; None gives them to a class.
        """

    def masks(self, volumes: Volumes) -> Tensor:
        """The masks themselves, (B, C, d) bool."""

    def values(self) -> Values:
        """What other solvers look at.

        Raises:
            ValueError: as ``search``.
        """


def search(steps: Steps, objective: Objective, classes: Classes) -> Volumes:
    """The best masks of the classes that are decided on."""
    volumes = steps.search(objective, classes.pruning)
    return volumes if classes.choose is None else classes.choose(steps.maximum, volumes)
