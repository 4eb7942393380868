"""The ground truth as users hold it, brought into the forms that scores take: labels or masks."""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import read_index, read_integer
from rankseg_plugins.core.inputs.plausibility import CLASSES_LAST
from rankseg_plugins.core.inputs.probabilities import check_classes, check_tensor, drawn_in_white, plain, widened
from rankseg_plugins.scores.areas import Areas, areas_of_known, first_outside, say_ignore_index

#: Labels that a message lists of those that are not allowed.
SHOWN = 5
#: What a message says of several classes beside one channel.
SINGLE = "a single channel knows one class and all else"


def to_truth(target: Tensor, num_classes: int, spatial: tuple[int, ...], ignore_index: int | None = None) -> Tensor:
    """Bring a ground truth into one form: integer labels, or masks.

    Args:
        target: class labels (B, *spatial) or (B, 1, *spatial), or one mask per class (B, C, *spatial) of zeros and
            ones. Any dtype that holds whole numbers, floating point included.
        num_classes: C. With 1 the labels are 1 for foreground and 0 for background.
        spatial: the spatial size of the prediction.
        ignore_index: label of the pixels that do not count. In masks it leaves a pixel out of the mask that holds it,
            and of no other, as TorchMetrics' multilabel metrics do.

    Returns:
        int64 labels (B, *spatial), or bool masks (B, C, *spatial); int64 masks of 0, 1 and ``ignore_index`` if one of
        them holds that. ``known_pixels`` says what counts.

    Raises:
        TypeError: if ``target`` is not a tensor.
        ValueError: if its shape fits neither form, a value is not a whole number, a mask holds anything but 0, 1 and
            ``ignore_index``, which cannot be 0 or 1 there, or a label is neither a class nor ``ignore_index``.

    Example:
        >>> to_truth(torch.tensor([[[0.0, 1.0]]]), num_classes=1, spatial=(2,))  # (B, 1, 2), as networks are trained
        tensor([[0, 1]])
        >>> to_truth(torch.tensor([[[1, 0], [0, 1]]]), num_classes=2, spatial=(2,))
        tensor([[[ True, False],
                 [False,  True]]])
    """
    target = widened(plain(check_tensor("target", target)))
    shape, batch = tuple(target.shape), target.shape[:1]
    if shape == (*batch, 1, *spatial):
        target = target.squeeze(1)
    elif shape not in ((*batch, *spatial), (*batch, num_classes, *spatial)):
        hint = "resize the logits to the target (or the target to the logits) first"
        axes = describe_axes(shape[1:], num_classes, spatial)
        if axes is not None:
            hint = axes
        elif shape == spatial:
            hint = "for a single image, target.unsqueeze(0) adds the batch dimension"
        elif shape[2:] == spatial:
            hint = f"masks must be one for each of {num_classes} classes; or the prediction lacks a dimension"
        raise ValueError(
            f"target must be labels (B, {_size(spatial)}) or masks (B, {num_classes}, {_size(spatial)}) to fit the "
            f"prediction, got shape {shape}; {hint}"
        )
    if target.is_complex() or (target.is_floating_point() and not (target == target.round()).all()):
        raise ValueError("target must hold whole numbers (hard labels), got fractions")
    if target.ndim == len(spatial) + 2:
        return _to_masks(target, ignore_index)
    target = target.long()
    _check_labels(target, num_classes, ignore_index)
    return target


def describe_axes(size: tuple[int, ...], classes: int, spatial: tuple[int, ...]) -> str | None:
    """Which axes of probabilities are in the wrong place, if labels of a size say so; None if they do not.

    Args:
        size: of the labels of one image.
        classes: what was taken for the number of classes.
        spatial: what was taken for the spatial size.

    Example:
        >>> describe_axes((24, 32), 24, (32, 3))
        'the classes seem to be the last dimension of the probabilities and must come before the spatial ones: movedim'
    """
    if classes == 1 and size == spatial[1:]:
        return "the probabilities of one image have a dimension too many, such as that of a batch: probs[0]"
    if size == (classes, *spatial[:-1]):
        return CLASSES_LAST
    return None


def known_pixels(truth: Tensor, ignore_index: int | None) -> Tensor | None:
    """Where a truth that ``to_truth`` gave counts: bool, its own shape; None if everywhere."""
    if truth.dtype == torch.bool or ignore_index is None:
        return None
    return truth != ignore_index


