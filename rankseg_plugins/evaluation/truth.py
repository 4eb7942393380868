"""The ground truth as users hold it, brought into the two forms that scores take."""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg_plugins.evaluation.areas import Areas, areas


def to_truth(target: Tensor, num_classes: int, spatial: tuple[int, ...], ignore_index: int | None = None) -> Tensor:
    r"""Bring a ground truth into one of two forms: integer labels or bool masks.

    Args:
        target: class labels (B, \*spatial) or (B, 1, \*spatial), or one mask per class (B, C, \*spatial) of zeros and
            ones. Any dtype that holds whole numbers, floating point included.
        num_classes: C. With 1 the labels are 1 for foreground and 0 for background.
        spatial: the spatial size of the prediction.
        ignore_index: label of the pixels that do not count.

    Returns:
        int64 labels (B, \*spatial), or bool masks (B, C, \*spatial).

    Raises:
        TypeError: if ``target`` is not a tensor.
        ValueError: if its shape fits neither form, a value is not a whole number, a mask holds anything but 0 and 1,
            or a label is neither a class nor ``ignore_index``.

    Example:
        >>> to_truth(torch.tensor([[[0.0, 1.0]]]), num_classes=1, spatial=(2,))  # (B, 1, 2), as networks are trained
        tensor([[0, 1]])
        >>> to_truth(torch.tensor([[[1, 0], [0, 1]]]), num_classes=2, spatial=(2,))
        tensor([[[ True, False],
                 [False,  True]]])
    """
    if not isinstance(target, Tensor):
        raise TypeError(f"target must be a torch.Tensor, got {type(target).__name__}")
    shape, batch = tuple(target.shape), target.shape[:1]
    if shape == (*batch, 1, *spatial):
        target = target.squeeze(1)
    elif shape not in ((*batch, *spatial), (*batch, num_classes, *spatial)):
        raise ValueError(
            f"target must be labels (B, {_size(spatial)}) or masks (B, {num_classes}, {_size(spatial)}) to fit the "
            f"prediction, got shape {shape}; resize the logits to the target (or the target to the logits) first"
        )
    if target.is_floating_point() and not (target == target.round()).all():
        raise ValueError("target must hold whole numbers (hard labels), got fractions")
    if target.ndim == len(spatial) + 2:
        _check_masks(target)
        return target.bool()
    target = target.long()
    _check_labels(target, max(num_classes, 2) - 1, ignore_index)
    return target


def count(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None) -> Areas:
    r"""Areas of every image and class, for every form of truth that :func:`to_truth` takes.

    Args:
        prediction: integer labels (B, \*spatial) or bool masks (B, C, \*spatial). With one class, labels are 0 or 1.
        target: see :func:`to_truth`.
        num_classes: C.
        ignore_index: label of the pixels that count for no class, in truth and prediction alike.

    Returns:
        Counts (B, C); see :func:`rankseg_plugins.evaluation.areas.areas`.

    Raises:
        TypeError: if a tensor is of the wrong kind.
        ValueError: if shapes or labels do not fit.

    Example:
        >>> masks = torch.tensor([[[True, True, True]]])
        >>> count(masks, torch.tensor([[1, 0, 255]]), num_classes=1, ignore_index=255)
        Areas(intersection=tensor([[1]]), prediction=tensor([[2]]), label=tensor([[1]]))
    """
    if not isinstance(prediction, Tensor):
        raise TypeError(f"preds must be a torch.Tensor, got {type(prediction).__name__}")
    if prediction.is_floating_point():
        raise TypeError(
            f"preds must be integer labels or bool masks, got {prediction.dtype}: decode probabilities first"
        )
    spatial = tuple(prediction.shape[2 if prediction.dtype == torch.bool else 1 :])
    truth = to_truth(target, num_classes, spatial, ignore_index)
    if num_classes > 1:
        return areas(prediction, truth, num_classes, ignore_index)
    # One class: areas() numbers its classes from 0, binary labels call the only class 1.
    kept = torch.ones_like(truth, dtype=torch.bool) if ignore_index is None else truth != ignore_index
    predicted = prediction if prediction.dtype == torch.bool else (prediction == 1).unsqueeze(1)
    return areas(predicted & kept.unsqueeze(1), ((truth == 1) & kept).unsqueeze(1), 1)


def _check_masks(target: Tensor) -> None:
    strange = (target != 0) & (target != 1)
    if strange.any():
        raise ValueError(f"target masks must hold 0 and 1 only, got {target[strange][0].item():g}")


def _check_labels(target: Tensor, highest: int, ignore_index: int | None) -> None:
    strange = (target < 0) | (target > highest)
    if ignore_index is not None:
        strange &= target != ignore_index
    if strange.any():
        hint = "no ignore_index was given" if ignore_index is None else f"ignore_index={ignore_index}"
        raise ValueError(f"target holds the label {target[strange][0].item()}, allowed are 0 to {highest} ({hint})")


def _size(spatial: tuple[int, ...]) -> str:
    return ", ".join(map(str, spatial))
