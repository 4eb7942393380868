"""Counts first: what every score of a segmentation is a short function of.

For each image and class: the pixels that prediction and truth share, and those that each of them holds. Counts are
integers, so adding them up over batches and processes loses nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.options import read_index, read_integer
from rankseg_plugins.core.inputs.probabilities import check_tensor, class_masks, extent, plain
from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.kernels import uses_numba

_KINDS = (torch.uint8, torch.int16, torch.int32, torch.int64)


class Areas(NamedTuple):
    """Pixel counts, each (B, C) int64.

    Args:
        intersection: pixels of the class in both prediction and truth.
        prediction: pixels of the class in the prediction.
        label: pixels of the class in the truth.

    Example:
        >>> Areas(torch.tensor([[1]]), torch.tensor([[2]]), torch.tensor([[3]])).union
        tensor([[4]])
    """

    intersection: Tensor
    prediction: Tensor
    label: Tensor

    @property
    def union(self) -> Tensor:
        """Pixels of the class in prediction or truth."""
        return self.prediction + self.label - self.intersection


def areas(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None) -> Areas:
    """Count the areas of every image and class.

    Args:
        prediction: integer labels (B, *spatial), or bool masks (B, num_classes, *spatial). Labels outside
            0..num_classes - 1, such as void, count for no class.
        target: truth in either form, independent of the form of ``prediction``, or integer masks
            (B, num_classes, *spatial) of 0, 1 and ``ignore_index``.
        num_classes: C, at least 1. For binary masks of one channel it is 1.
        ignore_index: label of the truth whose pixels count neither in the prediction nor in the truth; in integer
            masks, for the class whose mask holds it. With labels it may lie inside the class range.

    Returns:
        The counts of every image, (B, num_classes).

    Raises:
        TypeError: if a tensor is neither integer labels nor bool masks.
        ValueError: if the shapes differ, or the truth holds a label outside the class range, or another value in masks.

    Example:
        >>> areas(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 255]]), num_classes=2, ignore_index=255)
        Areas(intersection=tensor([[1, 0]]), prediction=tensor([[1, 1]]), label=tensor([[2, 0]]))
    """
    prediction, target = plain(check_tensor("prediction", prediction)), plain(check_tensor("target", target))
    ignore_index = read_index("ignore_index", ignore_index)
    num_classes = read_integer("num_classes", num_classes, least=1)
    masks = _check(prediction, target, num_classes)
    highest = 1 if masks else num_classes - 1
    value = None if target.dtype == torch.bool else first_outside(target, highest, ignore_index)
    if value is not None:
        label = f"holds the label {value}, allowed are 0 to {highest}"
        problem = f"masks must hold 0 and 1 only, got {value}" if masks else label
        raise ValueError(f"target {problem} ({say_ignore_index(ignore_index)})")
    return areas_of_known(prediction, target, num_classes, ignore_index)


def areas_of_known(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = None) -> Areas:
    """``areas`` for a truth whose values were looked at before."""
    masks = _check(prediction, target, num_classes)
    if not masks and target.device.type == prediction.device.type == "cpu" and not is_blind() and uses_numba():
        from rankseg_plugins.core.kernels.cpu.counts import counted

        decided = prediction if prediction.dtype == torch.bool else prediction.long()
        return Areas(*counted(decided, target.long(), num_classes, ignore_index))
    kept = None if target.dtype == torch.bool or ignore_index is None else target != ignore_index
    if not masks:
        return _areas_of_labels(prediction, target.long(), kept, num_classes)
    true, predicted = target == 1, _as_masks(prediction, num_classes)
    if kept is not None:
        true, predicted = true & kept, predicted & kept
    return Areas(*(mask.flatten(2).sum(2) for mask in (predicted & true, predicted, true)))


def _areas_of_labels(prediction: Tensor, target: Tensor, kept: Tensor | None, num_classes: int) -> Areas:
    # What does not count goes to a class of its own: faster than leaving pixels out.
    nowhere = num_classes
    if prediction.dtype == torch.bool:
        index = target if kept is None else target.where(kept, 0)
        held = prediction.gather(1, index.unsqueeze(1)).squeeze(1)
        number = (prediction if kept is None else prediction & kept.unsqueeze(1)).flatten(2).sum(2)
    else:
        prediction = _within(prediction.long(), num_classes)
        held = prediction == target
        number = _count(prediction if kept is None else prediction.where(kept, nowhere), num_classes)
    if kept is not None:
        target = target.where(kept, nowhere)
    return Areas(_count(target.where(held, nowhere), num_classes), number, _count(target, num_classes))


def _within(labels: Tensor, num_classes: int) -> Tensor:
    """Labels of which those that are no class are ``num_classes``."""
    if not labels.numel():
        return labels
    low, high = extent(labels)
    return (
        labels
        if low >= 0 and high <= num_classes
        else labels.where((labels >= 0) & (labels < num_classes), num_classes)
    )


def _count(labels: Tensor, num_classes: int) -> Tensor:
    """Pixels of every image and class, (B, C), from labels of 0 to ``num_classes``."""
    images, width = len(labels), num_classes + 1
    # The narrowest type takes a third of the time.
    kind = next(each for each in _KINDS if images * width - 1 <= torch.iinfo(each).max)
    first = torch.arange(0, images * width, width, device=labels.device, dtype=kind)
    numbered = labels.flatten(1).to(kind) + first.unsqueeze(1)
    return torch.bincount(numbered.flatten(), minlength=images * width).view(images, width)[:, :num_classes]


def _as_masks(labels: Tensor, num_classes: int) -> Tensor:
    return labels if labels.dtype == torch.bool else class_masks(labels, num_classes)


def _check(prediction: Tensor, target: Tensor, num_classes: int) -> bool:
    """Whether the truth is masks."""
    shapes: list[tuple[int, ...]] = []
    for name, tensor in (("prediction", prediction), ("target", target)):
        if tensor.is_floating_point() or tensor.is_complex():
            raise TypeError(
                f"{name} must be integer labels (B, *spatial) or bool masks (B, C, *spatial), got {tensor.dtype}"
            )
        shape = tuple(tensor.shape)
        masks = tensor.dtype == torch.bool or (name == "target" and len(shape) == len(shapes[0]) + 1)
        if masks:
            if len(shape) < 3 or shape[1] != num_classes:
                raise ValueError(f"{name} masks must have shape (B, {num_classes}, *spatial), got {shape}")
            shape = (shape[0], *shape[2:])
        elif len(shape) < 2:
            raise ValueError(f"{name} labels must have shape (B, *spatial), got {shape}")
        shapes.append(shape)
    if shapes[0] != shapes[1]:
        raise ValueError(f"prediction and target must cover the same pixels, got {shapes[0]} and {shapes[1]}")
    return masks


def first_outside(target: Tensor, highest: int, ignore_index: int | None) -> float | None:
    """The first value that neither lies in 0 to ``highest`` nor is ``ignore_index``; None if there is none."""
    if target.dtype in _KINDS and target.numel():
        # One look, where there is mostly nothing to be found.
        low, high = extent(target)
        if low >= 0 and high <= highest:
            return None
    # Masks may be of 16 unsigned bits or more, which torch compares for equality alone.
    outside = (target != 0) & (target != 1) if highest == 1 else (target < 0) | (target > highest)
    if ignore_index is not None:
        outside &= target != ignore_index
    return target[outside][0].item() if outside.any() else None


def say_ignore_index(ignore_index: int | None) -> str:
    """What messages about labels say of the one that is left out."""
    return "no ignore_index was given" if ignore_index is None else f"ignore_index={ignore_index}"
