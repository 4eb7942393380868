"""The whole way in one call: decoders on the same images, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.comparison.blocks.groups import Groups, check_groups, read_groups
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.comparison.intervals.statistics import check_confidence
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.comparison.pictures.colours import check_palette
from rankseg_plugins.comparison.recording import DECODERS, Recorder
from rankseg_plugins.comparison.sample import Sample, as_sample, first_of, fitting_mode
from rankseg_plugins.comparison.scoring import Scoring, check_class_names
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.scores.extra import ExtraScore


def compare(
    samples: Iterable[Sample | tuple[str, Tensor, Tensor]],
    decoders: Iterable[str] | Mapping[str, Decoder] = DECODERS,
    num_classes: int | None = None,
    ignore_index: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
    scoring: Scoring | None = None,
    extra: ExtraScore | Sequence[ExtraScore] = (),
    risk_coverage: bool = False,
    groups: Groups | None = None,
    panels: int = 5,
    device: str | torch.device = "cpu",
    on_measured: Callable[[Measurement], None] | None = None,
    facts: Mapping[str, Any] | None = None,
    confidence: float = 0.95,
    palette: Sequence[Sequence[int]] | None = None,
) -> Comparison:
    """Compare decoders on the same probabilities, in one pass.

    Args:
        samples: ``Sample``, or tuples (name, probs, labels); any iterable, also one that loads as it goes.
        decoders: texts such as ``"argmax"``, ``"rankseg(metric=dice)"`` and ``"decoder.json"`` (what
            ``rankseg_plugins.tuning.tune`` found), or callables on probabilities (1, C, *spatial) by name. The first
            is the baseline, argmax where there is one alone; the second is drawn, with the best of the others. Where
            the first image has overlapping masks as truth, texts mean masks, too, and argmax is the threshold 0.5; see
            ``rankseg_plugins.comparison.sample.fitting_mode``.
        num_classes: C; None takes that of the first sample.
        ignore_index: label of the truth whose pixels do not count.
        class_names: C names; None numbers the classes.
        scoring: what counts as better; None is image Dice over the classes in truth or prediction.
        extra: see ``Recorder``.
        risk_coverage: likewise.
        groups: see ``Comparison``; an image that is in none is refused before it is decoded.
        panels: pictures to keep of the most improved images, and of the most damaged.
        device: where to decode.
        on_measured: called after each image.
        facts: what a report says about the run; None: versions of the packages.
        confidence: of the intervals.
        palette: see ``Comparison``.

    Returns:
        The comparison. Memory grows with the number of images only by their counts: 3 integers for each decoder
        and class.

    Raises:
        TypeError: if a tensor or an option is of the wrong kind.
        ValueError: without samples, for an option out of range, or for invalid data; the message names the sample.

    Example:
        >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> samples = [("a", probs, torch.tensor([0, 1, 1])), ("b", probs, torch.tensor([0, 0, 1]))]
        >>> found = compare(samples, ["argmax", "rankseg(metric=dice)"])
        >>> found.level("argmax", "dice", "image"), found.paired("rankseg(metric=dice)").ties
        (0.8333333333333333, 2)
    """
    groups = read_groups({} if groups is None else groups)
    check_confidence(confidence)
    if facts is not None and not isinstance(facts, Mapping):
        raise TypeError(f"facts must be a dict, got {facts!r}")
    first, samples = first_of(samples)
    classes = len(first.probs) if num_classes is None else num_classes
    recorder = Recorder(
        decoders,
        num_classes=classes,
        ignore_index=ignore_index,
        scoring=scoring,
        extra=extra,
        risk_coverage=risk_coverage,
        panels=panels,
        device=device,
        output_mode=fitting_mode(first),
    )
    check_class_names(class_names, classes)
    if palette is not None:
        check_palette(palette, classes)
    for given in samples:
        sample = as_sample(given)
        check_groups(groups, [(sample.name, sample.case_name)])
        with naming(sample.name):
            measurement = recorder.add(sample)
        if on_measured:
            on_measured(measurement)
    return recorder.comparison(class_names, groups=groups, facts=facts, confidence=confidence, palette=palette)
