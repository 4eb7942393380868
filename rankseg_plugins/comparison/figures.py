"""Figures of decoders on the same images: scores at every level, paired differences, intervals, wins and losses.

The first decoder is the *baseline*, and every difference is that of another decoder minus the baseline on the same
images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.comparison.blocks.expected import expected_image_scores
from rankseg_plugins.comparison.blocks.extra import ExtraFigures, extra_entries, extra_figures
from rankseg_plugins.comparison.blocks.groups import (
    Groups,
    check_groups,
    read_groups,
)
from rankseg_plugins.comparison.blocks.presence import Presence, describe_presence
from rankseg_plugins.comparison.intervals.levels import Differences, level_differences
from rankseg_plugins.comparison.intervals.statistics import check_confidence, sign_test, wilcoxon
from rankseg_plugins.comparison.measuring import Measurement, first_alike, to_areas
from rankseg_plugins.comparison.paired import Paired
from rankseg_plugins.comparison.pictures.colours import check_palette
from rankseg_plugins.comparison.pictures.examples import Example
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.core.inputs.options import PRESENT
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.areas import Areas
from rankseg_plugins.scores.extra import ExtraScore
from rankseg_plugins.scores.levels import LEVELS, SCORES, accuracy, class_table, worst
from rankseg_plugins.scores.risk_coverage import RiskCoverage, risk_coverage

WORST = 0.1


@dataclass(frozen=True, repr=False)
class Figures:
    """Every figure of what decoders scored on the same images; ``Comparison`` explains the fields, and adds words."""

    decoders: tuple[str, ...]
    classes: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    scoring: Scoring = field(default_factory=Scoring)
    calibration: Calibration | None = None
    improved: tuple[Example, ...] = ()
    damaged: tuple[Example, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    confidence: float = 0.95
    presence: Presence = field(default_factory=dict)
    extra: tuple[ExtraScore, ...] = ()
    groups: Groups = field(default_factory=dict)
    palette: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if not self.measurements:
            raise ValueError("nothing to compare: no image was scored")
        _check_names(self.names)
        check_confidence(self.confidence)
        object.__setattr__(self, "groups", read_groups(self.groups))
        check_groups(self.groups, ((each.name, each.case) for each in self.measurements))
        if self.palette is not None:
            check_palette(self.palette, len(self.classes))

    @property
    def names(self) -> tuple[str, ...]:
        """The images."""
        return tuple(each.name for each in self.measurements)

    @property
    def candidates(self) -> tuple[str, ...]:
        """All decoders but the baseline."""
        return self.decoders[1:]

    @cached_property
    def cases(self) -> np.ndarray:
        """Index of the case of every image, (N,) from 0.

        Example:
            >>> from rankseg_plugins.comparison import Sample, compare
            >>> probs, labels = torch.tensor([[0.9, 0.2], [0.1, 0.8]]), torch.tensor([0, 1])
            >>> samples = [Sample(name, probs, labels, case=name[0]) for name in ("a1", "a2", "b1")]
            >>> compare(samples).cases
            array([0, 0, 1])
        """
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(each.case, len(numbers)) for each in self.measurements])

    @property
    def scored_classes(self) -> tuple[str, ...]:
        """Names of the classes that count."""
        return tuple(self.classes[label] for label in self.scoring.kept(len(self.classes)))

    @cached_property
    def seconds(self) -> np.ndarray:
        """Decode time of every decoder and image, (decoders, N)."""
        return np.stack([each.seconds for each in self.measurements], 1)

    @cached_property
    def _counts(self) -> np.ndarray:
        counts = np.stack([each.counts for each in self.measurements], 2)
        return counts[..., self.scoring.kept(len(self.classes))]

    @cached_property
    def _areas(self) -> dict[str, Areas]:
        return dict(zip(self.decoders, map(to_areas, self._counts), strict=True))

    def areas(self, decoder: str) -> Areas:
        """Counts of every image and scored class, (N, classes).

        Raises:
            ValueError: if ``decoder`` is not one of ``decoders``.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> compare([("a", probs, torch.tensor([0, 1, 1]))]).areas("argmax")
            Areas(intersection=tensor([[1, 1]]), prediction=tensor([[2, 1]]), label=tensor([[1, 2]]))
        """
        check_choice("decoder", decoder, self.decoders)
        return self._areas[decoder]

    def level(self, decoder: str, score: str, level: str) -> float:
        """One score at one level.

        Args:
            decoder: its name.
            score: ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"`` or ``"accuracy"``.
            level: ``"dataset"``, ``"image"`` or ``"class"``; with the first four also ``"worst"``, the mean of the
                lowest tenth of the images.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))])
            >>> found.level("argmax", "dice", "image"), found.level("argmax", "iou", "dataset")
            (0.6666666666666666, 0.5)
        """
        areas = self.areas(decoder)
        if score == "accuracy":
            return accuracy(areas, level).item()
        if level == "worst":
            scores = replace(self.scoring, score=score).image_scores(areas)
            return worst(torch.from_numpy(scores), WORST).item()
        return LEVELS[level](areas, SCORES[score], self.scoring.present, self.scoring.absent).item()

    def presence_of(self, decoder: str) -> dict[str, Any] | None:
        """How likely a decoder took the scored classes to be there, against how often they are; None if it knows not.

        See ``rankseg_plugins.comparison.blocks.presence.describe_presence``.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> knowing = "presence(frequencies=[0.9,0.8])"
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))], ["argmax", knowing])
            >>> found.presence_of(knowing)["frequency"], found.presence_of("argmax")
            ([1.0, 1.0], None)
        """
        kept, found = self.scoring.kept(len(self.classes)), self.presence.get(decoder)
        return None if found is None or not found.count[kept].any() else describe_presence(found, kept)

    def class_table(self, decoder: str) -> dict[str, np.ndarray]:
        """Every score of every scored class; see ``rankseg_plugins.scores.levels.class_table``.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> table = compare([("a", probs, torch.tensor([0, 1, 1]))]).class_table("argmax")
            >>> table["precision_class"], table["recall_class"]
            (array([0.5, 1. ]), array([1. , 0.5]))
        """
        table = class_table(self.areas(decoder), self.scoring.present, self.scoring.absent)
        return {name: column.numpy() for name, column in table.items()}

    @cached_property
    def differences(self) -> Differences:
        """Differences to the baseline with their intervals, at every level and of every class.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> samples = [(name, probs, torch.tensor([0, 1, 1])) for name in "ab"]
            >>> compare(samples).differences.levels["dice", "image"]  # and no interval of so few
            array([[ 0., nan, nan]])
        """
        return level_differences(self._counts, self.cases, self.scoring, self.confidence, self._alike)

    @cached_property
    def _firsts(self) -> list[int]:
        """Of every decoder, the first that decided as it did in every image, which is itself if nobody looked."""
        return first_alike(self.measurements, len(self.decoders))

    @cached_property
    def _alike(self) -> np.ndarray:
        """Of every candidate, whether it decided as the baseline did in every image."""
        return np.array([first == 0 for first in self._firsts[1:]])

    @cached_property
    def distinct(self) -> tuple[str, ...]:
        """Candidates that decided otherwise than all decoders before them in some image; the first one if none did.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))], ["argmax", "rankseg", "rankseg(metric=iou)"])
            >>> found.distinct  # both decide as argmax does here
            ('rankseg',)
        """
        found = (name for place, name in enumerate(self.decoders) if place and self._firsts[place] == place)
        return tuple(found) or self.candidates[:1]

    def decides_as(self, decoder: str) -> str | None:
        """The first decoder before this one that gave its very labels, or masks, in every image; None if none did.

        Args:
            decoder: one of ``decoders``.

        Raises:
            ValueError: if it is not one of them.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))], ["argmax", "rankseg", "rankseg(metric=iou)"])
            >>> [found.decides_as(name) for name in found.decoders]
            [None, 'argmax', 'argmax']
        """
        check_choice("decoder", decoder, self.decoders)
        place = self.decoders.index(decoder)
        return None if self._firsts[place] == place else self.decoders[self._firsts[place]]

    def decides_alike(self, decoder: str) -> bool:
        """Whether a decoder gave the very labels, or masks, of the baseline in every image; False if nobody looked.

        Args:
            decoder: one of ``candidates``.

        Raises:
            ValueError: if it is not one of them.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> sure = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
            >>> compare([("a", sure, torch.tensor([0, 1]))]).decides_alike("rankseg(metric=dice)")
            True
        """
        check_choice("decoder", decoder, self.candidates)
        return bool(self._alike[self.candidates.index(decoder)])

    @cached_property
    def _by_present(self) -> dict[str, Self]:
        scorings = {present: replace(self.scoring, present=present, absent="skip") for present in PRESENT}
        return {
            present: self if scoring == self.scoring else replace(self, scoring=scoring)
            for present, scoring in scorings.items()
        }

    def under(self, present: str) -> Self:
        """The same images scored where other classes count, and absent ones are left out.

        Args:
            present: ``"union"`` or ``"label"``; see ``Scoring``.

        Raises:
            ValueError: for another one.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> found = compare([("a", probs, torch.tensor([0, 0, 0]))])
            >>> [found.under(present).level("argmax", "dice", "image") for present in ("union", "label")]
            [0.4, 0.8]
        """
        check_choice("present", present, PRESENT)
        return self._by_present[present]

    @cached_property
    def expected_scores(self) -> np.ndarray | None:
        """What every decoder is expected to score on every image, (decoders, N) float64; None where none was asked for.

        See ``rankseg_plugins.comparison.blocks.expected``.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))], risk_coverage=True)
            >>> found.expected_scores.round(2)
            array([[0.73],
                   [0.73]])
        """
        found = [each.expected for each in self.measurements if each.expected is not None]
        return expected_image_scores(np.stack(found, 1), self.scoring) if len(found) == len(self.names) else None

    def risk_coverage(self, decoder: str) -> RiskCoverage:
        """Which images can be trusted: the risk-coverage curve in the order of what a decoder is expected to score.

        Raises:
            ValueError: if it is not one of ``decoders``, or the comparison was made without ``risk_coverage=True``.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> sure, unsure = torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([[0.6, 0.4], [0.4, 0.6]])
            >>> samples = [("a", sure, torch.tensor([0, 1])), ("b", unsure, torch.tensor([0, 0]))]
            >>> compare(samples, risk_coverage=True).risk_coverage("argmax").risk
            array([0.        , 0.33333333])
        """
        if self.expected_scores is None:
            raise ValueError("risk_coverage needs a comparison that was made with risk_coverage=True")
        scores = self.scoring.image_scores(self.areas(decoder))
        return risk_coverage(self.expected_scores[self.decoders.index(decoder)], scores)

    @cached_property
    def extra_entries(self) -> np.ndarray:
        """Figures of the extra scores, (decoders, K, N, scored classes); NaN where there is none.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> from rankseg_plugins.scores.lesions import Lesions
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))], extra=Lesions())
            >>> found.extra_entries.shape  # two decoders; recall, precision and F1; one image; two classes
            (2, 3, 1, 2)
        """
        values = np.stack([each.extra for each in self.measurements if each.extra is not None])
        counts = np.stack([each.counts for each in self.measurements], 2)
        return extra_entries(values, [to_areas(each) for each in counts], self.extra, self.scoring)

    @cached_property
    def extra_figures(self) -> ExtraFigures:
        """Means of the extra scores, and differences to the baseline with their intervals.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> from rankseg_plugins.scores.lesions import Lesions
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> found = compare([("a", probs, torch.tensor([1, 0, 1]))], extra=Lesions(classes=(1,)))
            >>> found.extra_figures.means[0].round(4)  # recall, precision and F1 of argmax
            array([0.5   , 1.    , 0.6667])
        """
        return extra_figures(self.extra_entries, self.extra, self.cases, self.confidence, self._alike)

    def paired(self, decoder: str) -> Paired:
        """One decoder against the baseline, image by image, in the score of ``scoring``.

        Args:
            decoder: one of ``candidates``.

        Raises:
            ValueError: if it is not one of them.

        Example:
            >>> from rankseg_plugins.comparison import compare
            >>> probs, labels = torch.tensor([[0.9, 0.55], [0.1, 0.45]]), torch.tensor([0, 1])
            >>> compare([("a", probs, labels)], panels=0).paired("rankseg(metric=dice)").differences
            array([0.])
        """
        check_choice("decoder", decoder, self.candidates)
        baseline, scores = (self.scoring.image_scores(self.areas(each)) for each in (self.decoders[0], decoder))
        known = ~np.isnan(baseline) & ~np.isnan(scores)
        gains = (scores - baseline)[known]
        cases = np.unique(self.cases[known], return_inverse=True)[1]
        by_case = np.bincount(cases, gains) / np.bincount(cases) if len(gains) else gains
        low, high = self.differences.paired[self.candidates.index(decoder)]
        names = tuple(name for name, is_known in zip(self.names, known, strict=True) if is_known)
        p_values = (wilcoxon(by_case), sign_test(by_case))
        return Paired(names, baseline[known], scores[known], (float(low), float(high)), *p_values)


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"two images are called {twice!r}: names must differ")
