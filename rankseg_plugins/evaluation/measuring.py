"""One image, every decoder: what a comparison keeps of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.options import read_mode
from rankseg_plugins.core.plausibility import describe_sums
from rankseg_plugins.core.probabilities import (
    check_choice,
    check_floating,
    check_range,
    check_shape,
    check_tensor,
    plain,
)
from rankseg_plugins.evaluation.areas import Areas
from rankseg_plugins.evaluation.calibration import Calibration, calibration
from rankseg_plugins.evaluation.checks import naming
from rankseg_plugins.evaluation.decoders import Decoder
from rankseg_plugins.evaluation.levels import ABSENT, PRESENT, SCORES, image_scores
from rankseg_plugins.evaluation.truth import count, known_pixels, to_truth


@dataclass(frozen=True)
class Sample:
    r"""Probabilities and truth of one image or volume.

    Args:
        name: what reports call it.
        probs: (C, \*spatial) probabilities, floating point. With C = 1 those of the foreground.
        labels: (\*spatial) integer labels (with C = 1: 0 and 1), or (C, \*spatial) masks.
        case: what is drawn as one in the bootstrap, such as the patient of a slice or the drive of a frame. None: the
            image is a case of its own.
    """

    name: str
    probs: Tensor
    labels: Tensor
    case: str | None = None

    def __post_init__(self) -> None:
        for name in ("probs", "labels"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        object.__setattr__(self, "name", read_name("name", self.name))
        if self.case is not None:
            object.__setattr__(self, "case", read_name("case", self.case))


def read_name(what: str, value: object) -> str:
    """What a report calls an image or a case; numbers and paths are written out.

    Raises:
        TypeError: if it is nothing of the kind: the report would fail on it, after all images.

    Example:
        >>> read_name("name", None)
        Traceback (most recent call last):
            ...
        TypeError: name of an image must be a string, got None
    """
    if isinstance(value, bool) or not isinstance(value, (str, Integral, PathLike)):
        raise TypeError(f"{what} of an image must be a string, got {value!r}")
    return str(value)


def as_sample(given: object) -> Sample:
    """An image as callers hand it over: a :class:`Sample`, or a tuple of its fields.

    Raises:
        TypeError: if it is neither.

    Example:
        >>> as_sample(1)
        Traceback (most recent call last):
            ...
        TypeError: samples must hold Sample or tuples (name, probs, labels), got int
    """
    if isinstance(given, Sample):
        return given
    if not isinstance(given, (tuple, list)) or len(given) not in (3, 4):
        what = f"a tuple of {len(given)}" if isinstance(given, tuple) else type(given).__name__
        raise TypeError(f"samples must hold Sample or tuples (name, probs, labels), got {what}")
    return Sample(*given)


def first_of(samples: object) -> tuple[Sample, Iterator[Any]]:
    """The first image, whose shape can be relied upon, and all of them, this one included.

    Raises:
        TypeError: if these are no images.
        ValueError: if there is none, or the first has no probabilities (C, *spatial).
    """
    if not isinstance(samples, Iterable):
        raise TypeError(f"samples must be an iterable of images, got {type(samples).__name__}")
    rest = iter(samples)
    try:
        given = next(rest)
    except StopIteration:
        raise ValueError("samples must hold at least one image, got none") from None
    first = as_sample(given)
    with naming(first.name):
        check_floating("probs", first.probs)
        check_shape(first.probs.unsqueeze(0))
    return first, itertools.chain([given], rest)


def fitting_mode(sample: Sample) -> str:
    """The output mode whose decisions the truth of an image can be scored against.

    Labels take ``"multiclass"`` decisions. Masks that overlap take ``"multilabel"`` ones, and so do masks of channels
    whose probabilities do not add up to 1; otherwise the masks are labels in another form.

    Example:
        >>> probs = torch.tensor([[0.9, 0.2], [0.9, 0.1]])  # 2 channels, 2 pixels
        >>> fitting_mode(Sample("a", probs, torch.tensor([[1, 0], [1, 0]])))
        'multilabel'
    """
    if not _is_masks(sample):
        return read_mode(None, len(sample.probs))
    exclusive = not _overlap(sample.labels) and describe_sums(sample.probs.unsqueeze(0)) is None
    return "multiclass" if exclusive and len(sample.probs) > 1 else "multilabel"


def check_exclusive(sample: Sample, output_mode: str) -> None:
    """Refuse channels that cannot belong to the truth; masks for each class need not add up to anything.

    Args:
        sample: the image.
        output_mode: of the decisions.

    Raises:
        ValueError: if probabilities do not add up to 1 where a pixel has one label, in truth or decision; or if they
            look like a map without its channel: (H, W), with a truth of the same shape.
    """
    if sample.probs.ndim == 2 and _is_masks(sample):
        classes, pixels = sample.probs.shape
        raise ValueError(
            f"probs and labels of shape {(classes, pixels)} would be {classes} classes over {pixels} pixels: a "
            f"foreground map needs a channel dimension, probs of shape (1, {classes}, {pixels}). "
            f"(Masks of one spatial dimension: give both as ({classes}, 1, {pixels}))"
        )
    if len(sample.probs) > 1 and (output_mode == "multiclass" or not _is_masks(sample)):
        problem = describe_sums(sample.probs.unsqueeze(0))
        if problem is not None:
            raise ValueError(problem)


def describe_form(probs: Tensor, truth: Tensor, decided: Tensor) -> str | None:
    r"""What is wrong with masks that may overlap where the truth has one label per pixel; None if nothing is.

    Args:
        probs: (B, C, \*spatial).
        truth: labels (B, \*spatial), or masks (B, C, \*spatial).
        decided: bool masks, or labels, of which the decoder itself warns.
    """
    if len(probs) == 0 or probs.shape[1] == 1 or truth.ndim == probs.ndim or decided.dtype != torch.bool:
        return None
    problem = describe_sums(probs)
    return None if problem is None else f"masks are decided, the truth is labels, and {problem}"


def _is_masks(sample: Sample) -> bool:
    return isinstance(sample.labels, Tensor) and sample.labels.shape == sample.probs.shape


def _overlap(masks: Tensor) -> bool:
    return bool(((masks == 1).sum(0) > 1).any())


@dataclass(frozen=True)
class Measurement:
    """What a comparison keeps of one image; its size does not depend on the number of pixels.

    Args:
        name: of the image.
        case: what is drawn as one in the bootstrap.
        counts: (decoders, 3, C) int64: intersection, prediction area and label area.
        seconds: (decoders,) decode time, NaN where it was not taken.
        calibration: of the probabilities; None where there are none.
    """

    name: str
    case: str
    counts: np.ndarray
    seconds: np.ndarray
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Scoring:
    """What counts as better.

    Args:
        score: the score that decides about gain and loss: ``"dice"``, ``"iou"``, ``"precision"`` or ``"recall"``.
        present: which classes have a score in an image: ``"union"`` or ``"label"``; see
            :mod:`~rankseg_plugins.evaluation.levels`, as for ``absent``.
        absent: ``"skip"``, ``"zero"`` or ``"one"``.
        excluded: classes left out of every score, such as the background.

    Raises:
        ValueError: for an unknown choice.
    """

    score: str = "dice"
    present: str = "union"
    absent: str = "skip"
    excluded: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choice("score", self.score, tuple(SCORES))
        check_choice("present", self.present, PRESENT)
        check_choice("absent", self.absent, tuple(ABSENT))

    def kept(self, num_classes: int) -> list[int]:
        """The classes that are scored.

        Raises:
            ValueError: if an excluded class does not exist, or none is left.
        """
        for label in self.excluded:
            if not 0 <= label < num_classes:
                raise ValueError(f"excluded classes must lie in 0 to {num_classes - 1}, got {label}")
        kept = [label for label in range(num_classes) if label not in self.excluded]
        if not kept:
            raise ValueError("excluded leaves no class to score")
        return kept

    def image_scores(self, areas: Areas) -> np.ndarray:
        """The score of every image, (B,) float64, NaN where it has none."""
        return image_scores(areas, SCORES[self.score], self.present, self.absent).numpy()


def read_scoring(scoring: object) -> Scoring:
    """The option ``scoring``; None is the default.

    Raises:
        TypeError: if it is neither.
    """
    if scoring is None:
        return Scoring()
    if not isinstance(scoring, Scoring):
        raise TypeError(f"scoring must be a Scoring, such as Scoring('iou'), got {scoring!r}")
    return scoring


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
) -> tuple[Measurement, list[Tensor]]:
    r"""Decode one image once with each decoder, and count.

    Args:
        sample: probabilities and truth.
        decoders: callables on (1, C, \*spatial) probabilities by name, giving (1, \*spatial) labels or
            (1, C, \*spatial) masks. They get float32 or float64.
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.
        device: where to decode.
        output_mode: of the decoders, where it is known.

    Returns:
        The measurement, and the decisions of all decoders, without the batch dimension.

    Raises:
        TypeError: if a tensor is of the wrong kind.
        ValueError: if probabilities are not finite or outside [0, 1], or sizes or labels do not fit.
    """
    probs, truth = prepare(sample, num_classes, ignore_index, device, output_mode)
    counts, seconds, decisions = [], [], []
    for name, decoder in decoders.items():
        start = _now(probs)
        decided = plain(decoder(probs))
        seconds.append(_now(probs) - start)
        with naming(name):
            check_tensor("decision", decided)
        if tuple(decided.shape) not in ((1, *probs.shape[2:]), tuple(probs.shape)):
            raise ValueError(f"{name} gave shape {tuple(decided.shape)} for probs of shape {tuple(probs.shape)}")
        counts.append(torch.cat(list(count(decided, truth, num_classes, ignore_index))).cpu().numpy())
        decisions.append(decided[0])
    measurement = Measurement(
        sample.name,
        sample.name if sample.case is None else sample.case,
        np.stack(counts),
        np.array(seconds),
        calibrate(probs[0], truth[0], ignore_index),
    )
    return measurement, decisions


def prepare(
    sample: Sample,
    num_classes: int,
    ignore_index: int | None = None,
    device: str | torch.device = "cpu",
    output_mode: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Check an image and bring it into the form that is decoded; see :func:`measure`.

    Returns:
        Probabilities (1, C, \*spatial), float32 or float64, and truth (1, \*spatial) or (1, C, \*spatial).
    """
    check_floating("probs", sample.probs)
    # Once for all decoders: each of them would convert half precision several times.
    dtype = torch.promote_types(sample.probs.dtype, torch.float32)
    probs = sample.probs.detach().to(device, dtype).unsqueeze(0)
    check_shape(probs)
    if probs.shape[1] != num_classes:
        raise ValueError(f"probs must have {num_classes} classes, got shape {tuple(sample.probs.shape)}")
    check_range(probs.amin().item(), probs.amax().item())
    labels = sample.labels.unsqueeze(0) if isinstance(sample.labels, Tensor) else sample.labels
    truth = to_truth(labels, num_classes, tuple(probs.shape[2:]), ignore_index)
    if output_mode == "multiclass" and truth.ndim == probs.ndim and _overlap(truth[0]):
        raise ValueError(
            "target masks overlap, and the decision is one label per pixel: decide on masks, output_mode='multilabel'"
        )
    return probs, truth.to(device)


def calibrate(probs: Tensor, labels: Tensor, ignore_index: int | None = None) -> Calibration:
    r"""Bin the probabilities of one image, see :func:`~rankseg_plugins.evaluation.calibration.calibration`.

    Args:
        probs: (C, \*spatial) in [0, 1] but for rounding.
        labels: truth (\*spatial), or masks (C, \*spatial).
        ignore_index: label whose pixels do not count.
    """
    probs = plain(probs)
    # CUDA has no deterministic kernel for weighted counts, and would raise.
    probs = probs.cpu() if torch.are_deterministic_algorithms_enabled() else probs
    truth = to_truth(labels.unsqueeze(0), len(probs), tuple(probs.shape[1:]), ignore_index)[0].to(probs.device)
    kept = known_pixels(truth, ignore_index)
    if truth.ndim == probs.ndim or len(probs) == 1:
        truth = (truth == 1).reshape(probs.shape)
    return calibration(probs.clamp(0, 1), truth, kept)


def _now(probs: Tensor) -> float:
    if probs.is_cuda:
        torch.cuda.synchronize(probs.device)
    return time.perf_counter()
