"""Logits to probabilities, and the checks on probabilities that every decision begins with."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.tracing import is_blind, is_transforming

T = TypeVar("T")

#: What programs for pictures draw the foreground of a mask in.
WHITE = 255
ACTIVATIONS = ("softmax", "sigmoid", "normalize", "identity")
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

#: Resized and averaged probabilities overshoot [0, 1] a little: values this close outside are clamped, not refused.
TOLERANCE = 1e-4

#: What ``extent`` leaves to NumPy, and so many values at a time.
_OF_NUMPY = (torch.float32, torch.float64, torch.int64)
PIECE = 1 << 16


def to_probabilities(logits: Tensor, activation: str = "softmax") -> Tensor:
    """Turn the output of a network into probabilities.

    Args:
        logits: (B, C, *spatial), floating point.
        activation: ``"softmax"`` over the classes; ``"sigmoid"`` for each class alone; ``"normalize"`` divides
            non-negative class scores by their sum over the classes (mask-classification heads such as
            Mask2Former's return scores, not logits; a pixel whose scores are all 0 stays all 0);
            ``"identity"`` for values that already are probabilities.

    Returns:
        Probabilities of the same shape in [0, 1], float32, or float64 for float64 input: in half precision, softmax and
        sigmoid round different pixels to the same probability. ``"identity"`` gives back what it got.

    Raises:
        TypeError: if ``logits`` is not a floating point tensor.
        ValueError: for an unknown activation, fewer than 2 dimensions, softmax or normalize over a single class, or
            negative scores with ``"normalize"``.

    Example:
        >>> to_probabilities(torch.tensor([[[1.0], [3.0]]]), "normalize")
        tensor([[[0.2500],
                 [0.7500]]])
    """
    check_choice("activation", activation, ACTIVATIONS)
    check_floating("logits", logits)
    logits = plain(logits)
    if logits.ndim < 2:
        raise ValueError(f"logits must have shape (B, C, *spatial), got {tuple(logits.shape)}")
    if activation == "identity":
        return logits
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if activation == "sigmoid":
        return logits.to(dtype).sigmoid()
    check_single_channel(logits, activation)
    if activation == "softmax":
        return logits.softmax(dim=1, dtype=dtype)
    check_scores(logits)
    total = logits.sum(dim=1, keepdim=True, dtype=dtype)
    return logits / total.masked_fill(total == 0, 1)


def check_scores(scores: Tensor) -> None:
    """Raise a ``ValueError`` for negative scores of ``"normalize"``; in a graph it is an assertion."""
    problem = "activation='normalize' needs non-negative scores"
    if is_blind():
        assert_all(~(scores < 0), problem)
    elif scores.numel() and scores.amin() < 0:
        raise ValueError(f"{problem}, the smallest is {scores.amin():.4g}; use 'softmax' for logits")


def check_single_channel(logits: Tensor, activation: str) -> None:
    """Raise a ``ValueError`` for an activation over the classes where there is one."""
    if activation in ("softmax", "normalize") and logits.shape[1] == 1:
        raise ValueError(
            f"activation={activation!r} over a single channel gives 1 everywhere; use activation='sigmoid' for "
            f"one-channel logits, got shape {tuple(logits.shape)}"
        )


def plain(value: T) -> T:
    """A tensor of a class that intercepts functions, such as MONAI's MetaTensor, as the torch.Tensor that it is.

    Every entrance begins with it: the results would be of that class again, and its ``item`` and sizes are no numbers.
    All else comes back as it is: None, parameters, and tensors of classes that hold their values in their own form.

    Example:
        >>> class Named(Tensor):
        ...     pass
        >>> type(plain(torch.zeros(2).as_subclass(Named)))
        <class 'torch.Tensor'>
    """
    kind: Any = type(value)
    if kind is Tensor or not isinstance(value, Tensor):
        return value
    intercepts = kind.__torch_function__ is not torch._C._disabled_torch_function_impl
    if not intercepts or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return cast(T, value.as_subclass(Tensor))


def check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise a ``ValueError`` that lists the allowed values, unless ``value`` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_tensor(name: str, value: object) -> Tensor:
    """Raise a ``TypeError`` that says how to make one, unless ``value`` is a dense tensor that holds values.

    Example:
        >>> check_tensor("probs", [0.1, 0.9])
        Traceback (most recent call last):
            ...
        TypeError: probs must be a torch.Tensor, got list: torch.as_tensor(probs) makes one
    """
    if isinstance(value, Tensor):
        if value.device.type == "meta":
            raise TypeError(f"{name} must hold values, got a tensor on the device meta")
        if value.is_nested:
            raise TypeError(f"{name} must be a dense tensor, got a nested one: give one image at a time")
        if value.layout is not torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got {value.layout}: {name}.to_dense() makes one")
        return value
    kind, hint = type(value), ""
    if kind.__module__ == "numpy":
        hint = f": torch.from_numpy({name}) makes one"
    elif isinstance(value, (list, tuple)):
        hint = f": torch.as_tensor({name}) makes one"
    raise TypeError(f"{name} must be a torch.Tensor, got {kind.__name__}{hint}")


def widened(labels: Tensor) -> Tensor:
    """Labels in a type that can be compared and rounded: floats of 8 bits cannot."""
    return labels.float() if labels.is_floating_point() and labels.dtype not in FLOATING else labels


def check_floating(name: str, tensor: object) -> Tensor:
    """Raise a ``TypeError`` unless ``tensor`` is a float16, bfloat16, float32 or float64 tensor."""
    tensor = check_tensor(name, tensor)
    if tensor.dtype not in FLOATING:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")
    return tensor


def check_shape(probs: Tensor, name: str = "probs") -> None:
    """Raise a ``ValueError`` unless ``probs`` is (B, C, *spatial) with C >= 1 and a non-empty spatial size."""
    shape = tuple(probs.shape)
    if len(shape) < 3:
        hint = missing_dimension(name, shape, ()) if len(shape) == 2 else ""
        raise ValueError(
            f"{name} must have shape (B, C, *spatial) with at least one spatial dimension, got {shape}{hint}"
        )
    if shape[1] == 0:
        raise ValueError(f"{name} must hold at least one class (dimension 1), got shape {shape}")
    if 0 in shape[2:]:
        raise ValueError(f"the spatial size of {name} must not be empty, got shape {shape}")


def check_classes(name: str, tensor: Tensor, num_classes: int) -> None:
    """Raise a ``ValueError``, with the likely cause, unless ``tensor`` (B, C, *spatial) has C = ``num_classes``."""
    shape = tuple(tensor.shape)
    if shape[1:2] != (num_classes,):
        raise ValueError(
            f"{name} must have {num_classes} classes, got shape {shape}{missing_dimension(name, shape, (num_classes,))}"
        )


def check_probs(name: str, probs: object, num_classes: int | None = None) -> None:
    """Raise unless ``probs`` is a floating point tensor (B, C, *spatial), of C = ``num_classes`` where that is known.

    Raises:
        TypeError: for what is no such tensor; see ``check_floating``.
        ValueError: for another shape; see ``check_shape`` and ``check_classes``.
    """
    probs = check_floating(name, probs)
    check_shape(probs, name)
    if num_classes is not None:
        check_classes(name, probs, num_classes)


def check_by_class(name: str, table: Tensor, probs: Tensor) -> None:
    """Raise a ``ValueError`` unless ``table`` has a value for each class of ``probs``: (C,), or (B, C)."""
    shape = tuple(probs.shape[:2])
    if tuple(table.shape) not in (shape, shape[1:]):
        raise ValueError(f"{name} must have shape {shape} or {shape[1:]}, got {tuple(table.shape)}")


def missing_dimension(name: str, shape: tuple[int, ...], allowed: tuple[int, ...]) -> str:
    """Which dimension a shape (B, C, *spatial) may lack whose C is none of ``allowed``, as the end of a message.

    Example:
        >>> missing_dimension("probs", (3, 16, 16), (3,))
        '; for a single image, probs.unsqueeze(0) adds the batch dimension'
    """
    if len(shape) == 2:
        return f"; for a single image of one channel, {name}[None, None] adds batch and channel"
    hints = []
    if shape[0] in allowed:
        hints.append(f"for a single image, {name}.unsqueeze(0) adds the batch dimension")
    if 1 in allowed:
        hints.append(f"for images of one channel, {name}.unsqueeze(1) adds the channel dimension")
    return "".join(f"; {hint}" for hint in hints)


def drawn_in_white(target: Tensor, value: float) -> str:
    """The likely cause of a label that is not allowed, as the end of a message; "" if it is not this one.

    Args:
        target: labels or masks.
        value: the first one that is not allowed.

    Example:
        >>> drawn_in_white(torch.tensor([0, 255]), 255)
        '; masks drawn 0/255? Divide them by 255'
    """
    return "; masks drawn 0/255? Divide them by 255" if value == WHITE and not (target == 1).any() else ""


def check_valid_mask(probs: Tensor, valid_mask: object) -> None:
    """Raise unless ``valid_mask`` is None or a bool tensor (*spatial) or (B, *spatial) that fits ``probs``."""
    if valid_mask is None:
        return
    if not isinstance(valid_mask, Tensor) or valid_mask.dtype != torch.bool:
        got = valid_mask.dtype if isinstance(valid_mask, Tensor) else type(valid_mask).__name__
        raise TypeError(f"valid_mask must be a bool tensor, got {got}")
    check_tensor("valid_mask", valid_mask)
    allowed = (tuple(probs.shape[2:]), (probs.shape[0], *probs.shape[2:]))
    # Only sizes that belong together are compared: a graph for any number of images takes note of all that are.
    if tuple(valid_mask.shape) != allowed[valid_mask.ndim > probs.ndim - 2]:
        raise ValueError(
            f"valid_mask must have shape {allowed[0]} or {allowed[1]} for probs of shape "
            f"{tuple(probs.shape)}, got {tuple(valid_mask.shape)}"
        )


def class_masks(labels: Tensor, num_classes: int, first: int = 0) -> Tensor:
    """One bool mask for each class, (B, C, *spatial), from labels (B, *spatial); that of the first class is ``first``.

    Example:
        >>> class_masks(torch.tensor([[0, 1]]), num_classes=2)
        tensor([[[ True, False],
                 [False,  True]]])
    """
    numbers = torch.arange(first, first + num_classes, device=labels.device)
    return labels.unsqueeze(1) == numbers.view(-1, *[1] * (labels.ndim - 1))


def to_masks(decision: Tensor, probs: Tensor, void_index: int) -> Tensor:
    """One bool mask per class, (B, C, d), from labels (B, *spatial) or masks (B, C, *spatial).

    Raises:
        TypeError: unless ``decision`` is an int64 or bool tensor.
        ValueError: for another shape, or labels that are neither a class of ``probs`` nor ``void_index``.
    """
    if not isinstance(decision, Tensor) or decision.dtype not in (torch.int64, torch.bool):
        got = decision.dtype if isinstance(decision, Tensor) else type(decision).__name__
        raise TypeError(f"decision must be int64 labels or bool masks, got {got}")
    check_tensor("decision", decision)
    is_labels, classes = decision.dtype == torch.int64, probs.shape[1]
    expected = (probs.shape[0], *probs.shape[2:]) if is_labels else tuple(probs.shape)
    if tuple(decision.shape) != expected:
        kind = "labels" if is_labels else "masks"
        raise ValueError(f"decision: {kind} must have shape {expected}, got {tuple(decision.shape)}")
    if not is_labels:
        return decision.flatten(2)
    strange = ((decision < 0) | (decision >= classes)) & (decision != void_index)
    if strange.any():
        raise ValueError(
            f"decision: labels must lie in 0 to {classes - 1} or be void_index={void_index}, "
            f"got {decision[strange].unique()[:5].tolist()}"
        )
    return class_masks(decision.flatten(1), classes)


def extent(values: Tensor) -> tuple[float, float]:
    """Smallest and largest of some values, at least one; NaN if one is."""
    if values.device.type == "cpu" and values.dtype in _OF_NUMPY and values.is_contiguous():
        # NumPy does not call all threads, and wait for them, on a machine that may be busy; pieces fit a cache.
        flat = values.detach().numpy().reshape(-1)
        pieces = [flat[first : first + PIECE] for first in range(0, len(flat), PIECE)]
        ends = np.array([(piece.min(), piece.max()) for piece in pieces])
        return ends[:, 0].min().item(), ends[:, 1].max().item()
    low, high = values.aminmax()
    return low.item(), high.item()


def check_range(minimum: float, maximum: float) -> bool:
    """Judge the smallest and largest probability; return whether clamping to [0, 1] is needed.

    Raises:
        ValueError: if either is NaN or infinite, or lies outside [0, 1] by more than ``TOLERANCE``.
    """
    if not (abs(minimum) < float("inf") and abs(maximum) < float("inf")):
        raise ValueError("probs must be finite, got NaN or infinite values")
    if minimum < -TOLERANCE or maximum > 1 + TOLERANCE:
        raise ValueError(
            f"probs must lie in [0, 1], got values from {minimum:.6g} to {maximum:.6g}; "
            "turn logits into probabilities first (softmax over the classes, or sigmoid), or, where there is the "
            "option, say activation='softmax' or 'sigmoid'"
        )
    return minimum < 0 or maximum > 1


def check_values(probs: Tensor) -> bool:
    """Raise a ``ValueError`` unless all values are probabilities; in a graph it is an assertion.

    Returns:
        Whether some may lie a little outside of [0, 1].
    """
    if is_blind():
        assert_range(probs)
        return True
    if not probs.numel():
        return False
    return check_range(*extent(probs))


def assert_range(p: Tensor) -> None:
    """An assertion that these are probabilities; see ``assert_all``."""
    assert_all((p >= -TOLERANCE) & (p <= 1 + TOLERANCE), "probs must be finite and lie in [0, 1]")


def assert_all(fits: Tensor, problem: str) -> None:
    """An assertion that is a part of the graph; ``torch.func`` has none."""
    if fits.numel() and not is_transforming():
        torch._assert_async(fits.all(), problem)
