"""Labels that a fit takes beside its probabilities, and those that toolkits keep: one for each pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.probabilities import check_tensor, class_masks, drawn_in_white, widened


def read_truth(
    labels: object, probs: Tensor, ignore_index: int | None, valid_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Masks of every class (B, C, *spatial), and which pixels count (B, *spatial), both bool.

    Args:
        labels: (B, *spatial) or (B, 1, *spatial) in 0..C-1, with one channel 0 and 1; or masks (B, C, *spatial) of
            zeros and ones. Any dtype that holds whole numbers.
        probs: (B, C, *spatial), whose device the result is on.
        ignore_index: label of pixels that do not count; not with masks.
        valid_mask: optional bool (B, *spatial) or (*spatial); where it is False, pixels do not count whatever their
            label.

    Raises:
        TypeError: if ``labels`` are no tensor.
        ValueError: for wrong shapes or values, or an ``ignore_index`` with masks.

    Example:
        >>> masks, known = read_truth(torch.tensor([[1, 0, 255]]), torch.rand(1, 2, 3), ignore_index=255)
        >>> masks.tolist(), known.tolist()
        ([[[False, True, False], [True, False, False]]], [[True, True, False]])
    """
    labels, classes = _read_labels(labels, tuple(probs.shape)).to(probs.device), probs.shape[1]
    everywhere = torch.ones(len(probs), *probs.shape[2:], dtype=torch.bool, device=probs.device)
    everywhere = everywhere if valid_mask is None else everywhere & valid_mask
    if labels.dtype == torch.bool:
        if ignore_index is not None:
            raise ValueError(f"ignore_index={ignore_index} has no effect with masks; leave pixels out by valid_mask")
        return labels & everywhere.unsqueeze(1), everywhere
    known = everywhere if ignore_index is None else everywhere & (labels != ignore_index)
    highest = max(classes, 2) - 1
    strange = known & ((labels < 0) | (labels > highest))
    if strange.any():
        label = labels[strange][0].item()
        hint = drawn_in_white(labels, label) if highest == 1 else ""
        raise ValueError(f"labels must lie in 0 to {highest} or be ignore_index={ignore_index}, got {label}{hint}")
    return class_masks(labels, classes, first=int(classes == 1)) & known.unsqueeze(1), known


def _read_labels(labels: object, shape: tuple[int, ...]) -> Tensor:
    """int64 labels (B, *spatial), or bool masks of the shape of the probabilities."""
    labels = widened(check_tensor("labels", labels))
    plain = (shape[0], *shape[2:])
    if tuple(labels.shape) == (shape[0], 1, *shape[2:]):
        labels = labels.squeeze(1)
    elif tuple(labels.shape) not in (plain, shape):
        single = tuple(labels.shape) == shape[2:]
        lacks = "; for a single image, labels.unsqueeze(0) adds the batch dimension" if single else ""
        raise ValueError(f"labels must be labels {plain} or masks {shape}, got shape {tuple(labels.shape)}{lacks}")
    if labels.is_floating_point() and not (labels == labels.round()).all():
        raise ValueError("labels must hold whole numbers, got fractions")
    if labels.ndim < len(shape):
        return labels.long()
    strange = labels[(labels != 0) & (labels != 1)]
    if len(strange):
        value = strange[0].item()
        raise ValueError(f"labels that are masks must hold 0 and 1 only, got {value:g}{drawn_in_white(labels, value)}")
    return labels.bool()
