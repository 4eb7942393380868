"""The images of a batch: probabilities, truth and what else the callback was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.core.probabilities import TOLERANCE, check_range, check_shape, missing_dimension, to_probabilities
from rankseg_plugins.lightning.sources import OUTPUTS, Finder, Source, find_cases, find_images
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.scores.truth import to_truth


@dataclass
class Images:
    r"""Images of one batch, B in each field.

    Args:
        probs: (B, C, \*spatial).
        target: labels (B, \*spatial) or masks (B, C, \*spatial), on the device of the probabilities.
        cases: see :class:`~rankseg_plugins.comparison.Sample`.
        pictures: (B, K, \*size) input images; None where nobody draws them.
    """

    probs: Tensor
    target: Tensor
    cases: Sequence[str | None]
    pictures: Tensor | None

    def select(self, kept: Sequence[int]) -> Images:
        """Those at the places ``kept``."""
        if len(kept) == len(self.probs):
            return self
        index = torch.tensor(kept, dtype=torch.long, device=self.probs.device)
        pictures = None if self.pictures is None else self.pictures[index.to(self.pictures.device)]
        return Images(self.probs[index], self.target[index], [self.cases[place] for place in kept], pictures)


class Reader:
    """Finds the images in what a step returned and in its batch, and checks that they fit together.

    Args:
        num_classes: C.
        activation: see :class:`~rankseg_plugins.lightning.RankSEGCallback`, as for those that follow.
        ignore_index: label of the truth whose pixels do not count.
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
        num_classes: int,
        activation: str,
        ignore_index: int | None,
        *,
        logits: Source,
        target: Source,
        cases: Source | None,
        image: Source | None,
        pictures: bool,
    ) -> None:
        self.num_classes, self.activation, self.ignore_index = num_classes, activation, ignore_index
        self.logits, self._target = Finder("logits", logits, (OUTPUTS,)), Finder("target", target)
        self._cases = None if cases is None else Finder("cases", cases)
        self._image = None if image is None else Finder("image", image)
        self._pictures = pictures

    def read(self, outputs: Any, batch: Any, step: str) -> Images:
        """All images of a batch.

        Raises:
            KeyError: if something is not there.
            TypeError: if it is of the wrong type.
            ValueError: if shapes, numbers or labels do not fit.
        """
        probs = self.probabilities(outputs, batch, step)
        target = self._target.tensor(outputs, batch, step).to(probs.device)
        _check_number("target", target, probs)
        target = to_truth(target, self.num_classes, tuple(probs.shape[2:]), self.ignore_index)
        cases: Sequence[str | None] = [None] * len(probs)
        if self._cases is not None:
            cases = find_cases(self._cases, outputs, batch, step, len(probs))
        pictures = find_images(self._image, outputs, batch, step) if self._pictures else None
        if pictures is not None:
            _check_number("image", pictures, probs)
        return Images(probs, target, cases, pictures)

    def probabilities(self, outputs: Any, batch: Any, step: str) -> Tensor:
        r"""Those of all images, (B, C, \*spatial); the same is raised as by :meth:`read`."""
        logits = self.logits.tensor(outputs, batch, step)
        check_shape(logits)
        if logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits must have shape (B, {self.num_classes}, *spatial) for num_classes={self.num_classes}, got "
                f"{tuple(logits.shape)}{missing_dimension('logits', tuple(logits.shape), (self.num_classes,))}"
            )
        return to_probabilities(logits, self.activation)


def are_finite(probs: Tensor) -> list[bool]:
    r"""Which images of (B, C, \*spatial) hold neither NaN nor infinite probabilities, as a network gives by itself.

    Raises:
        ValueError: if an image has values that are finite and no probabilities, which is a matter of the options; the
            message says which.
    """
    if not len(probs):
        return []
    smallest, largest = probs.flatten(1).aminmax(dim=1)
    finite = smallest.isfinite() & largest.isfinite()
    outside = finite & ((smallest < -TOLERANCE) | (largest > 1 + TOLERANCE))
    for index in outside.nonzero().flatten().tolist():
        with naming(f"image {index} of the batch"):
            check_range(smallest[index].item(), largest[index].item())
    return finite.tolist()


def check_finite(probs: Tensor, names: Sequence[str]) -> None:
    """Raise a ``ValueError`` that names the images without probabilities; for decisions that must be made."""
    bad = [name for name, is_finite in zip(names, are_finite(probs), strict=True) if not is_finite]
    if bad:
        raise ValueError(f"NaN or infinite probabilities, which leave nothing to decide, in {', '.join(bad)}")


def _check_number(name: str, found: Tensor, probs: Tensor) -> None:
    if found.shape[:1] != probs.shape[:1]:
        raise ValueError(
            f"{name} must hold one for each of the {len(probs)} images of the logits {tuple(probs.shape)}, got shape "
            f"{tuple(found.shape)}"
        )
