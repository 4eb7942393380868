"""Choosing a decoder on validation data, with argmax in the race and no gain claimed that may be chance."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple

import torch

from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.comparison.recording import Recorder
from rankseg_plugins.comparison.sample import Sample, as_sample, first_of, fitting_mode
from rankseg_plugins.comparison.scoring import Scoring, read_scoring
from rankseg_plugins.core import GlobalRankSEG
from rankseg_plugins.core.options import read_integer, read_mode
from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.files.progress import progress_bar
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.tuning.candidates import (
    PRUNING_PROBS,
    TEMPERATURES,
    GlobalCandidates,
    argmax_candidate,
    check_names,
    read_aggregation_levels,
    read_others,
    read_temperatures,
    samplewise_candidates,
)
from rankseg_plugins.tuning.choosing import ARGMAX, OBJECTIVES, check_intervals, choose, read_folds

#: Those that only image-by-image candidates have.
SAMPLEWISE = ("pruning_probs", "solvers")


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
        from rankseg_plugins.report.tuning import write_tuning

        write_tuning(self, path)


class Tuner:
    """Tunes image by image; :func:`tune` for callers who cannot hand over a loop.

    Args:
        num_classes: C.
        objective: ``"dice_image"``, ``"iou_dataset"``, ...: a score and a level.
        temperatures: in [0.001, 1000]; like the next three a list of at least one value.
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
        ValueError: for a value that is unknown or out of range, an empty list, or two candidates of one name.

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
        self.objective, self.folds, self.min_cases = objective, read_folds(folds), read_integer("min_cases", min_cases)
        if self.min_cases < 0:
            raise ValueError(f"min_cases must be at least 0, got {min_cases}")
        score = objective.split("_")[0]
        mode = read_mode(output_mode, num_classes)
        self._temperatures = read_temperatures(temperatures)
        self._recording: dict[str, Any] = {
            "num_classes": num_classes,
            "ignore_index": ignore_index,
            "scoring": replace(read_scoring(scoring), score=score),
            "panels": 0,
            "device": device,
        }
        self._argmax = argmax_candidate(num_classes, mode)
        self._others = read_others({} if others is None else others, num_classes, mode)
        self._samplewise = samplewise_candidates(
            num_classes, mode, self._temperatures, (score,) if metrics is None else metrics, pruning_probs, solvers
        )
        self._race(self._samplewise, self._others)

    def enter(self, others: Mapping[str, TunedDecoder], *, samplewise: bool = True) -> None:
        """Let further candidates into the race, before the first image.

        Args:
            others: see the class; those given there stay.
            samplewise: False leaves out the candidates that the options span.

        Raises:
            RuntimeError: after an image was added.
            TypeError: if a candidate is of another class.
            ValueError: if one decodes other classes, or two have one name.
        """
        if self.recorder.measurements:
            raise RuntimeError("candidates must enter before the first image is added")
        num_classes, mode = self.recorder.num_classes, self.candidates[ARGMAX].output_mode
        self._race(self._samplewise if samplewise else {}, self._others, read_others(others, num_classes, mode))

    def _race(self, *groups: Mapping[str, TunedDecoder]) -> None:
        together = [item for group in (self._argmax, *groups) for item in group.items()]
        check_names([name for name, _ in together])
        self.candidates = dict(together)
        device = self._recording["device"]
        self.recorder = Recorder({name: each.to(device) for name, each in together}, **self._recording)

    def add(self, sample: Sample) -> Measurement:
        """Decode one image with every candidate and keep what it scored.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if probabilities or labels are not valid or do not fit; the message names the sample.
        """
        with naming(sample.name):
            return self.recorder.add(sample)

    def check(self, sample: Sample) -> None:
        """Raise what :meth:`add` would, without decoding; for a pass over the images before."""
        with naming(sample.name):
            self.recorder.check(sample)

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
        preparation: Mapping[str, Any] | None = None,
    ) -> Tuned:
        """Choose from what was added; see :func:`tune`.

        Args:
            class_names: C names; None numbers the classes.
            resamples: of the bootstrap.
            confidence: of the intervals.
            seed: of the folds and the bootstrap.
            facts: what a report says about the run; None: versions of the packages.
            preparation: ``one_vs_rest`` and ``activation``, if the images were made into probabilities by them; they
                become part of the evidence.

        Raises:
            TypeError: for an option of the wrong type.
            ValueError: for one out of range; without any image, or with two of the same name.
            ImportError: without SciPy.
        """
        check_intervals(resamples, confidence, seed)
        comparison = self.recorder.comparison(
            class_names, resamples=resamples, confidence=confidence, seed=seed, facts=facts
        )
        choice = choose(comparison, self.objective, self.folds, self.min_cases)
        chosen = self.candidates[choice.winner if choice.certain else ARGMAX]
        verdict = "; ".join([choice.verdict, *self._caveats(chosen, comparison)])
        evidence = {
            "objective": self.objective,
            "images": len(comparison.names),
            "best_candidate": choice.winner,
            # JSON has no NaN.
            "gain": None if math.isnan(choice.gain) else choice.gain,
            "interval": None if any(map(math.isnan, choice.interval)) else list(choice.interval),
            "confidence": confidence,
            "verdict": verdict,
            **(preparation or {}),
        }
        decoder = TunedDecoder.from_dict({**chosen.to_dict(), "evidence": evidence})
        return Tuned(decoder, comparison, choice.validated, verdict)

    def _caveats(self, chosen: TunedDecoder, comparison: Comparison) -> Iterator[str]:
        """What to know about a winner beside its gain, and about the other candidates where argmax is kept."""
        if isinstance(chosen.decoder, GlobalRankSEG):
            yield "its rule was fitted to all images, without their labels"
        low, high = min(self._temperatures), max(self._temperatures)
        # With ties between temperatures nothing speaks for an end.
        best = self._best_temperatures(comparison) if chosen.is_argmax else {chosen.temperature}
        for end, name, more in ((low, "lowest", "lower"), (high, "highest", "higher")):
            if low < high and best == {end}:
                # Where all lose to argmax, the best of them may lie at the wrong end.
                kept = f"the best other candidate has the {name} temperature tried: try some outside {low:g} to"
                yield f"{kept} {high:g} too" if chosen.is_argmax else f"{name} temperature tried: try {more} ones too"

    def _best_temperatures(self, comparison: Comparison) -> set[float]:
        """Of the best candidates but argmax, which may be several of equal score; none without a score."""
        score, level = self.objective.split("_")
        scores = {name: comparison.level(name, score, level) for name in comparison.candidates}
        top = max((each for each in scores.values() if not math.isnan(each)), default=math.nan)
        return {self.candidates[name].temperature for name, each in scores.items() if each == top}


