"""Whether multiclass probabilities can be such: they add up to 1 over the classes. A few pixels tell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rankseg_plugins._warning import warn
from rankseg_plugins.core.inputs.probabilities import TOLERANCE
from rankseg_plugins.core.inputs.tracing import is_blind

#: The probabilities of a pixel add up to 1 to within this, bfloat16 of many classes included.
SUM_TOLERANCE = 0.02
#: The likely cause of what is wrong with axes.
CLASSES_LAST = (
    "the classes seem to be the last dimension of the probabilities and must come before the spatial ones: movedim"
)
#: Such sums are normal at a few pixels, such as the rim of what was resampled: not at more than this share.
_ODD_SHARE = 0.05
#: Pixels of an image that are looked at along each spatial dimension, and images of a batch.
_LOOKED_AT, _IMAGES = 16, 8


class ChecksSums(nn.Module):
    """A decoder that warns, once, of multiclass probabilities that do not add up to 1.

    Attributes:
        check_sums: whether it still looks. A warning ends it, and so does the first call on a device that would have
            to be waited for; set it to False to decide on scores on purpose.
    """

    check_sums = True
    output_mode: str

    def _look_at_sums(
        self, probs: Tensor, valid_mask: Tensor | None = None, activate: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if not self.check_sums or self.output_mode != "multiclass" or is_blind():
            return
        if probs.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        problem = describe_sums(probs, valid_mask, activate)
        if problem is not None or probs.device.type != "cpu":
            self.check_sums = False
        if problem is not None:
            warn(f"{problem}. To decide on scores on purpose, set check_sums = False")


def describe_sums(
    probs: Tensor, valid_mask: Tensor | None = None, activate: Callable[[Tensor], Tensor] | None = None
) -> str | None:
    """What is wrong with multiclass probabilities that do not add up to 1 over the classes; None if they do.

    A grid of pixels of some images is looked at. Pixels without any probability, such as those outside of a crop, are
    left out, and so are NaN. Values that are no probabilities are refused elsewhere, in other words.

    Args:
        probs: (B, C, *spatial), floating point.
        valid_mask: optional bool, (B, *spatial) or (*spatial); False leaves a pixel out.
        activate: what makes probabilities of some pixels of ``probs``; None if these are some.

    Example:
        >>> describe_sums(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]))
        >>> describe_sums(torch.tensor([[[0.9, 0.2], [0.9, 0.8]]]))[:60]
        'multiclass probabilities must add up to 1 over the classes ('
    """
    grid = tuple(slice(None, None, -(-size // _LOOKED_AT)) for size in probs.shape[2:])
    images = slice(None, None, max(1, -(-len(probs) // _IMAGES)))
    dtype = torch.float64 if probs.dtype == torch.float64 else torch.float32
    looked_at = probs[(images, slice(None), *grid)]
    if activate is not None:
        looked_at = activate(looked_at)
    sums = looked_at.sum(1, dtype=dtype)
    if not sums.numel() or (sums - 1).abs_().amax().item() <= SUM_TOLERANCE:
        return None  # what is usual, found in few operations: small images are decided in as many
    judged = sums > 0
    if valid_mask is not None:
        judged &= valid_mask.expand(probs.shape[0], *probs.shape[2:])[(images, *grid)]
    odd = judged & ((sums - 1).abs() > SUM_TOLERANCE)
    if not int(odd.sum()) > _ODD_SHARE * int(judged.sum()):
        return None
    if bool(((looked_at < -TOLERANCE) | (looked_at > 1 + TOLERANCE)).any()):
        return None
    low, high = (each.item() for each in sums[judged].aminmax())
    causes = (
        ". Likely causes: sigmoid channels or overlapping regions (output_mode='multilabel', with masks as truth), a "
        "missing batch or channel dimension (probs.unsqueeze(0) adds the batch, probs.unsqueeze(1) the channel), or "
        "scores (activation='normalize' divides them by their sum)"
    )
    return (
        "multiclass probabilities must add up to 1 over the classes (dimension 1 of (B, C, *spatial)), got sums from "
        f"{low:.4g} to {high:.4g} for shape {tuple(probs.shape)}"
        f"{f'; {CLASSES_LAST}' if activate is None and _add_up_at_last(probs) else causes}"
    )


def _add_up_at_last(probs: Tensor) -> bool:
    """Whether some probabilities (B, C, *spatial) add up to 1 over their last dimension."""
    some = probs[(*(slice(None, None, -(-size // _LOOKED_AT)) for size in probs.shape[:-1]),)]
    sums = some.sum(-1, dtype=torch.float64)
    return bool(((sums - 1).abs() <= SUM_TOLERANCE).all())