def count(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None) -> Areas:
    """Areas of every image and class, for every form of truth that ``to_truth`` takes.

    Args:
        prediction: integer labels (B, *spatial) or bool masks (B, C, *spatial). With one class, labels are 0 or 1.
        target: see ``to_truth``.
        num_classes: C.
        ignore_index: label of the pixels that count for no class, in truth and prediction alike; within masks see
            ``to_truth``.

    Returns:
        Counts (B, C); see ``rankseg_plugins.scores.areas``.

    Raises:
        TypeError: if a tensor is of the wrong kind.
        ValueError: if shapes or labels do not fit.

    Example:
        >>> masks = torch.tensor([[[True, True, True]]])
        >>> count(masks, torch.tensor([[1, 0, 255]]), num_classes=1, ignore_index=255)
        Areas(intersection=tensor([[1]]), prediction=tensor([[2]]), label=tensor([[1]]))
    """
    prediction = plain(check_tensor("preds", prediction))
    if prediction.is_floating_point():
        raise TypeError(
            f"preds must be integer labels or bool masks, got {prediction.dtype}: decode probabilities first"
        )
    if prediction.dtype == torch.bool:
        check_classes("preds", prediction, num_classes)
    elif _is_one_hot(prediction, num_classes) and _is_one_hot(target, num_classes, prediction.shape):
        raise ValueError(
            f"preds are integers, so labels (B, *spatial), but look like one-hot masks of {num_classes} classes: give "
            "preds.bool() or preds.argmax(1)"
        )
    spatial = tuple(prediction.shape[2 if prediction.dtype == torch.bool else 1 :])
    truth = to_truth(target, num_classes, spatial, ignore_index)
    num_classes, ignore_index = read_integer("num_classes", num_classes), read_index("ignore_index", ignore_index)
    return count_known(prediction, truth, num_classes, ignore_index)


def count_known(prediction: Tensor, truth: Tensor, num_classes: int, ignore_index: int | None = None) -> Areas:
    """``count`` for a decision that is one, and a truth that ``to_truth`` gave: values are not looked at."""
    if num_classes > 1:
        return areas_of_known(prediction, truth, num_classes, ignore_index)
    # One class: areas number their classes from 0, binary labels call the only class 1.
    predicted = prediction if prediction.dtype == torch.bool else (prediction == 1).unsqueeze(1)
    true = truth if truth.ndim == predicted.ndim else truth.unsqueeze(1)
    return areas_of_known(predicted, true, 1, ignore_index)


def _to_masks(target: Tensor, ignore_index: int | None) -> Tensor:
    if ignore_index in (0, 1):
        raise ValueError(
            f"ignore_index={ignore_index} is a value of the target masks themselves: mark what they are to ignore by "
            "another value, such as 255, or give labels"
        )
    if target.dtype == torch.bool:
        return target
    if first_outside(target, 1, None) is None:
        return target.bool()
    value = first_outside(target, 1, ignore_index)
    if value is None:
        return target.long()
    hint = say_ignore_index(ignore_index) + drawn_in_white(target, value)
    raise ValueError(f"target masks must hold 0 and 1 only, got {value:g} ({hint})")


def _is_one_hot(labels: Tensor, num_classes: int, shape: torch.Size | None = None) -> bool:
    if not isinstance(labels, Tensor) or labels.ndim < 3 or labels.shape[1] != num_classes or num_classes == 1:
        return False
    if not labels.numel() or shape not in (None, labels.shape):
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _check_labels(target: Tensor, num_classes: int, ignore_index: int | None) -> None:
    highest = max(num_classes, 2) - 1
    label = first_outside(target, highest, ignore_index)
    if label is None:
        return
    drawn = drawn_in_white(target, label) if highest == 1 else ""
    known = torch.tensor([*range(highest + 1), *([] if ignore_index is None else [ignore_index])])
    found = target[~torch.isin(target, known.to(target))].unique().tolist()
    named = ", ".join(map(str, found[:SHOWN])) + (", ..." if len(found) > SHOWN else "")
    alone = f"; {SINGLE}" if num_classes == 1 and not drawn else ""
    raise ValueError(
        f"target holds the label{'s' * (len(found) > 1)} {named}, allowed are 0 to {highest} "
        f"({say_ignore_index(ignore_index)}{drawn}){alone}"
    )


def _size(spatial: tuple[int, ...]) -> str:
    return ", ".join(map(str, spatial))
