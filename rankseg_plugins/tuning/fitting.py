"""Candidates that are fitted to the images before they race, which takes one more pass over the images."""

from __future__ import annotations

from collections.abc import Sequence

from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.tuning.candidates import Candidate, GlobalCandidates, read_aggregation_levels
from rankseg_plugins.tuning.presence import PresenceCandidates

#: Options that only image-by-image candidates have.
SAMPLEWISE = ("pruning_probs", "solvers", "presence")


class Fitting:
    """What is fitted before a race; see ``Tuner.fitting``, which makes one.

    Args:
        by_image: those that know which classes are there; None: none.
        of_all: rules for the whole data set; None: none.
        samplewise: whether the candidates that need no fit race, too.

    Attributes:
        names: of the candidates, in the order in which they race.
        checks: whether ``update`` refuses every image that the race would.
        conditions: what else than the images decides what is fitted, as values that JSON holds.
    """

    def __init__(self, by_image: PresenceCandidates | None, of_all: GlobalCandidates | None, samplewise: bool) -> None:
        self._by_image, self._of_all, self.samplewise = by_image, of_all, samplewise
        self._parts = [each for each in (by_image, of_all) if each is not None]
        self.names = tuple(name for each in self._parts for name in each.names)
        # A rule for the whole data set does not look at labels.
        self.checks = by_image is not None
        self.conditions = {} if by_image is None else by_image.conditions

    def check_number(self, images: int) -> None:
        """Raise a ``ValueError`` unless there are enough images to fit to."""
        if self._of_all is not None:
            self._of_all.check_number(images)

    def update(self, sample: Sample, number: int | None = None) -> None:
        """Take note of an image.

        Args:
            sample: the image.
            number: among the images of all processes; None counts those of this one.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if probabilities or labels are not valid or do not fit.
        """
        for each in self._parts:
            each.update(sample, number)

    def gather(self) -> None:
        """Bring the images of all processes together on each of them, in the order of their numbers; then all fit."""
        for each in self._parts:
            each.gather()

    def fit(self) -> dict[str, Candidate]:
        """The fitted candidates by name.

        Raises:
            ValueError: if there were too few images.
        """
        return {name: found for each in self._parts for name, found in each.fit().items()}


def check_levels(aggregation_levels: object, given: Sequence[str], prefix: str = "") -> list[str]:
    """The aggregation levels, if no option was given that none of them uses.

    Args:
        aggregation_levels: ``"samplewise"``, ``"global"`` or both.
        given: those of ``SAMPLEWISE`` that were given.
        prefix: of the names in messages.

    Raises:
        TypeError: unless they are a list of strings.
        ValueError: for none, an unknown one or one twice; or for an option that is not used.

    Example:
        >>> check_levels(["global"], ["solvers"])
        Traceback (most recent call last):
            ...
        ValueError: solvers is an option of 'samplewise' candidates, which aggregation_levels leaves out
    """
    levels = read_aggregation_levels(aggregation_levels)
    if len(set(levels)) < len(levels):
        raise ValueError(f"aggregation_levels must differ, got {', '.join(levels)}")
    if given and "samplewise" not in levels:
        raise ValueError(
            f"{prefix}{given[0]} is an option of 'samplewise' candidates, which aggregation_levels leaves out"
        )
    return levels
