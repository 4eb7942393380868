"""All images through all candidates, in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import Any

from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.comparison.sample import Sample, as_sample, first_of, fitting_mode
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.files.progress import progress_bar
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.tuning.candidates import TEMPERATURES
from rankseg_plugins.tuning.choosing import OBJECTIVES, check_intervals
from rankseg_plugins.tuning.fitting import SAMPLEWISE, check_levels
from rankseg_plugins.tuning.presence import read_rules
from rankseg_plugins.tuning.tuner import Tuned, Tuner, options_but

#: What a verdict says where the images come only once.
NO_PRESENCE = "candidates that know which classes are there were left out: they need the images twice, as a list"
#: Options that ``tune`` hands on to ``Tuner``.
OPTIONS = options_but("num_classes", "objective", "temperatures", "metrics", "output_mode")


def tune(
    samples: Iterable[Sample | tuple[Any, ...]],
    objective: str = "dice_image",
    *,
    temperatures: Sequence[float] = TEMPERATURES,
    metrics: Sequence[str] | None = None,
    presence: Sequence[str | float] | None = None,
    aggregation_levels: Sequence[str] = ("samplewise",),
    output_mode: str | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
    on_measured: Callable[[Measurement], None] | None = None,
    **options: Any,
) -> Tuned:
    """Choose temperature, options and aggregation level for a score; keep argmax unless a gain is likely.

    All combinations of the options are candidates and are decoded in one pass. Of those that gain more than a standard
    error on argmax the best is chosen, if there is one: on all images, and for each fold on the *other* folds. That of
    all images is returned only if the choices for the folds, scored on images that had no part in them, gain together.
    Rules of ``"global"`` are fitted once, to all images, without their labels; ``presence`` never to an image that it
    is judged on.

    Args:
        samples: ``Sample``, or tuples (name, probs, labels); any iterable. They are gone through twice, but for an
            iterator, which ``presence`` and ``"global"`` cannot do with.
        objective: ``"dice_image"``, ``"iou_dataset"``, ...: a score and a level.
        temperatures: in [0.001, 1000].
        metrics: ``"dice"``, ``"iou"``; None takes that of the objective.
        presence: rules of ``PresenceRankSEG`` that race: ``"score"`` and thresholds, or none. It is fitted to the
            labelled images; in the race, each image is decided by a fit to other folds. None takes ``"score"`` where
            the scoring says what a false class costs, otherwise 0.2 and 0.5; of an iterator none.
        aggregation_levels: ``"samplewise"`` is RankSEG, ``"global"`` is
            ``GlobalRankSEG`` fitted to the images without their labels, 5 or more.
        output_mode: ``"multiclass"`` or ``"multilabel"``; None takes what fits the truth of the first image, such as
            ``"multilabel"`` for masks that overlap.
        confidence: of the intervals.
        seed: of the folds.
        progress: show a bar on standard error if that is a terminal; needs rich.
        on_measured: called after each image.
        **options: ``pruning_probs``, ``solvers`` (as ``presence`` of ``"samplewise"`` only), ``folds``, ``min_cases``,
            ``keep``, ``ignore_index``, ``scoring``, ``device`` and ``others`` of ``Tuner``.

    Raises:
        TypeError: for an iterator where two passes are needed, an unknown option, or one of the wrong type.
        ValueError: for a value that is unknown or out of range, an option that no aggregation level uses, two
            candidates of one name, or without images; for an image that is not valid, which the message names.
        ImportError: without SciPy; for ``progress`` without rich.

    Source: Varma & Simon, "Bias in error estimation when using cross-validation for model selection", BMC
    Bioinformatics 7 (2006).

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> probs = (3 * torch.randn(20, 2, 50, generator=generator)).softmax(1)
        >>> labels = (torch.rand(20, 50, generator=generator) < probs[:, 1]).long()
        >>> samples = [(str(i), probs[i], labels[i]) for i in range(20)]
        >>> found = tune(samples, pruning_probs=[0.5], temperatures=[1.0], presence=["score"])
        >>> found.comparison.decoders
        ('argmax', 'rankseg(metric=dice,pruning_prob=0.5)', 'presence(metric=dice,rule=score)')
    """
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"tune takes no option {name!r}; beside those of its signature {', '.join(OPTIONS)}")
    check_choice("objective", objective, OBJECTIVES)
    given = [name for name in SAMPLEWISE if name in options or (name == "presence" and presence)]
    levels = check_levels(aggregation_levels, given)
    check_intervals(confidence, seed)
    once = isinstance(samples, Iterator)
    rules = presence if presence is None else read_rules(presence)
    if once and (rules or "global" in levels):
        raise TypeError(
            "samples must be a list or another iterable that can be gone through twice for presence and 'global', got "
            "an iterator"
        )
    total = len(samples) if isinstance(samples, Sized) else None
    first, all_samples = first_of(samples)
    classes = len(first.probs)
    output_mode = fitting_mode(first) if output_mode is None else output_mode
    tuner = Tuner(classes, objective, temperatures=temperatures, metrics=metrics, output_mode=output_mode, **options)
    fitting = tuner.fitting(levels, () if once else rules, seed)
    if fitting.names:
        if total is not None:
            fitting.check_number(total)
        with progress_bar("fitting", total, progress) as step:
            for each in samples:
                sample = as_sample(each)
                if not fitting.checks:
                    tuner.check(sample)
                with naming(sample.name):
                    fitting.update(sample)
                step()
        tuner.enter(fitting.fit(), samplewise=fitting.samplewise)
    with progress_bar("tuning", total, progress) as step:
        for each in samples if fitting.names else all_samples:
            measured = tuner.add(as_sample(each))
            step()
            if on_measured:
                on_measured(measured)
    found = tuner.finish(confidence=confidence, seed=seed)
    if once and presence is None and "samplewise" in levels:
        return found._replace(verdict=f"{found.verdict}; {NO_PRESENCE}")
    return found
