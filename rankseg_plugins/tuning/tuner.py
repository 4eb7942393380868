"""Choosing a decoder on validation data, with argmax in the race and no gain claimed that may be chance."""

from __future__ import annotations

import html
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple

import torch

from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.facts import remember
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.comparison.recording import Recorder
from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.comparison.scoring import Scoring, read_scoring
from rankseg_plugins.core import GlobalRankSEG
from rankseg_plugins.core.inputs.options import read_integer, read_mode
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.tuning.candidates import (
    PRUNING_PROBS,
    TEMPERATURES,
    Candidate,
    GlobalCandidates,
    argmax_candidate,
    check_names,
    final,
    read_others,
    read_solvers,
    read_temperatures,
    samplewise_candidates,
)
from rankseg_plugins.tuning.choosing import ARGMAX, OBJECTIVES, check_intervals, choose, read_folds, read_keep
from rankseg_plugins.tuning.fitting import Fitting, check_levels
from rankseg_plugins.tuning.presence import PresenceCandidates, read_rules


class Tuned(NamedTuple):
    """What tuning found.

    Args:
        decoder: the winner, or argmax.
        comparison: every candidate on all images; their gains are those of the tuning data, and so flattered.
        validated: argmax against ``"chosen"``: on each image the candidate that was best on the other folds.
        verdict: one line for people.

    Example:
        >>> from rankseg_plugins.tuning import tune
        >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> samples = [(str(i), probs, torch.tensor([0, i % 2, 1])) for i in range(6)]
        >>> found = tune(samples, temperatures=[1.0], pruning_probs=[0.1], presence=[])
        >>> found.decoder.is_argmax, found.verdict.partition(",")[0]
        (True, 'keep argmax: too few cases (6 below min_cases=20) to choose on')
    """

    decoder: TunedDecoder
    comparison: Comparison
    validated: Comparison
    verdict: str

    def __repr__(self) -> str:
        return f"{self.verdict}\n{self.comparison!r}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the same."""
        return f"<p>{html.escape(self.verdict)}</p>{self.comparison._repr_html_()}"

    def report(self, path: str | PathLike[str]) -> None:
        """Write ``decoder.json``, and ``report.html``, ``report.md``, ``report.json`` and ``images.csv`` beside it.

        Args:
            path: folder, made if absent.

        Raises:
            ImportError: without the extra ``report``.
            OSError: if a file cannot be written; it names the file.

        Example:
            >>> import os, tempfile
            >>> from rankseg_plugins.tuning import tune
            >>> probs = torch.tensor([[[0.6, 0.55, 0.1]], [[0.4, 0.45, 0.9]]])
            >>> samples = [(str(i), probs, torch.tensor([[0, i % 2, 1]])) for i in range(6)]
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     tune(samples, temperatures=[1.0], pruning_probs=[0.1], presence=[]).report(folder)
            ...     sorted(os.listdir(folder))
            ['decoder.json', 'images.csv', 'pictures', 'report.html', 'report.json', 'report.md']
        """
        # Reports stand above tuning; this is a door to them for users, nothing here needs them.
        from rankseg_plugins.report.tuning import write_tuning

        write_tuning(self, path)


