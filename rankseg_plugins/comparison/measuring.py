"""One image, every decoder: what a comparison keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.calibration.reliability import Calibration, calibration
from rankseg_plugins.comparison.blocks.expected import expect
from rankseg_plugins.comparison.blocks.presence import judged
from rankseg_plugins.comparison.deciding import decide_each
from rankseg_plugins.comparison.decoders import Decoder, of_case
from rankseg_plugins.comparison.sample import Sample, overlap
from rankseg_plugins.core.inputs.probabilities import (
    check_floating,
    check_range,
    check_shape,
    check_tensor,
    extent,
    plain,
)
from rankseg_plugins.scores.areas import Areas
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.scores.extra import ExtraScore, Spacing, measure_extra
from rankseg_plugins.scores.truth import count, count_known, known_pixels, to_truth


@dataclass(frozen=True)
class Measurement:
    """What a comparison keeps of one image; its size does not depend on the number of pixels.

    Args:
        name: of the image.
        case: what counts as one in the intervals.
        counts: (decoders, 3, C) int64: intersection, prediction area and label area.
        seconds: (decoders,) decode time of each alone, NaN where it was not taken.
        calibration: of the probabilities; None where there are none.
        presence: (decoders, C) how likely each of them took each class to be there, NaN where that is not known; None
            where it is of none. See ``judged``.
        extra: (decoders, K, C) float64, what ``measure_extra`` gave for each decoder; None where nothing was asked for.
        expected: (decoders, 2, C) float64, what ``expect`` gave; None where it was not asked for.
        same: (decoders,) int64, equal where decisions are the very same; None where nobody looked.
    """

    name: str
    case: str
    counts: np.ndarray
    seconds: np.ndarray
    calibration: Calibration | None = None
    presence: np.ndarray | None = None
    extra: np.ndarray | None = None
    expected: np.ndarray | None = None
    same: np.ndarray | None = None

    def only(self, places: Sequence[int]) -> Measurement:
        """What was measured of some of the decoders.

        Example:
            >>> measured = Measurement("a", "a", np.arange(6).reshape(3, 2, 1), np.array([0.1, 0.2, 0.3]))
            >>> measured.only([0, 2]).seconds
            array([0.1, 0.3])
        """
        names = ("counts", "seconds", "presence", "extra", "expected", "same")
        of_decoders = {name: getattr(self, name) for name in names}
        kept = {name: values[list(places)] for name, values in of_decoders.items() if values is not None}
        return replace(self, **kept)


def same_decisions(decisions: Sequence[Tensor], counts: np.ndarray) -> np.ndarray:
    """Equal numbers for decisions that are the very same: the index of the first of them, (decoders,) int64.

    Args:
        decisions: of every decoder on one image, in any form.
        counts: (decoders, 3, C) of them, which tell most apart.

    Example:
        >>> counts = np.zeros((3, 3, 2), np.int64)
        >>> same_decisions([torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 1])], counts)
        array([0, 1, 0])
    """
    firsts: list[int] = []
    for index, decision in enumerate(decisions):
        alike = (
            first
            for first in firsts
            if np.array_equal(counts[first], counts[index]) and _is_same(decisions[first], decision)
        )
        firsts.append(next(alike, index))
    return np.array(firsts)


def first_alike(measurements: Sequence[Measurement], decoders: int) -> list[int]:
    """Of every decoder, the first whose decisions are the very same in all images; itself where nobody looked."""
    same = [each.same for each in measurements if each.same is not None]
    if len(same) < len(measurements):
        return list(range(decoders))
    decided = [tuple(each.tolist()) for each in np.stack(same, 1)]
    return [decided.index(each) for each in decided]


def _is_same(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    if one.device.type == other.device.type == "cpu":
        return np.array_equal(one.detach().numpy(), other.detach().numpy())  # waits for no other thread
    return one.shape == other.shape and torch.equal(one.to(other.device), other)


def to_areas(counts: np.ndarray) -> Areas:
    """Counts (3, B, C) as areas."""
    return Areas(*torch.from_numpy(np.ascontiguousarray(counts)))


def measure(
    sample: Sample,
    decoders: Mapping[str, Decoder],
    num_classes: int,
    ignore_index: int | None = None,
    device: str | torch.device = "cpu",
    output_mode: str | None = None,
    extra: Sequence[ExtraScore] = (),
    expected: str | None = None,
) -> tuple[Measurement, Tensor, list[Tensor]]:
    """Decode one image once with each decoder, and count.

    Args:
        sample: probabilities and truth.
        decoders: callables on (1, C, *spatial) probabilities by name, giving (1, *spatial) labels or
            (1, C, *spatial) masks. They get float32 or float64. Of a ``ByCase`` it is that of the case.
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.
        device: where to decode.
        output_mode: of the decoders, where it is known.
        extra: what to measure of the decisions beside their counts.
        expected: score whose expectation is worked out: ``"dice"`` or ``"iou"``; None is none.

    Returns:
        The measurement; truth and decisions of all decoders in the form of scores, without the batch dimension.

    Raises:
        TypeError: if a tensor is of the wrong kind.
        ValueError: if probabilities are not finite or outside [0, 1], or sizes or labels do not fit.
    """
    probs, truth = prepare(sample, num_classes, ignore_index, device, output_mode)
    deciding = of_case(decoders, sample.case_name)
    decided = decide_each(deciding, probs)
    # Decisions that are one are counted once.
    counted: dict[str | int, np.ndarray] = {}
    for name, each in decided.items():
        if each.key not in counted:
            counted[each.key] = _count(name, each.decision, probs, truth, ignore_index)
    decisions = [plain(each.decision)[0] for each in decided.values()]
    counts = np.stack([counted[each.key] for each in decided.values()])
    measurement = Measurement(
        sample.name,
        sample.case_name,
        counts,
        np.array([each.seconds for each in decided.values()]),
        _calibrate(probs[0], truth[0], ignore_index),
        judged([each.presence for each in decided.values()], truth[0], probs.ndim - 2, ignore_index),
        measure_decisions(extra, decisions, truth[0], num_classes, ignore_index, sample.spacing),
        None if expected is None else expect(expected, deciding.values(), decisions, probs[0]),
        same_decisions(decisions, counts),
    )
    return measurement, truth[0], decisions


def _count(name: str, decision: Tensor, probs: Tensor, truth: Tensor, ignore_index: int | None) -> np.ndarray:
    """(3, C) of what a decoder returned."""
    with naming(name):
        decision = plain(check_tensor("decision", decision))
    forms = ((1, *probs.shape[2:]), tuple(probs.shape))
    shape = tuple(decision.shape)
    if shape not in forms:
        raise ValueError(f"{name} gave shape {shape} for probs of shape {forms[1]}")
    # Neither labels nor masks: refused there, in words.
    fits = shape == forms[decision.dtype == torch.bool] and not decision.is_floating_point()
    areas = (count_known if fits else count)(decision, truth, probs.shape[1], ignore_index)
    return torch.cat(list(areas)).cpu().numpy()


def measure_decisions(
    extra: Sequence[ExtraScore],
    decisions: Sequence[Tensor],
    truth: Tensor,
    num_classes: int,
    ignore_index: int | None,
    spacing: Spacing | None,
) -> np.ndarray | None:
    """The extra scores of every decision of one image, see ``Measurement``; None if there are none."""
    if not extra:
        return None
    return np.stack([measure_extra(extra, each, truth, num_classes, ignore_index, spacing) for each in decisions])


def prepare(
    sample: Sample,
    num_classes: int,
    ignore_index: int | None = None,
    device: str | torch.device = "cpu",
    output_mode: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Check an image and bring it into the form that is decoded; see ``measure``.

    Returns:
        Probabilities (1, C, *spatial), float32 or float64, and truth (1, *spatial) or (1, C, *spatial).
    """
    check_floating("probs", sample.probs)
    # Once for all decoders: each of them would convert half precision several times.
    dtype = torch.promote_types(sample.probs.dtype, torch.float32)
    probs = sample.probs.detach().to(device, dtype).unsqueeze(0)
    check_shape(probs)
    if probs.shape[1] != num_classes:
        raise ValueError(f"probs must have {num_classes} classes, got shape {tuple(sample.probs.shape)}")
    check_range(*extent(probs))
    labels = sample.labels.unsqueeze(0) if isinstance(sample.labels, Tensor) else sample.labels
    truth = to_truth(labels, num_classes, tuple(probs.shape[2:]), ignore_index)
    if output_mode == "multiclass" and truth.ndim == probs.ndim and overlap(truth[0]):
        raise ValueError(
            "target masks overlap, and the decision is one label per pixel: decide on masks, output_mode='multilabel'"
        )
    return probs, truth.to(device)


