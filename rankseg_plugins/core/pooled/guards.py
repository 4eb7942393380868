"""Which classes a rule for the whole data set may pursue, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

#: Of the largest probability of each class in each image, which may fill one more: exactly 1.
BINS = 256
#: Rows of the evidence before those of the bins.
_ROWS = 4
#: Reasons that a warning repeats.
_TOLD = 3


class Guards(NamedTuple):
    """What a class must reach; see ``GlobalRankSEG``."""

    min_images: float
    min_dice: float
    max_spread: float
    min_gain: float


class Evidence(NamedTuple):
    """What images tell of each class (C).

    Args:
        images: their number.
        effective: that of the images that hold the class.
        shown: that of the images where the plain decision shows it.
        peaks: (BINS + 1, C) images by their largest probability.
    """

    images: int
    effective: Tensor
    shown: Tensor
    peaks: Tensor

    @classmethod
    def of(cls, sums: Tensor) -> Evidence:
        """From the sum of what ``evidence_of`` gives of each image."""
        number, once, squared, shown = sums[:_ROWS]
        effective = once.square() / squared.clamp(min=torch.finfo(torch.float64).tiny)
        return cls(int(number[0]), effective, shown, sums[_ROWS:])

    def spread(self, least: Tensor) -> Tensor:
        """The number of images where the probability of a class reaches ``least`` (C), to the width of a bin."""
        bins = torch.arange(len(self.peaks), device="cpu").view(-1, 1)
        return (self.peaks * (bins >= _bin(least))).sum(0)


def no_evidence(classes: int) -> Tensor:
    """The sum of no images."""
    return torch.zeros(_ROWS + BINS + 1, classes, dtype=torch.float64, device="cpu")


def evidence_of(probs: Tensor, truth: Tensor, masks: bool) -> Tensor:
    """One image, to be summed: (rows, C) float64 on the CPU.

    Args:
        probs: (N, C) of its pixels.
        truth: (N, C) likewise; without labels ``probs``.
        masks: whether the plain decision is the threshold 1/2, or argmax.
    """
    classes = probs.shape[1]
    held = truth.double().square().mean(0)
    shown = (probs > 0.5).any(0) if masks else torch.bincount(probs.argmax(1), minlength=classes) > 0
    peaks = torch.nn.functional.one_hot(_bin(probs.amax(0)), BINS + 1).T
    return torch.cat([torch.stack([torch.ones_like(held), held, held.square(), shown.double()]), peaks]).cpu()


def without_evidence(
    guards: Guards, found: Evidence, volumes: Tensor, dice: Tensor, plain: str | None
) -> dict[int, str]:
    """Classes that nothing may be fitted to, and why.

    Args:
        guards: what they must reach.
        found: of the images.
        volumes: (C,) of each class in the sample.
        dice: (C,) pooled Dice of the best mask.
        plain: the plain decision, in words, which must show a class where there are no labels; None: there are.
    """
    left_out = {}
    for label, dice_of in enumerate(dice.tolist()):
        effective, shown = found.effective[label].item(), int(found.shown[label])
        # 1e-9: images that are all alike count in full, whatever rounding says.
        if volumes[label] <= 0:
            left_out[label] = "it does not occur"
        elif effective < guards.min_images - 1e-9:
            left_out[label] = (
                f"an effective number of {effective:.1f} images holds it, to which images that hold little of it "
                f"hardly count; min_images={guards.min_images:g}"
            )
        elif dice_of < guards.min_dice:
            left_out[label] = f"its best mask promises a pooled Dice of {dice_of:.3f}; min_dice={guards.min_dice:g}"
        elif plain is not None and shown < guards.min_images:
            left_out[label] = f"{plain} shows it in {shown} images; min_images={guards.min_images:g}"
    return left_out


def too_widely_shown(guards: Guards, found: Evidence, least: Tensor, pursued: Tensor, plain: str) -> dict[int, str]:
    """Classes that a rule shows in many more images than there is evidence of, and why they are not to be pursued.

    Args:
        guards: what they must reach.
        found: of the images.
        least: (C,) probability with which the rule shows a class.
        pursued: (C,) bool, those that the rule was fitted to.
        plain: the plain decision, in words.
    """
    spread = found.spread(least)
    # Of a class of few images probabilities do not say which; what most images hold is right more often than not.
    unsure = (spread > guards.max_spread * found.shown.clamp(min=1)) & (found.effective < found.images / 2)
    return {
        label: f"a rule fitted to it shows it in {int(spread[label])} images, {plain} in {int(found.shown[label])}, "
        f"and an effective number of {found.effective[label]:.1f} of {found.images} holds it; "
        f"max_spread={guards.max_spread:g}"
        for label in (pursued & unsure).nonzero()[:, 0].tolist()
    }


def too_little(guards: Guards, before: float, after: float, pursued: Tensor, plain: str) -> dict[int, str]:
    """All pursued classes and why not to pursue them, if the rule promises too little."""
    if after - before >= guards.min_gain:
        return {}
    reason = f"the rule promises {after - before:.4f} over {plain}; min_gain={guards.min_gain:g}"
    return dict.fromkeys(pursued.nonzero()[:, 0].tolist(), reason)


def told(left_out: dict[int, str]) -> str:
    """The reasons, those of several classes once, and of many only the first."""
    by_reason: dict[str, list[int]] = {}
    for label, reason in left_out.items():
        by_reason.setdefault(reason, []).append(label)
    parts = [f"{_classes(labels)}: {reason}" for reason, labels in by_reason.items()]
    more = [f"{len(parts) - _TOLD} more in left_out of the fit"] if len(parts) > _TOLD else []
    return ". ".join([*parts[:_TOLD], *more])


def _classes(labels: Sequence[int]) -> str:
    shown = ", ".join(map(str, labels[:_TOLD])) + (", ..." if len(labels) > _TOLD else "")
    return f"Class {shown}" if len(labels) == 1 else f"Classes {shown}"


def _bin(probs: Tensor) -> Tensor:
    return (probs.float().clamp(min=0) * BINS).long()
