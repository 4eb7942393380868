"""One image: its probabilities and its truth, and what may be decided about it."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import read_mode
from rankseg_plugins.core.inputs.plausibility import describe_sums
from rankseg_plugins.core.inputs.probabilities import check_floating, check_shape, plain, to_probabilities
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.scores.extra import Spacing, read_spacing


@dataclass(frozen=True, repr=False)
class Sample:
    """Probabilities and truth of one image or volume.

    Args:
        name: what reports call it.
        probs: (C, *spatial) probabilities, floating point. With C = 1 those of the foreground.
        labels: (*spatial) integer labels (with C = 1: 0 and 1), or (C, *spatial) masks.
        case: what counts as one in the intervals, such as the patient of a slice or the drive of a frame. None: the
            image is a case of its own.
        spacing: size of a pixel along every spatial axis, in mm, for distances; None is not known.

    Raises:
        TypeError: if a name is none.
        ValueError: for a spacing that is not above 0.

    Example:
        >>> Sample("slice 7", torch.rand(2, 8, 8), torch.zeros(8, 8, dtype=torch.int64), case="patient 1")
        Sample('slice 7', probs=<torch.float32 (2, 8, 8)>, labels=<torch.int64 (8, 8)>, case='patient 1')
    """

    name: str
    probs: Tensor
    labels: Tensor
    case: str | None = None
    spacing: Spacing | None = None

    def __repr__(self) -> str:
        case = "" if self.case is None else f", case={self.case!r}"
        return f"Sample({self.name!r}, probs={_form(self.probs)}, labels={_form(self.labels)}{case})"

    def __post_init__(self) -> None:
        for name in ("probs", "labels"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        object.__setattr__(self, "name", read_name("name", self.name))
        if self.case is not None:
            object.__setattr__(self, "case", read_name("case", self.case))
        object.__setattr__(self, "spacing", read_spacing("spacing", self.spacing))

    @property
    def case_name(self) -> str:
        """The case, which may be the image alone.

        Example:
            >>> probs, labels = torch.tensor([[0.9], [0.1]]), torch.tensor([0])
            >>> Sample("slice 7", probs, labels).case_name, Sample("slice 7", probs, labels, case="patient 1").case_name
            ('slice 7', 'patient 1')
        """
        return self.name if self.case is None else self.case


def _form(values: object) -> str:
    return f"<{values.dtype} {tuple(values.shape)}>" if isinstance(values, Tensor) else reprlib.repr(values)


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
    """An image as callers hand it over: a ``Sample``, or a tuple of its fields.

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
    if not isinstance(given, (tuple, list)) or len(given) not in (3, 4, 5):
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
    exclusive = not overlap(sample.labels) and describe_sums(sample.probs.unsqueeze(0)) is None
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


def describe_form(logits: Tensor, activation: str, truth: Tensor, decided: Tensor) -> str | None:
    """What is wrong with masks that may overlap where the truth has one label per pixel; None if nothing is.

    Args:
        logits: (B, C, *spatial), of which the first image is looked at.
        activation: what makes probabilities of them.
        truth: labels (B, *spatial), or masks (B, C, *spatial).
        decided: bool masks, or labels, of which the decoder itself warns.
    """
    if logits.shape[1] == 1 or truth.ndim == logits.ndim or decided.dtype != torch.bool:
        return None
    if activation in ("softmax", "normalize"):
        return None  # they add up by their making
    problem = describe_sums(to_probabilities(logits[:1], activation))
    return None if problem is None else f"masks are decided, the truth is labels, and {problem}"


def _is_masks(sample: Sample) -> bool:
    return isinstance(sample.labels, Tensor) and sample.labels.shape == sample.probs.shape


def overlap(masks: Tensor) -> bool:
    """Whether masks (C, *spatial) share a pixel."""
    return bool(((masks == 1).sum(0) > 1).any())