def calibrate(probs: Tensor, labels: Tensor, ignore_index: int | None = None) -> Calibration:
    """Bin the probabilities of one image, see ``calibration``.

    Args:
        probs: (C, *spatial) in [0, 1] but for rounding.
        labels: truth (*spatial), or masks (C, *spatial).
        ignore_index: label whose pixels do not count.
    """
    probs = plain(probs)
    truth = to_truth(labels.unsqueeze(0), len(probs), tuple(probs.shape[1:]), ignore_index)
    return _calibrate(probs, truth[0], ignore_index)


def _calibrate(probs: Tensor, truth: Tensor, ignore_index: int | None) -> Calibration:
    # CUDA has no deterministic kernel for weighted counts, and would raise.
    probs = probs.cpu() if torch.are_deterministic_algorithms_enabled() else probs
    truth = truth.to(probs.device)
    kept = known_pixels(truth, ignore_index)
    if truth.ndim == probs.ndim or len(probs) == 1:
        truth = (truth == 1).reshape(probs.shape)
    return calibration(_clamped(probs), truth, kept)


def _clamped(probs: Tensor) -> Tensor:
    if probs.device.type == "cpu":
        return torch.from_numpy(probs.numpy().clip(0, 1))  # waits for no other thread
    return probs.clamp(0, 1)
