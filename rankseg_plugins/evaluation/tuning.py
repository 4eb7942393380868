"""Choosing a decoder on validation data, with argmax in the race and no gain claimed that may be chance."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.core import GlobalRankSEG, RankSEG
from rankseg_plugins.core.options import read_integer
from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.evaluation.choosing import ARGMAX, OBJECTIVES, check_folds, choose
from rankseg_plugins.evaluation.comparison import Comparison
from rankseg_plugins.evaluation.measuring import Measurement, Sample, Scoring
from rankseg_plugins.evaluation.progress import progress_bar
from rankseg_plugins.evaluation.recording import Recorder
from rankseg_plugins.evaluation.tuned import TunedDecoder

AGGREGATION_LEVELS = ("samplewise", "global")
TEMPERATURES = (0.7, 1.0, 1.4)
PRUNING_PROBS = (0.5, 0.3, 0.1)


class Tuned(NamedTuple):
    """What tuning found.

    Args:
        decoder: the winner, or argmax.
        comparison: every candidate on all images; their gains are those of the tuning data, and so flattered.
        validated: argmax against ``"chosen"``: on each image the candidate that was best on the other folds.
        verdict: one line for people.
    """

    decoder: TunedDecoder
    comparison: Comparison
    validated: Comparison
    verdict: str

    def report(self, path: str | PathLike[str]) -> None:
        """Write ``decoder.json``, and ``report.html``, ``report.md``, ``report.json`` and ``images.csv`` beside it.

        Args:
            path: folder, made if absent.

        Raises:
            ImportError: without the extra ``report``.
            OSError: if a file cannot be written; it names the file.
        """
        # Reports stand above tuning; this is a door to them for users, nothing here needs them.
        from rankseg_plugins.evaluation.report.tuning import write_tuning

        write_tuning(self, path)


class Tuner:
    """Tunes image by image; :func:`tune` for callers who cannot hand over a loop.

    Args:
        num_classes: C.
        objective: ``"dice_image"``, ``"iou_dataset"``, ...: a score and a level.
        temperatures: above 0.
        pruning_probs: see :class:`~rankseg_plugins.RankSEG`.
        metrics: ``"dice"``, ``"iou"``; None takes that of the objective.
        solvers: see :class:`~rankseg_plugins.RankSEG`.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the number of channels.
        folds: at least 2; images of one case stay in one fold.
        min_cases: at least 0; with fewer cases argmax is kept: a bootstrap of a handful of images is too sure of
            itself.
        ignore_index: label of the truth whose pixels do not count.
        scoring: which classes count, and how absent ones do; its ``score`` is that of the objective.
        device: where to decode.
        others: further candidates by name, such as fitted :class:`~rankseg_plugins.GlobalRankSEG`.

    Attributes:
        candidates: every decoder in the race by name, argmax first.
        recorder: what the images scored.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is unknown or out of range, or if there is no candidate beside argmax.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> probs = (3 * torch.randn(20, 2, 50, generator=generator)).softmax(1)
        >>> labels = (torch.rand(20, 50, generator=generator) < probs[:, 1]).long()
        >>> tuner = Tuner(2, temperatures=[1.0], pruning_probs=[0.5, 0.1])
        >>> for index in range(20):
        ...     measured = tuner.add(Sample(str(index), probs[index], labels[index]))
        >>> tuner.finish().decoder.is_argmax
        True
    """

    def __init__(
        self,
        num_classes: int,
        objective: str = "dice_image",
        *,
        temperatures: Sequence[float] = TEMPERATURES,
        pruning_probs: Sequence[float] = PRUNING_PROBS,
        metrics: Sequence[str] | None = None,
        solvers: Sequence[str] = ("RMA",),
        output_mode: str | None = None,
        folds: int = 5,
        min_cases: int = 20,
        ignore_index: int | None = None,
        scoring: Scoring | None = None,
        device: str | torch.device = "cpu",
        others: Mapping[str, TunedDecoder] | None = None,
    ) -> None:
        check_choice("objective", objective, OBJECTIVES)
        check_folds(folds)
        self.objective, self.folds, self.min_cases = objective, folds, read_integer("min_cases", min_cases)
        score = objective.split("_")[0]
        mode = _mode(output_mode, num_classes)
        self.candidates = {ARGMAX: TunedDecoder(RankSEG("acc", output_mode=mode), num_classes)}
        grid = itertools.product(temperatures, (score,) if metrics is None else metrics, pruning_probs, solvers)
        for temperature, metric, pruning_prob, solver in grid:
            decoder = RankSEG(metric, output_mode=mode, pruning_prob=pruning_prob, solver=solver)
            name = f"rankseg(metric={metric},pruning_prob={pruning_prob:g},solver={solver})"
            self.candidates[_at(name, temperature)] = TunedDecoder(decoder, num_classes, temperature)
        self.candidates |= others or {}
        if len(self.candidates) < 2:
            raise ValueError("the options leave no candidate beside argmax")
        self.recorder = Recorder(
            {name: each.to(device) for name, each in self.candidates.items()},
            num_classes=num_classes,
            ignore_index=ignore_index,
            scoring=replace(Scoring() if scoring is None else scoring, score=score),
            panels=0,
            device=device,
        )

    def add(self, sample: Sample) -> Measurement:
        """Decode one image with every candidate and keep what it scored.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if probabilities or labels are not valid or do not fit; the message names the sample.
        """
        with _naming(sample):
            return self.recorder.add(sample)

    def gather(self) -> None:
        """Bring the images of all processes together on each of them; see :meth:`Recorder.gather`."""
        self.recorder.gather()

    def finish(
        self,
        class_names: Sequence[str] | None = None,
        *,
        resamples: int = 10_000,
        confidence: float = 0.95,
        seed: int = 0,
        facts: Mapping[str, Any] | None = None,
    ) -> Tuned:
        """Choose from what was added; see :func:`tune`.

        Args:
            class_names: C names; None numbers the classes.
            resamples: of the bootstrap.
            confidence: of the intervals.
            seed: of the folds and the bootstrap.
            facts: what a report says about the run; None: versions of the packages.

        Raises:
            ValueError: without any image, or with two of the same name.
        """
        comparison = self.recorder.comparison(
            class_names, resamples=resamples, confidence=confidence, seed=seed, facts=facts
        )
        choice = choose(comparison, self.objective, self.folds, self.min_cases)
        chosen = self.candidates[choice.winner if choice.certain else ARGMAX]
        evidence = {
            "objective": self.objective,
            "images": len(comparison.names),
            "best_candidate": choice.winner,
            # JSON has no NaN.
            "gain": None if math.isnan(choice.gain) else choice.gain,
            "interval": None if any(map(math.isnan, choice.interval)) else list(choice.interval),
            "confidence": confidence,
            "verdict": choice.verdict,
        }
        decoder = TunedDecoder.from_dict({**chosen.to_dict(), "evidence": evidence})
        return Tuned(decoder, comparison, choice.validated, choice.verdict)


def tune(
    samples: Iterable[Sample | tuple[Any, ...]],
    objective: str = "dice_image",
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    metrics: Sequence[str] | None = None,
    aggregation_levels: Sequence[str] = ("samplewise",),
    output_mode: str | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
    on_measured: Callable[[Measurement], None] | None = None,
    **options: Any,
) -> Tuned:
    r"""Choose temperature, options and aggregation level for a score; keep argmax unless the gain is certain.

    All combinations of the options are candidates and are decoded in one pass. For each fold the candidate is chosen
    that is best on the *other* folds; a candidate is returned only if these choices, scored on images that had no part
    in them, gain on argmax with a bootstrap interval above 0, and the best candidate of all images does too.

    Args:
        samples: :class:`~rankseg_plugins.evaluation.Sample`, or tuples (name, probs, labels); any iterable. With
            ``"global"`` among the aggregation levels they are gone through twice, so an iterator will not do.
        objective: ``"dice_image"``, ``"iou_dataset"``, ...: a score and a level.
        temperatures: above 0.
        metrics: ``"dice"``, ``"iou"``; None takes that of the objective.
        aggregation_levels: ``"samplewise"`` is RankSEG, ``"global"`` is
            :class:`~rankseg_plugins.GlobalRankSEG` fitted to the images without their labels, of which it needs 5.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the number of channels.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the folds and the bootstrap.
        progress: show a bar on standard error if that is a terminal; needs rich.
        on_measured: called after each image.
        **options: ``pruning_probs``, ``solvers``, ``folds``, ``min_cases``, ``ignore_index``, ``scoring`` and
            ``device`` of :class:`Tuner`.

    Raises:
        TypeError: for an iterator where two passes are needed, or an option of the wrong type.
        ValueError: for an unknown option, without candidates, or without images; for an image that is not valid,
            which the message names.
        ImportError: for ``progress`` without rich.

    Source: Varma & Simon, "Bias in error estimation when using cross-validation for model selection", BMC
    Bioinformatics 7 (2006).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> probs = (3 * torch.randn(20, 2, 50, generator=generator)).softmax(1)
        >>> labels = (torch.rand(20, 50, generator=generator) < probs[:, 1]).long()
        >>> found = tune([(str(i), probs[i], labels[i]) for i in range(20)], pruning_probs=[0.5], temperatures=[1.0])
        >>> found.comparison.decoders
        ('argmax', 'rankseg(metric=dice,pruning_prob=0.5,solver=RMA)')
    """
    check_choice("objective", objective, OBJECTIVES)
    check_aggregation_levels(aggregation_levels)
    two_passes = "global" in aggregation_levels
    if two_passes and iter(samples) is samples:
        raise TypeError("samples must be a list or another iterable that can be gone through twice, got an iterator")
    total = len(samples) if isinstance(samples, Sized) else None
    classes, samples = _classes(samples, two_passes)
    metrics = (objective.split("_")[0],) if metrics is None else metrics
    if two_passes:
        fitting = GlobalCandidates(classes, temperatures, metrics, output_mode)
        with progress_bar("fitting", total, progress) as step:
            for given in samples:
                sample = _sample(given)
                with _naming(sample):
                    fitting.update(sample.probs)
                step()
        options["others"] = fitting.fit()
    if "samplewise" not in aggregation_levels:
        options["solvers"] = ()
    tuner = Tuner(classes, objective, temperatures=temperatures, metrics=metrics, output_mode=output_mode, **options)
    with progress_bar("tuning", total, progress) as step:
        for given in samples:
            measured = tuner.add(_sample(given))
            step()
            if on_measured:
                on_measured(measured)
    return tuner.finish(resamples=resamples, confidence=confidence, seed=seed)


class GlobalCandidates:
    """A :class:`~rankseg_plugins.GlobalRankSEG` for every temperature and metric, fitted to images without labels.

    Args:
        num_classes: C.
        temperatures: above 0.
        metrics: ``"dice"``, ``"iou"``.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the number of channels.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> candidates = GlobalCandidates(2, temperatures=[0.7, 1.0], metrics=["iou"])
        >>> for index in range(5):
        ...     probs = (3 * torch.randn(2, 50, generator=generator)).softmax(0)
        ...     candidates.update(probs)
        >>> list(candidates.fit())
        ['global(metric=iou) at temperature 0.7', 'global(metric=iou)']
    """

    def __init__(
        self,
        num_classes: int,
        temperatures: Sequence[float] = TEMPERATURES,
        metrics: Sequence[str] = ("dice",),
        output_mode: str | None = None,
    ) -> None:
        mode = _mode(output_mode, num_classes)
        self.num_classes = num_classes
        self._fitting = {
            temperature: [GlobalRankSEG(num_classes, metric, mode) for metric in metrics]
            for temperature in temperatures
        }
        argmax = RankSEG("acc", output_mode=mode)
        self._scalings = {each: TunedDecoder(argmax, num_classes, each).scaling for each in temperatures}

    def update(self, probs: Tensor) -> None:
        r"""Add an image to all samples of pixels.

        Args:
            probs: (C, \*spatial) probabilities.

        Raises:
            TypeError: if they are no tensor.
            ValueError: if they are not valid.
        """
        for temperature, decoders in self._fitting.items():
            scaled = probs.unsqueeze(0)
            scaled = scaled if temperature == 1 else self._scalings[temperature](scaled)
            for decoder in decoders:
                decoder.update(scaled)

    def fit(self) -> dict[str, TunedDecoder]:
        """The fitted decoders by name.

        Raises:
            ValueError: if there were too few images.
        """
        found = {}
        for temperature, decoders in self._fitting.items():
            for decoder in decoders:
                try:
                    decoder.fit()
                except ValueError as error:
                    raise ValueError(f"aggregation_levels 'global': {error}") from error
                name = _at(f"global(metric={decoder.metric})", temperature)
                found[name] = TunedDecoder(decoder, self.num_classes, temperature)
        return found


def check_aggregation_levels(levels: Sequence[str]) -> None:
    """Check aggregation levels.

    Raises:
        ValueError: for an unknown one.
    """
    for each in levels:
        check_choice("aggregation_levels", each, AGGREGATION_LEVELS)


@contextlib.contextmanager
def _naming(sample: Sample) -> Iterator[None]:
    """Errors say which image they speak of."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{sample.name}: {error}") from error


def _mode(output_mode: str | None, classes: int) -> str:
    return output_mode or ("multilabel" if classes == 1 else "multiclass")


def _sample(given: Sample | tuple[Any, ...]) -> Sample:
    return given if isinstance(given, Sample) else Sample(*given)


def _classes(samples: Iterable[Any], again: bool) -> tuple[int, Iterable[Any]]:
    iterator = iter(samples)
    try:
        first = _sample(next(iterator))
    except StopIteration:
        raise ValueError("samples must hold at least one image, got none") from None
    return len(first.probs), samples if again else itertools.chain([first], iterator)


def _at(name: str, temperature: float) -> str:
    return name if temperature == 1 else f"{name} at temperature {temperature:g}"