class Tuner:
    """Tunes image by image; ``tune`` for callers who cannot hand over a loop.

    Args:
        num_classes: C.
        objective: ``"dice_image"``, ``"iou_dataset"``, ...: a score and a level.
        temperatures: in [0.001, 1000]; like the next three a list of at least one value.
        pruning_probs: see ``RankSEG``.
        metrics: ``"dice"``, ``"iou"``; None takes that of the objective.
        solvers: see ``RankSEG``.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the number of channels.
        folds: at least 2; images of one case stay in one fold.
        min_cases: at least 0; with fewer cases argmax is kept.
        keep: what a choice may not certainly lower, by more than two standard errors: scores and levels such as
            ``"iou_dataset"``; ``"union"`` or ``"label"``, the objective where these classes count;
            ``"every-class"``. None takes the dataset level of the objective's score.
        ignore_index: label of the truth whose pixels do not count.
        scoring: which classes count, and how absent ones do; its ``score`` is that of the objective.
        device: where to decode.
        others: further candidates by name, such as fitted ``GlobalRankSEG``.

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
        keep: Sequence[str] | None = None,
        ignore_index: int | None = None,
        scoring: Scoring | None = None,
        device: str | torch.device = "cpu",
        others: Mapping[str, Candidate] | None = None,
    ) -> None:
        check_choice("objective", objective, OBJECTIVES)
        self.objective, self.folds, self.min_cases = objective, read_folds(folds), read_integer("min_cases", min_cases)
        if self.min_cases < 0:
            raise ValueError(f"min_cases must be at least 0, got {min_cases}")
        self.keep = read_keep(keep, objective)
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
        self._grid: dict[str, Any] = {
            "temperatures": self._temperatures,
            "metrics": (score,) if metrics is None else metrics,
        }
        self._solvers = read_solvers(solvers)
        self._argmax = argmax_candidate(num_classes, mode)
        self._others = read_others({} if others is None else others, num_classes, mode)
        self._samplewise = samplewise_candidates(
            num_classes, mode, **self._grid, pruning_probs=pruning_probs, solvers=self._solvers
        )
        self._race(self._samplewise, self._others)

    def fitting(
        self,
        aggregation_levels: Sequence[str] = ("samplewise",),
        presence: Sequence[str | float] | None = None,
        seed: int = 0,
    ) -> Fitting:
        """Candidates of the same grid that are fitted to all images before they ``enter`` the race.

        Args:
            aggregation_levels: see ``tune``, as the next one.
            presence: rules, perhaps none; None takes the usual ones of the scoring. Of ``"samplewise"`` only.
            seed: of the folds.

        Raises:
            TypeError: for an option of the wrong type.
            ValueError: for one that is unknown or out of range, or if two candidates have one name.

        Example:
            >>> tuner = Tuner(2, temperatures=[1.0], pruning_probs=[0.5])
            >>> tuner.fitting(presence=["score", 0.5]).names
            ('presence(metric=dice,rule=score)', 'presence(metric=dice,rule=0.5)')
        """
        levels, recorder = check_levels(aggregation_levels, []), self.recorder
        by_image = of_all = None
        if "samplewise" in levels and (presence is None or read_rules(presence)):
            by_image = PresenceCandidates(
                recorder.num_classes,
                **self._grid,
                rules=presence,
                solvers=self._solvers,
                output_mode=recorder.output_mode,
                scoring=recorder.scoring,
                level=self.objective.split("_")[1],
                ignore_index=recorder.ignore_index,
                folds=self.folds,
                seed=seed,
            )
        if "global" in levels:
            of_all = GlobalCandidates(recorder.num_classes, **self._grid, output_mode=recorder.output_mode)
        return Fitting(by_image, of_all, "samplewise" in levels)

    def enter(self, others: Mapping[str, Candidate], *, samplewise: bool = True) -> None:
        """Let further candidates into the race, before the first image.

        Args:
            others: see the class, where those that are given stay; of a ``ByCase`` each case is decided by its own.
            samplewise: False leaves out the candidates that the options span.

        Raises:
            RuntimeError: after an image was added.
            TypeError: if a candidate is of another class.
            ValueError: if one decodes other classes, or two have one name.

        Example:
            >>> from rankseg_plugins import RankSEG
            >>> tuner = Tuner(2, temperatures=[1.0], pruning_probs=[0.5])
            >>> tuner.enter({"mine": TunedDecoder(RankSEG("iou"), num_classes=2)})
            >>> list(tuner.candidates)
            ['argmax', 'rankseg(metric=dice,pruning_prob=0.5)', 'mine']
        """
        if self.recorder.measurements:
            raise RuntimeError("candidates must enter before the first image is added")
        num_classes, mode = self.recorder.num_classes, self.candidates[ARGMAX].output_mode
        self._race(self._samplewise if samplewise else {}, self._others, read_others(others, num_classes, mode))

    def _race(self, *groups: Mapping[str, Candidate]) -> None:
        together = [item for group in (self._argmax, *groups) for item in group.items()]
        check_names([name for name, _ in together])
        self.candidates = {name: final(each) for name, each in together}
        device = self._recording["device"]
        self.recorder = Recorder({name: each.to(device) for name, each in together}, **self._recording)

    def add(self, sample: Sample) -> Measurement:
        """Decode one image with every candidate and keep what it scored.

        Raises:
            TypeError: if a tensor is of the wrong kind.
            ValueError: if probabilities or labels are not valid or do not fit; the message names the sample.

        Example:
            >>> tuner = Tuner(2, temperatures=[1.0], pruning_probs=[0.5])
            >>> measured = tuner.add(Sample("a", torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1])))
            >>> measured.name, len(measured.counts) == len(tuner.candidates)
            ('a', True)
        """
        with naming(sample.name):
            return self.recorder.add(sample)

    def check(self, sample: Sample) -> None:
        """Raise what ``add`` would, without decoding; for a pass over the images before.

        Example:
            >>> Tuner(2).check(Sample("a", torch.tensor([[0.9], [0.1]]), torch.tensor([2])))
            Traceback (most recent call last):
                ...
            ValueError: a: target holds the label 2, allowed are 0 to 1 (no ignore_index was given)
        """
        with naming(sample.name):
            self.recorder.check(sample)

    def gather(self) -> None:
        """Bring the images of all processes together on each of them; see ``Recorder.gather``.

        Example:
            >>> tuner = Tuner(2, temperatures=[1.0], pruning_probs=[0.5])
            >>> for name in ("b", "a"):
            ...     measured = tuner.add(Sample(name, torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1])))
            >>> tuner.gather()
            >>> [each.name for each in tuner.recorder.measurements]
            ['a', 'b']
        """
        self.recorder.gather()

    def finish(
        self,
        class_names: Sequence[str] | None = None,
        *,
        confidence: float = 0.95,
        seed: int = 0,
        facts: Mapping[str, Any] | None = None,
        preparation: Mapping[str, Any] | None = None,
    ) -> Tuned:
        """Choose from what was added; see ``tune``.

        Args:
            class_names: C names; None numbers the classes.
            confidence: of the intervals.
            seed: of the folds.
            facts: what a report says about the run; None: versions of the packages.
            preparation: ``one_vs_rest`` and ``activation``, if the images were made into probabilities by them; they
                become part of the evidence.

        Raises:
            TypeError: for an option of the wrong type.
            ValueError: for one out of range; without any image, or with two of the same name.
            ImportError: without SciPy.

        Example:
            >>> tuner = Tuner(2, temperatures=[1.0], pruning_probs=[0.5], folds=2)
            >>> for name in ("a", "b"):
            ...     measured = tuner.add(Sample(name, torch.tensor([[0.9, 0.6], [0.1, 0.4]]), torch.tensor([0, 1])))
            >>> found = tuner.finish(["background", "road"])
            >>> found.decoder.is_argmax, found.decoder.evidence["images"], found.comparison.classes
            (True, 2, ('background', 'road'))
        """
        check_intervals(confidence, seed)
        comparison = self.recorder.comparison(class_names, confidence=confidence, facts=facts)
        choice = choose(comparison, self.objective, self.folds, self.min_cases, self.keep, seed)
        chosen = self.candidates[choice.winner if choice.used else ARGMAX]
        verdict = "; ".join([choice.verdict, *self._caveats(chosen, comparison)])
        presence = comparison.presence_of(choice.winner) if choice.used else None
        evidence = {
            **chosen.evidence,
            **({} if presence is None else {"presence": presence}),
            "objective": self.objective,
            "keep": list(self.keep),
            **self.recorder.scoring.counting,
            "images": len(comparison.names),
            "seen": remember(comparison.measurements),
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
    """Names of the options of ``Tuner`` that a caller leaves to users: all but those that it gives itself.

    Example:
        >>> options_but("num_classes", "objective", "scoring", "ignore_index", "device", "others")
        ('temperatures', 'pruning_probs', 'metrics', 'solvers', 'output_mode', 'folds', 'min_cases', 'keep')
    """
    return tuple(name for name in inspect.signature(Tuner).parameters if name not in given)
