"""Choosing a decoder on validation data, with argmax in the race and no gain claimed that may be chance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from rankseg_plugins.core import GlobalRankSEG, RankSEG
from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.evaluation.comparison import Comparison
from rankseg_plugins.evaluation.levels import LEVELS
from rankseg_plugins.evaluation.measuring import Measurement, Sample, Scoring
from rankseg_plugins.evaluation.recording import compare
from rankseg_plugins.evaluation.temperature import warn_if_softened
from rankseg_plugins.evaluation.tuned import TunedDecoder

ARGMAX, CHOSEN = "argmax", "chosen"
OBJECTIVES = tuple(f"{score}_{level}" for score in ("dice", "iou") for level in LEVELS)
AGGREGATION_LEVELS = ("samplewise", "global")


class Tuned(NamedTuple):
    """What :func:`tune` found.

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


def tune(
    samples: Iterable[Sample | tuple[Any, ...]],
    objective: str = "dice_image",
    *,
    temperatures: Sequence[float] = (0.7, 1.0, 1.4),
    pruning_probs: Sequence[float] = (0.5, 0.3, 0.1),
    metrics: Sequence[str] | None = None,
    solvers: Sequence[str] = ("RMA",),
    aggregation_levels: Sequence[str] = ("samplewise",),
    output_mode: str | None = None,
    folds: int = 5,
    min_cases: int = 20,
    ignore_index: int | None = None,
    scoring: Scoring | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_measured: Callable[[Measurement], None] | None = None,
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
        pruning_probs: see :class:`~rankseg_plugins.RankSEG`.
        metrics: ``"dice"``, ``"iou"``; None takes that of the objective.
        solvers: see :class:`~rankseg_plugins.RankSEG`.
        aggregation_levels: ``"samplewise"`` is RankSEG, ``"global"`` is
            :class:`~rankseg_plugins.GlobalRankSEG` fitted to the images without their labels.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the number of channels.
        folds: at least 2; images of one case stay in one fold.
        min_cases: with fewer cases argmax is kept: a bootstrap of a handful of images is too sure of itself.
        ignore_index: label of the truth whose pixels do not count.
        scoring: which classes count, and how absent ones do; its ``score`` is that of the objective.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the folds and the bootstrap.
        device: where to decode.
        on_measured: called after each image.

    Raises:
        TypeError: for an iterator where two passes are needed, or an option of the wrong type.
        ValueError: for an unknown option, without candidates, or with fewer cases than folds.

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
    score = objective.split("_")[0]
    for each in aggregation_levels:
        check_choice("aggregation_levels", each, AGGREGATION_LEVELS)
    scoring = replace(Scoring() if scoring is None else scoring, score=score)
    two_passes = "global" in aggregation_levels
    if two_passes and iter(samples) is samples:
        raise TypeError("samples must be a list or another iterable that can be gone through twice, got an iterator")
    first, samples = _first(samples, two_passes)
    classes = len(first.probs)
    mode = output_mode or ("multilabel" if classes == 1 else "multiclass")
    warn_if_softened(first.probs.unsqueeze(0))
    metrics = (score,) if metrics is None else metrics
    candidates = {ARGMAX: TunedDecoder(RankSEG("acc", output_mode=mode), classes)}
    if "samplewise" in aggregation_levels:
        grid = itertools.product(temperatures, metrics, pruning_probs, solvers)
        for temperature, metric, pruning_prob, solver in grid:
            decoder = RankSEG(metric, output_mode=mode, pruning_prob=pruning_prob, solver=solver)
            name = f"rankseg(metric={metric},pruning_prob={pruning_prob:g},solver={solver})"
            candidates[_at(name, temperature)] = TunedDecoder(decoder, classes, temperature)
    if two_passes:
        candidates |= _global_candidates(samples, temperatures, metrics, mode, classes)
    if len(candidates) < 2:
        raise ValueError("the options leave no candidate beside argmax")
    comparison = compare(
        samples,
        {name: each.to(device) for name, each in candidates.items()},
        num_classes=classes,
        ignore_index=ignore_index,
        scoring=scoring,
        panels=0,
        device=device,
        on_measured=on_measured,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    choice = choose(comparison, objective, folds, min_cases)
    chosen = candidates[choice.winner if choice.certain else ARGMAX]
    evidence = {
        "objective": objective,
        "images": len(comparison.names),
        "best_candidate": choice.winner,
        "gain": choice.gain,
        "interval": list(choice.interval),
        "confidence": confidence,
        "verdict": choice.verdict,
    }
    tuned = TunedDecoder(chosen.decoder, classes, chosen.temperature, evidence).cpu()
    return Tuned(tuned, comparison, choice.validated, choice.verdict)


class Choice(NamedTuple):
    """What :func:`choose` found.

    Args:
        winner: the best candidate; if argmax is best, the first of the others.
        certain: whether the winner is to be used; otherwise argmax is.
        gain: over argmax, in points, of candidates chosen without the images that they are scored on.
        interval: of the gain.
        validated: argmax against those, image by image.
        verdict: one line for people.
    """

    winner: str
    certain: bool
    gain: float
    interval: tuple[float, float]
    validated: Comparison
    verdict: str


def choose(comparison: Comparison, objective: str, folds: int = 5, min_cases: int = 20) -> Choice:
    """Choose from candidates that were compared already; see :func:`tune`.

    Args:
        comparison: argmax first; its seed is also that of the folds.
        objective: one of :data:`OBJECTIVES`.
        folds: at least 2.
        min_cases: see :func:`tune`.

    Raises:
        ValueError: for an unknown objective, or more folds than cases.
    """
    check_choice("objective", objective, OBJECTIVES)
    score, level = objective.split("_")
    validated, best = _validate(comparison, score, level, folds)
    winner = comparison.decoders[best or 1]
    gain, low, high = 100 * _gain(validated, CHOSEN, score, level)
    cases = int(comparison.cases.max()) + 1
    # NaN is not certain.
    certain = bool(best > 0 and low > 0 and _gain(comparison, winner, score, level)[1] > 0 and cases >= min_cases)
    figures = f"{gain:+.2f} points of {objective} on images not used to choose ({low:+.2f} to {high:+.2f})"
    reason = "no certain gain" if cases >= min_cases else f"{cases} cases are too few to be certain"
    verdict = f"{winner}: {figures}" if certain else f"keep argmax: {reason}, {figures}"
    return Choice(winner, certain, float(gain), (float(low), float(high)), validated, verdict)


def _first(samples: Iterable[Any], again: bool) -> tuple[Sample, Iterable[Any]]:
    iterator = iter(samples)
    try:
        given = next(iterator)
    except StopIteration:
        raise ValueError("samples must hold at least one image, got none") from None
    first = given if isinstance(given, Sample) else Sample(*given)
    return first, samples if again else itertools.chain([first], iterator)


def _at(name: str, temperature: float) -> str:
    return name if temperature == 1 else f"{name} at temperature {temperature:g}"


def _global_candidates(
    samples: Iterable[Any], temperatures: Sequence[float], metrics: Sequence[str], mode: str, classes: int
) -> dict[str, TunedDecoder]:
    """One for each temperature and metric, fitted to the images without their labels."""
    fitting = {
        (temperature, metric): (TunedDecoder(RankSEG("acc", output_mode=mode), classes, temperature).scaling, decoder)
        for temperature, metric in itertools.product(temperatures, metrics)
        for decoder in [GlobalRankSEG(classes, metric, mode)]
    }
    for given in samples:
        sample = given if isinstance(given, Sample) else Sample(*given)
        for scaling, decoder in fitting.values():
            decoder.update(scaling(sample.probs.unsqueeze(0)))
    found = {}
    for (temperature, metric), (_, decoder) in fitting.items():
        decoder.fit()
        found[_at(f"global(metric={metric})", temperature)] = TunedDecoder(decoder, classes, temperature)
    return found


def _validate(comparison: Comparison, score: str, level: str, folds: int) -> tuple[Comparison, int]:
    """Choose for each fold on the others; return what that scores, and the index of the best of all images."""
    cases = comparison.cases
    number = cases.max() + 1
    if not 2 <= folds <= number:
        raise ValueError(f"folds must be 2 up to the number of cases, {number}, got {folds}")
    fold_of_case = np.random.default_rng(comparison.seed).permutation(np.arange(number) % folds)
    fold_of_image = fold_of_case[cases]
    chosen: list[Measurement] = list(comparison.measurements)
    for fold in range(folds):
        best = _best(comparison, fold_of_image != fold, score, level)
        for index in np.flatnonzero(fold_of_image == fold):
            measured = comparison.measurements[index]
            both = [0, best]
            chosen[index] = replace(measured, counts=measured.counts[both], seconds=measured.seconds[both])
    validated = replace(comparison, decoders=(ARGMAX, CHOSEN), measurements=tuple(chosen))
    return validated, _best(comparison, np.ones(len(cases), dtype=bool), score, level)


def _best(comparison: Comparison, used: np.ndarray, score: str, level: str) -> int:
    """Index of the best candidate on the images that are used; argmax, the first, wins ties."""
    images = tuple(itertools.compress(comparison.measurements, used))
    part = replace(comparison, measurements=images)
    return int(np.argmax([np.nan_to_num(part.level(name, score, level), nan=-1) for name in part.decoders]))


def _gain(comparison: Comparison, name: str, score: str, level: str) -> np.ndarray:
    """Gain over argmax with its interval."""
    return comparison.differences.levels[score, level][comparison.candidates.index(name)]
