"""Decoders compared on identical probabilities: paired differences, intervals, wins and losses, calibration.

Images stream by: of each, only its counts stay. The first decoder is the *baseline*, and every difference is that of
another decoder minus the baseline on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.evaluation.areas import Areas
from rankseg_plugins.evaluation.calibration import Calibration
from rankseg_plugins.evaluation.decoders import Decoder, NamedDecoder, named_decoders
from rankseg_plugins.evaluation.examples import Example, Extremes
from rankseg_plugins.evaluation.intervals import Differences, level_differences
from rankseg_plugins.evaluation.levels import LEVELS, SCORES, accuracy, class_table, worst
from rankseg_plugins.evaluation.measuring import Measurement, Sample, Scoring, measure, to_areas
from rankseg_plugins.evaluation.statistics import sign_test, wilcoxon
from rankseg_plugins.evaluation.truth import count, to_truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECODERS = ("argmax", "rankseg(metric=dice)")
WORST = 0.1


class Paired(NamedTuple):
    """One decoder against the baseline, image by image.

    Args:
        names: the images on which both have a score.
        baseline: (N,) scores of the baseline.
        scores: (N,) scores of the decoder.
        interval: bootstrap interval of the mean difference.
        wilcoxon: p-value of Wilcoxon's signed-rank test on the mean differences of the cases.
        sign: p-value of the sign test on them.
    """

    names: tuple[str, ...]
    baseline: np.ndarray
    scores: np.ndarray
    interval: tuple[float, float]
    wilcoxon: float
    sign: float

    @property
    def differences(self) -> np.ndarray:
        """Gain of every image, (N,); below 0 it got worse."""
        return self.scores - self.baseline

    @property
    def mean(self) -> float:
        """Mean gain, NaN without images."""
        return float(self.differences.mean()) if len(self.names) else float("nan")

    @property
    def wins(self) -> int:
        """Images that got better."""
        return int((self.differences > 0).sum())

    @property
    def losses(self) -> int:
        """Images that got worse."""
        return int((self.differences < 0).sum())

    @property
    def ties(self) -> int:
        """Images whose score is the same."""
        return len(self.names) - self.wins - self.losses

    def improvements(self, count: int = 5) -> list[tuple[str, float]]:
        """Name and gain of the images with the largest gains above 0, the largest first."""
        order = np.argsort(-self.differences, kind="stable")[:count]
        return [(self.names[i], float(self.differences[i])) for i in order if self.differences[i] > 0]

    def regressions(self, count: int = 5) -> list[tuple[str, float]]:
        """Name and gain of the images with the largest losses, the largest first."""
        order = np.argsort(self.differences, kind="stable")[:count]
        return [(self.names[i], float(self.differences[i])) for i in order if self.differences[i] < 0]


@dataclass(frozen=True)
class Comparison:
    """What decoders scored on the same images, see :func:`compare`.

    Args:
        decoders: names, the baseline first.
        classes: names of all C classes.
        measurements: one for each image.
        scoring: what counts as better.
        calibration: of the probabilities of all images; None where there were none.
        improved: pictures of the images that the second decoder improves most.
        damaged: pictures of those that it damages most.
        skipped: images that could not be read or scored, and why.
        facts: how the comparison was made: versions, options, inputs.
        resamples: number of bootstrap resamples.
        confidence: of the intervals.
        seed: of the resamples.
    """

    decoders: tuple[str, ...]
    classes: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    scoring: Scoring = field(default_factory=Scoring)
    calibration: Calibration | None = None
    improved: tuple[Example, ...] = ()
    damaged: tuple[Example, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    resamples: int = 10_000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.measurements:
            raise ValueError("nothing to compare: no image was scored")
        _check_names(self.names)

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
        """Index of the case of every image, (N,) from 0."""
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

    def areas(self, decoder: str) -> Areas:
        """Counts of every image and scored class, (N, classes)."""
        return to_areas(self._counts[self.decoders.index(decoder)])

    def level(self, decoder: str, score: str, level: str) -> float:
        """One score at one level.

        Args:
            decoder: its name.
            score: ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"`` or ``"accuracy"``.
            level: ``"dataset"``, ``"image"`` or ``"class"``; with the first four also ``"worst"``, the mean of the
                lowest tenth of the images.
        """
        areas = self.areas(decoder)
        if score == "accuracy":
            return accuracy(areas, level).item()
        if level == "worst":
            scores = replace(self.scoring, score=score).image_scores(areas)
            return worst(torch.from_numpy(scores), WORST).item()
        return LEVELS[level](areas, SCORES[score], self.scoring.present, self.scoring.absent).item()

    def class_table(self, decoder: str) -> dict[str, np.ndarray]:
        """Every score of every scored class; see :func:`~rankseg_plugins.evaluation.levels.class_table`."""
        table = class_table(self.areas(decoder), self.scoring.present, self.scoring.absent)
        return {name: column.numpy() for name, column in table.items()}

    @cached_property
    def differences(self) -> Differences:
        """Differences to the baseline with bootstrap intervals, at every level and of every class."""
        options = (self.scoring, self.resamples, self.confidence, self.seed)
        return level_differences(self._counts, self.cases, *options)

    def paired(self, decoder: str) -> Paired:
        """One decoder against the baseline, image by image, in the score of :attr:`scoring`.

        Raises:
            ValueError: if ``decoder`` is not one of :attr:`candidates`.
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

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict for each image and decoder, ready for ``pandas.DataFrame``.

        It holds ``image``, ``case``, ``decoder``, ``seconds``, ``pixel_accuracy``, the image-level scores, and the
        Dice and IoU of every scored class.
        """
        from rankseg_plugins.evaluation.tables import rows

        return rows(self)

    def plot(self, decoder: str | None = None) -> Figure:
        """Draw paired differences, scatter, classes and reliability in one figure; needs matplotlib.

        Args:
            decoder: which one to draw against the baseline; None takes the second.
        """
        # Reports stand above comparisons; this is a door to them for users, nothing here needs them.
        from rankseg_plugins.evaluation.report.charts import overview

        return overview(self, decoder or self.candidates[0])

    def report(self, path: str | PathLike[str]) -> None:
        """Write ``report.html``, ``report.md``, ``report.json`` and ``images.csv`` into the folder ``path``."""
        from rankseg_plugins.evaluation.report import write_report

        write_report(self, path)


class Recorder:
    r"""Collects measurements image by image; :func:`compare` for callers who cannot hand over a loop.

    Args:
        decoders: texts such as ``"rankseg(metric=dice)"`` or callables by name; the first is the baseline.
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.
        scoring: what counts as better.
        panels: pictures to keep of the most improved images, and of the most damaged.
        device: where to decode.

    Example:
        >>> recorder = Recorder(["argmax", "rankseg"], num_classes=2)
        >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> recorder.add(Sample("a", probs, torch.tensor([0, 1, 1]))).counts[:, 0].tolist()  # intersections
        [[1, 1], [1, 1]]
        >>> recorder.comparison().names
        ('a',)
    """

    def __init__(
        self,
        decoders: Iterable[str] | Mapping[str, Decoder] = DECODERS,
        *,
        num_classes: int,
        ignore_index: int | None = None,
        scoring: Scoring | None = None,
        panels: int = 5,
        device: str | torch.device = "cpu",
    ) -> None:
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes must be an integer of at least 1, got {num_classes!r}")
        if isinstance(panels, bool) or not isinstance(panels, int) or panels < 0:
            raise ValueError(f"panels must be an integer of at least 0, got {panels!r}")
        self.decoders: dict[str, Decoder] = {
            name: each.build(num_classes) if isinstance(each, NamedDecoder) else each
            for name, each in named_decoders(decoders).items()
        }
        self.num_classes, self.ignore_index, self.device = num_classes, ignore_index, device
        self.scoring = Scoring() if scoring is None else scoring
        self._kept = self.scoring.kept(num_classes)
        self.extremes = Extremes(panels, num_classes, ignore_index)
        self.measurements: list[Measurement] = []
        self.calibration: Calibration | None = None
        self.skipped: dict[str, str] = {}

    def add(self, sample: Sample) -> Measurement:
        """Decode one image with every decoder and keep what it scored.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if probabilities or labels are not valid or do not fit.
        """
        measurement, decisions = measure(sample, self.decoders, self.num_classes, self.ignore_index, self.device)
        self._remember(measurement)
        self._offer(measurement, sample.labels, decisions)
        return measurement

    def add_decided(self, name: str, labels: Tensor, decisions: Sequence[Tensor], case: str | None = None) -> None:
        r"""Keep what an image scored that was decoded elsewhere.

        Args:
            name: of the image.
            labels: truth (\*spatial), or masks (C, \*spatial).
            decisions: of every decoder, likewise, in the order of ``decoders``.
            case: see :class:`Sample`.
        """
        if len(decisions) != len(self.decoders):
            raise ValueError(f"decisions must be one for each of {list(self.decoders)}, got {len(decisions)}")
        counted = [count(each[None], labels[None], self.num_classes, self.ignore_index) for each in decisions]
        counts = np.stack([torch.cat(list(each)).cpu().numpy() for each in counted])
        unknown = np.full(len(decisions), np.nan)
        measurement = Measurement(name, name if case is None else case, counts, unknown)
        self._remember(measurement)
        self._offer(measurement, labels, decisions)

    def picture(self, sample: Sample) -> None:
        """Decode an image that was measured by an earlier run once more, for its picture only."""
        measurement, decisions = measure(sample, self.decoders, self.num_classes, self.ignore_index, self.device)
        self._offer(measurement, sample.labels, decisions)

    def restore(self, measurement: Measurement) -> None:
        """Take over what an earlier run measured."""
        shape = (len(self.decoders), 3, self.num_classes)
        if measurement.counts.shape != shape:
            raise ValueError(f"counts of {measurement.name!r} must have shape {shape}, got {measurement.counts.shape}")
        self._remember(measurement)

    def _remember(self, measurement: Measurement) -> None:
        # The bins of thousands of images would outweigh all else; their sum is enough.
        found, so_far = measurement.calibration, self.calibration
        self.calibration = so_far if found is None else found if so_far is None else so_far + found
        self.measurements.append(replace(measurement, calibration=None))

    def gain(self, measurement: Measurement) -> float:
        """Score of an image with the second decoder minus that with the baseline; NaN where one has none."""
        baseline, second = (
            self.scoring.image_scores(to_areas(counts[:, None, self._kept])) for counts in measurement.counts[:2]
        )
        return float((second - baseline)[0])

    def _offer(self, measurement: Measurement, labels: Tensor, decisions: Sequence[Tensor]) -> None:
        spatial = tuple(decisions[0].shape[1 if decisions[0].dtype == torch.bool else 0 :])
        truth = to_truth(labels[None], self.num_classes, spatial, self.ignore_index)[0]
        self.extremes.offer(measurement.name, self.gain(measurement), truth, decisions[0], decisions[1])

    def comparison(self, class_names: Sequence[str] | None = None, **options: Any) -> Comparison:
        """Everything collected so far.

        Args:
            class_names: C names; None numbers the classes.
            **options: ``facts``, ``resamples``, ``confidence`` and ``seed`` of :class:`Comparison`.

        Raises:
            ValueError: without any image, with two of the same name, or if the class names do not fit.
        """
        return Comparison(
            tuple(self.decoders),
            check_class_names(class_names, self.num_classes),
            tuple(self.measurements),
            self.scoring,
            self.calibration,
            self.extremes.improved(),
            self.extremes.damaged(),
            dict(self.skipped),
            **options,
        )


def compare(
    samples: Iterable[Sample | tuple[str, Tensor, Tensor]],
    decoders: Iterable[str] | Mapping[str, Decoder] = DECODERS,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    scoring: Scoring | None = None,
    panels: int = 5,
    device: str | torch.device = "cpu",
    on_measured: Callable[[Measurement], None] | None = None,
    **options: Any,
) -> Comparison:
    r"""Compare decoders on the same probabilities, in one pass.

    Args:
        samples: :class:`Sample`, or tuples (name, probs, labels); any iterable, also one that loads as it goes.
        decoders: texts such as ``"argmax"`` and ``"rankseg(metric=dice)"``, or callables on probabilities
            (1, C, \*spatial) by name. The first is the baseline, the second the one that is drawn.
        num_classes: C; None takes that of the first sample.
        ignore_index: label of the truth whose pixels do not count.
        class_names: C names; None numbers the classes.
        scoring: what counts as better; None is image Dice over the classes in truth or prediction.
        panels: pictures to keep of the most improved images, and of the most damaged.
        device: where to decode.
        on_measured: called after each image.
        **options: ``facts``, ``resamples``, ``confidence`` and ``seed`` of :class:`Comparison`.

    Returns:
        The comparison. Memory grows with the number of images only by their counts: 3 integers for each decoder
        and class.

    Raises:
        TypeError: if a tensor or an option is of the wrong kind.
        ValueError: without samples, for an unknown option, or for invalid data; the message names the sample.

    Example:
        >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> samples = [("a", probs, torch.tensor([0, 1, 1])), ("b", probs, torch.tensor([0, 0, 1]))]
        >>> found = compare(samples, ["argmax", "rankseg(metric=dice)"])
        >>> found.level("argmax", "dice", "image"), found.paired("rankseg(metric=dice)").ties
        (0.8333333333333333, 2)
    """
    recorder: Recorder | None = None
    for given in samples:
        sample = given if isinstance(given, Sample) else Sample(*given)
        if recorder is None:
            classes = sample.probs.shape[0] if num_classes is None else num_classes
            recorder = Recorder(
                decoders, num_classes=classes, ignore_index=ignore_index, scoring=scoring, panels=panels, device=device
            )
        try:
            measurement = recorder.add(sample)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{sample.name}: {error}") from error
        if on_measured:
            on_measured(measurement)
    if recorder is None:
        raise ValueError("samples must hold at least one image, got none")
    return recorder.comparison(class_names, **options)


def check_class_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    """Bring class names into one form; None numbers the classes, and one class is called foreground.

    Raises:
        ValueError: if the number of names is not ``num_classes``, or two are the same.
    """
    if class_names is None:
        return ("foreground",) if num_classes == 1 else tuple(f"class {label}" for label in range(num_classes))
    names = tuple(str(name) for name in class_names)
    if len(names) != num_classes or len(set(names)) < num_classes:
        raise ValueError(f"class_names must be {num_classes} different names, got {len(names)}: {', '.join(names)}")
    return names


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"two images are called {twice!r}: names must differ")
