"""The images of a batch: logits, truth and what else the callback was asked for, and what is decided on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.calibration.deciding import decide_knowing
from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.comparison import Scoring
from rankseg_plugins.comparison.measuring import calibrate
from rankseg_plugins.comparison.scoring import check_class_names
from rankseg_plugins.core.inputs.probabilities import (
    TOLERANCE,
    check_floating,
    check_range,
    check_shape,
    missing_dimension,
    plain,
    to_probabilities,
)
from rankseg_plugins.lightning.sources import BATCH, OUTPUTS, Finder, Key, Source, Step, describe
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.scores.truth import to_truth


@dataclass(frozen=True)
class Task:
    """What is segmented, and what counts as better.

    Args:
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.
        scoring: what counts as better.
        class_names: C names; None numbers the classes.

    Raises:
        ValueError: if the names do not fit.
    """

    num_classes: int
    ignore_index: int | None
    scoring: Scoring
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", check_class_names(self.class_names, self.num_classes))

    @property
    def options(self) -> dict[str, Any]:
        """What a ``Recorder`` and a tuner must know of it."""
        return {"num_classes": self.num_classes, "ignore_index": self.ignore_index, "scoring": self.scoring}


@dataclass(frozen=True)
class Images:
    """Images of one batch, B in each field.

    Args:
        logits: (B, C, *spatial).
        activation: what makes probabilities of them.
        target: labels (B, *spatial) or masks (B, C, *spatial), on the device of the logits.
        cases: see ``Sample``.
        pictures: (B, K, *size) input images; None where nobody draws them.
        names: empty as long as it is open which of them count.
    """

    logits: Tensor
    activation: str
    target: Tensor
    cases: Sequence[str | None]
    pictures: Tensor | None = None
    names: Sequence[str] = ()

    def select(self, kept: dict[int, str]) -> Images:
        """Those at the places in ``kept``, by the names there."""
        names = list(kept.values())
        if len(kept) == len(self.logits):
            return replace(self, names=names)
        index = torch.tensor(list(kept), dtype=torch.long, device=self.logits.device)
        pictures = None if self.pictures is None else self.pictures[index.to(self.pictures.device)]
        cases = [self.cases[place] for place in kept]
        return replace(
            self, logits=self.logits[index], target=self.target[index], cases=cases, pictures=pictures, names=names
        )

    def decide(self, decoder: Any) -> tuple[Tensor, Tensor | None]:
        """What a decoder decides on them, and how likely it took each class to be there, if it knows of that."""
        return decide_knowing(decoder, self.logits, self.activation)


class Image(NamedTuple):
    """One of ``Decided``."""

    name: str
    case: str | None
    logits: Tensor
    calibration: Calibration
    truth: Tensor
    argmax: Tensor
    decided: Tensor
    presence: Tensor | None


@dataclass(frozen=True)
class Decided:
    """Images of one dataloader and both decisions on them.

    Args:
        task: what is segmented.
        images: with their names.
        argmax: the baseline's labels (B, *spatial) or masks (B, C, *spatial).
        decided: RankSEG's, likewise.
        suffix: how the names of the values of the dataloader end.
        presence: (B, C), how likely RankSEG took each class to be there; None where it knows nothing of that.
    """

    task: Task
    images: Images
    argmax: Tensor
    decided: Tensor
    suffix: str = ""
    presence: Tensor | None = None

    @cached_property
    def calibrations(self) -> list[Calibration]:
        """How far the probabilities of each image can be relied upon; measured when first asked for."""
        images, ignored = self.images, self.task.ignore_index
        # One after the other: probabilities of the whole batch are not needed.
        return [
            calibrate(to_probabilities(logits.unsqueeze(0), images.activation)[0], truth, ignored)
            for logits, truth in zip(images.logits, images.target, strict=True)
        ]

    def __iter__(self) -> Iterator[Image]:
        images = self.images
        fields = (
            images.names,
            images.cases,
            images.logits,
            self.calibrations,
            images.target,
            self.argmax,
            self.decided,
            [None] * len(images.names) if self.presence is None else self.presence,
        )
        return map(Image._make, zip(*fields, strict=True))


class Reader:
    """Finds the images in what a step returned and in its batch, and checks that they fit together.

    Args:
        task: what is segmented.
        activation: see ``RankSEGCallback``, as for those that follow.
        logits: looked for in what the step returned alone: the images of a batch may be taken for logits.
        target: looked for in both, as cases and images.
        cases: None makes every image a case of its own.
        image: None looks at the usual places.
        pictures: whether to look for images at all.

    Raises:
        TypeError: if a source is none.
    """

    def __init__(
        self,
        task: Task,
        activation: str,
        *,
        logits: Source,
        target: Source,
        cases: Source | None,
        image: Source | None,
        pictures: bool,
    ) -> None:
        self._task, self.activation, self._pictures = task, activation, pictures
        self.logits, self._target = Finder("logits", logits, (OUTPUTS,)), Finder("target", target)
        self._cases = None if cases is None else Finder("cases", cases)
        self._image = None if image is None else Finder("image", image)

    def read(self, step: Step) -> Images:
        """All images of a batch.

        Raises:
            KeyError: if something is not there.
            TypeError: if it is of the wrong type.
            ValueError: if shapes, numbers or labels do not fit.
        """
        logits = self.find_logits(step)
        target = self._target.tensor(step).to(logits.device)
        _check_number("target", target, logits)
        target = to_truth(target, self._task.num_classes, tuple(logits.shape[2:]), self._task.ignore_index)
        cases = [None] * len(logits) if self._cases is None else _find_cases(self._cases, step, len(logits))
        pictures = _find_pictures(self._image, step) if self._pictures else None
        if pictures is not None:
            _check_number("image", pictures, logits)
        return Images(logits, self.activation, target, cases, pictures)

    def find_logits(self, step: Step) -> Tensor:
        """Those of all images, (B, C, *spatial); the same is raised as by ``read``."""
        logits, classes = self.logits.tensor(step), self._task.num_classes
        check_floating("logits", logits)
        check_shape(logits, "logits")
        if logits.shape[1] != classes:
            raise ValueError(
                f"logits must have shape (B, {classes}, *spatial) for num_classes={classes}, got "
                f"{tuple(logits.shape)}{missing_dimension('logits', tuple(logits.shape), (classes,))}"
            )
        return logits


def _find_cases(finder: Finder, step: Step, count: int) -> list[str]:
    """The cases of the ``count`` images of a batch, such as the patients of slices."""
    found = finder.find(step)
    found = found.tolist() if isinstance(found, Tensor) else found
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise TypeError(
            f"cases={finder.source!r} must lead to a sequence with one for each image, got {describe(found)}"
        )
    if len(found) != count:
        raise ValueError(f"cases={finder.source!r} must lead to one for each of {count} images, got {len(found)}")
    return [str(case) for case in found]


def _find_pictures(finder: Finder | None, step: Step) -> Tensor:
    """The input images: where ``finder`` looks, or by default what batches usually hold.

    That is the item ``"image"`` of a dict, the first item of a tuple, or the batch itself.
    """
    if finder is None and isinstance(step.batch, Tensor):
        return plain(step.batch).detach()
    usual: Key = "image" if isinstance(step.batch, Mapping) else 0
    return (Finder("image", usual, (BATCH,)) if finder is None else finder).tensor(step)


def _check_number(name: str, found: Tensor, logits: Tensor) -> None:
    if found.shape[:1] != logits.shape[:1]:
        raise ValueError(
            f"{name} must hold one for each of the {len(logits)} images of the logits {tuple(logits.shape)}, got shape "
            f"{tuple(found.shape)}"
        )


def are_finite(logits: Tensor, activation: str) -> list[bool]:
    """Which images of (B, C, *spatial) hold neither NaN nor infinite values, as a network gives by itself.

    Raises:
        ValueError: if an image has values that are finite and are to be probabilities, but are none, which is a matter
            of the options; the message says which.
    """
    if not len(logits):
        return []
    within = tuple(range(1, logits.ndim))
    smallest, largest = logits.amin(within), logits.amax(within)
    finite = smallest.isfinite() & largest.isfinite()
    if activation != "identity":
        return finite.tolist()
    outside = finite & ((smallest < -TOLERANCE) | (largest > 1 + TOLERANCE))
    for index in outside.nonzero().flatten().tolist():
        with naming(f"image {index} of the batch"):
            check_range(smallest[index].item(), largest[index].item())
    return finite.tolist()


def check_finite(logits: Tensor, activation: str, names: Sequence[str]) -> None:
    """Raise a ``ValueError`` that names the images without finite values; for decisions that must be made."""
    bad = [name for name, is_finite in zip(names, are_finite(logits, activation), strict=True) if not is_finite]
    if bad:
        raise ValueError(f"NaN or infinite values, which leave nothing to decide, in {', '.join(bad)}")
