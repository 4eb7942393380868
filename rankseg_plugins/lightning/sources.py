"""Finding logits, targets and images in what the user's steps return and their dataloaders yield."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Source = str | int | Callable[[Any, Any], Any]

_MISSING = object()


def check_source(name: str, source: object) -> None:
    """Raise a ``TypeError`` unless ``source`` is a key, a tuple index or a callable."""
    if isinstance(source, bool) or not (isinstance(source, (str, int)) or callable(source)):
        raise TypeError(f"{name} must be a key, a tuple index or a callable (outputs, batch) -> tensor, got {source!r}")


def find(name: str, source: Source, outputs: Any, batch: Any, step: str) -> Any:
    """Look ``source`` up in the output of a step, then in its batch.

    Args:
        name: what is looked for, for messages.
        source: key or attribute name, tuple index, or callable ``(outputs, batch) -> value``.
        outputs: what the step returned.
        batch: what the dataloader yielded.
        step: name of the step, for messages.

    Raises:
        KeyError: if neither holds it; the message shows the lines that fix it.

    Example:
        >>> find("target", 1, outputs={"logits": "a"}, batch=("image", "mask"), step="validation_step")
        'mask'
    """
    if callable(source):
        return source(outputs, batch)
    for holder in (outputs, batch):
        value = _look_up(holder, source)
        if value is not _MISSING:
            return value
    raise MissingKeyError(
        f"{name}={source!r} is in neither what {step} returned ({describe(outputs)}) nor the batch "
        f"({describe(batch)}). Either let the step return it:\n"
        f"    def {step}(self, batch, batch_idx):\n"
        f"        return {_example(name, source, step)}\n"
        f"or say where it is: {name}=<key, tuple index or callable (outputs, batch) -> value>"
    )


class MissingKeyError(KeyError):
    """What was looked for is not there."""

    def __str__(self) -> str:
        # A KeyError shows the repr of its message, which would hide the line breaks.
        return str(self.args[0])


def _example(name: str, source: str | int, step: str) -> str:
    """A return value in which ``source`` is found."""
    usual = ("logits",) if step == "predict_step" else ("loss", "logits", "target")
    keys = dict(zip(usual, usual, strict=True)) | {name: source if isinstance(source, str) else name}
    return "{" + ", ".join(f'"{key}": {value}' for value, key in keys.items()) + "}"


def find_tensor(name: str, source: Source, outputs: Any, batch: Any, step: str) -> Tensor:
    """:func:`find`, for a tensor.

    Raises:
        KeyError: if it is not there.
        TypeError: if it is not a tensor.
    """
    value = find(name, source, outputs, batch, step)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}={source!r} must lead to a tensor, got {describe(value)}")
    return value.detach()


def find_image(source: Source | None, outputs: Any, batch: Any, step: str) -> Tensor:
    """The input images: ``source`` as for :func:`find`, or by default what batches usually hold.

    That is the item ``"image"`` of a dict, the first item of a tuple, or the batch itself.

    Raises:
        KeyError: if nothing is there.
        TypeError: if it is not a tensor.
    """
    if source is not None:
        return find_tensor("image", source, outputs, batch, step)
    if isinstance(batch, Tensor):
        return batch.detach()
    return find_tensor("image", "image" if isinstance(batch, Mapping) else 0, None, batch, step)


def find_cases(source: Source, outputs: Any, batch: Any, step: str, count: int) -> list[str]:
    """The cases of the ``count`` images of a batch, such as the patients of slices.

    Raises:
        KeyError: if nothing is there.
        TypeError: if it is not a sequence.
        ValueError: if it does not hold one for each image.
    """
    found = find("cases", source, outputs, batch, step)
    found = found.tolist() if isinstance(found, Tensor) else found
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise TypeError(f"cases={source!r} must lead to a sequence with one for each image, got {describe(found)}")
    if len(found) != count:
        raise ValueError(f"cases={source!r} must lead to one for each of {count} images, got {len(found)}")
    return [str(case) for case in found]


def _look_up(holder: Any, source: str | int) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(source, _MISSING)
    if isinstance(source, str):
        # Tensors and strings have attributes too, but none that a user means.
        return _MISSING if isinstance(holder, (Tensor, str)) else getattr(holder, source, _MISSING)
    if isinstance(holder, Sequence) and not isinstance(holder, str) and -len(holder) <= source < len(holder):
        return holder[source]
    return _MISSING


def describe(value: Any) -> str:
    """Say in a few words what ``value`` is.

    Example:
        >>> import torch
        >>> describe({"loss": torch.tensor(0.5)})
        "a dict with the keys 'loss'"
        >>> describe((torch.zeros(2, 3), None))
        'a tuple of a tensor of shape (2, 3), None'
    """
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    kind = type(value).__name__
    if isinstance(value, Mapping):
        return f"a {kind} with the keys {', '.join(map(repr, value))}" if value else f"an empty {kind}"
    if isinstance(value, (list, tuple)):
        return f"a {kind} of {', '.join(map(describe, value[:4]))}{', ...' if len(value) > 4 else ''}"
    return f"a {kind}"