def options_but(*given: str) -> tuple[str, ...]:
    """Names of the options of :class:`Tuner` that a caller leaves to users: all but those that it gives itself.

    Example:
        >>> options_but("num_classes", "objective", "scoring", "ignore_index", "device", "others")
        ('temperatures', 'pruning_probs', 'metrics', 'solvers', 'output_mode', 'folds', 'min_cases')
    """
    return tuple(name for name in inspect.signature(Tuner).parameters if name not in given)


#: Options that :func:`tune` hands on to :class:`Tuner`.
OPTIONS = options_but("num_classes", "objective", "temperatures", "metrics", "output_mode")


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
    in them, gain on argmax with a bootstrap interval above 0, and the best candidate of all images does too. Rules of
    ``"global"`` are fitted once, to all images, without their labels.

    Args:
        samples: :class:`~rankseg_plugins.comparison.Sample`, or tuples (name, probs, labels); any iterable. With
            ``"global"`` among the aggregation levels they are gone through twice, so an iterator will not do.
        objective: ``"dice_image"``, ``"iou_dataset"``, ...: a score and a level.
        temperatures: in [0.001, 1000].
        metrics: ``"dice"``, ``"iou"``; None takes that of the objective.
        aggregation_levels: ``"samplewise"`` is RankSEG, ``"global"`` is
            :class:`~rankseg_plugins.GlobalRankSEG` fitted to the images without their labels, 5 or more.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the truth of the first image, such as
            ``"multilabel"`` for masks that overlap.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the folds and the bootstrap.
        progress: show a bar on standard error if that is a terminal; needs rich.
        on_measured: called after each image.
        **options: ``pruning_probs``, ``solvers`` (both of ``"samplewise"`` only), ``folds``, ``min_cases``,
            ``ignore_index``, ``scoring``, ``device`` and ``others`` of :class:`Tuner`.

    Raises:
        TypeError: for an iterator where two passes are needed, an unknown option, or one of the wrong type.
        ValueError: for a value that is unknown or out of range, an option that no aggregation level uses, two
            candidates of one name, or without images; for an image that is not valid, which the message names.
        ImportError: without SciPy; for ``progress`` without rich.

    Source: Varma & Simon, "Bias in error estimation when using cross-validation for model selection", BMC
    Bioinformatics 7 (2006).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> probs = (3 * torch.randn(20, 2, 50, generator=generator)).softmax(1)
        >>> labels = (torch.rand(20, 50, generator=generator) < probs[:, 1]).long()
        >>> found = tune([(str(i), probs[i], labels[i]) for i in range(20)], pruning_probs=[0.5], temperatures=[1.0])
        >>> found.comparison.decoders
        ('argmax', 'rankseg(metric=dice,pruning_prob=0.5)')
    """
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"tune takes no option {name!r}; beside those of its signature {', '.join(OPTIONS)}")
    check_choice("objective", objective, OBJECTIVES)
    levels = check_levels(aggregation_levels, [name for name in SAMPLEWISE if name in options])
    check_intervals(resamples, confidence, seed)
    two_passes = "global" in levels
    if two_passes and isinstance(samples, Iterator):
        raise TypeError("samples must be a list or another iterable that can be gone through twice, got an iterator")
    total = len(samples) if isinstance(samples, Sized) else None
    first, all_samples = first_of(samples)
    samples = samples if two_passes else all_samples
    classes = len(first.probs)
    output_mode = fitting_mode(first) if output_mode is None else output_mode
    tuner = Tuner(classes, objective, temperatures=temperatures, metrics=metrics, output_mode=output_mode, **options)
    if two_passes:
        metrics = (objective.split("_")[0],) if metrics is None else metrics
        fitting = GlobalCandidates(classes, temperatures, metrics, output_mode)
        if total is not None:
            fitting.check_number(total)
        with progress_bar("fitting", total, progress) as step:
            for given in samples:
                sample = as_sample(given)
                tuner.check(sample)
                with naming(sample.name):
                    fitting.update(sample.probs)
                step()
        tuner.enter(fitting.fit(), samplewise="samplewise" in levels)
    with progress_bar("tuning", total, progress) as step:
        for given in samples:
            measured = tuner.add(as_sample(given))
            step()
            if on_measured:
                on_measured(measured)
    return tuner.finish(resamples=resamples, confidence=confidence, seed=seed)


def check_levels(aggregation_levels: object, given: Sequence[str], prefix: str = "") -> list[str]:
    """The aggregation levels, if no option was given that none of them uses.

    Args:
        aggregation_levels: ``"samplewise"``, ``"global"`` or both.
        given: those of :data:`SAMPLEWISE` that were given.
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
