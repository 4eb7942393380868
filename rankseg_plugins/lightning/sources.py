"""Finding logits, targets and images in what the user's steps return and their dataloaders yield."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from rankseg_plugins.core.probabilities import plain
from rankseg_plugins.lightning._toolkit import rank_zero_warn

Key = str | int
Source = Key | Sequence[Key] | Callable[[Any, Any], Any]

#: What the step returned, and what the dataloader yielded; by these words a source says which of them it means.
OUTPUTS, BATCH = "outputs", "batch"
_MISSING = object()


class Finder:
    """Looks for one thing, such as the target, at the place that the user named.

    A key or index is looked up in each of ``places``. Where two of them hold it, an index is refused, since it may as
    well have been meant for the other: only ``("batch", 1)`` says which. A key is taken from the first place, and a
    warning tells once if the other holds something else.

    Args:
        name: of the option, for messages.
        source: key or attribute name, tuple index, pair of ``"outputs"`` or ``"batch"`` and one of these, or callable
            ``(outputs, batch) -> value``.
        places: where a key or an index without a place may be, the first first.

    Raises:
        TypeError: if ``source`` is none of these.

    Example:
        >>> target = Finder("target", 1)
        >>> target.find(outputs={"logits": "a"}, batch=("image", "mask"), step="validation_step")
        'mask'
        >>> Finder("target", ("batch", 1)).find(outputs=("logits", "labels"), batch=("image", "mask"), step="test_step")
        'mask'
    """

    def __init__(self, name: str, source: Source, places: Sequence[str] = (OUTPUTS, BATCH)) -> None:
        self.name, self.source = name, source
        self._call, self._places, self.key = _read_source(name, source, tuple(places))
        self._warned = False

    def find(self, outputs: Any, batch: Any, step: str) -> Any:
        """Look it up.

        Args:
            outputs: what the step returned.
            batch: what the dataloader yielded.
            step: name of the step, for messages.

        Raises:
            KeyError: if it is not there; the message shows the lines that fix it.
            ValueError: if an index leads to different things in outputs and batch.
        """
        if self._call is not None:
            return self._call(outputs, batch)
        holders = {OUTPUTS: outputs, BATCH: batch}
        values = {place: _look_up(holders[place], self.key) for place in self._places}
        found = [value for value in values.values() if value is not _MISSING]
        if not found:
            raise MissingKeyError(self._missing(outputs, batch, step))
        if len(found) > 1 and not _same(*found):
            self._choose(outputs, batch, step)
        return found[0]

    def tensor(self, outputs: Any, batch: Any, step: str) -> Tensor:
        """:meth:`find`, for a tensor.

        Raises:
            KeyError: if it is not there.
            TypeError: if it is not a tensor.
            ValueError: see :meth:`find`.
        """
        value = self.find(outputs, batch, step)
        if not isinstance(value, Tensor):
            raise TypeError(f"{self.name}={self.source!r} must lead to a tensor, got {describe(value)}")
        return plain(value).detach()

    def _choose(self, outputs: Any, batch: Any, step: str) -> None:
        """Refuse or warn where what the step returned and the batch hold different things."""
        choice = " or ".join(f"{self.name}=({place!r}, {self.key!r})" for place in self._places)
        said = (
            f"{self.name}={self.source!r} fits both what {step} returned ({describe(outputs)}) and the batch "
            f"({describe(batch)}), which hold different things there"
        )
        if not isinstance(self.key, str):
            raise ValueError(f"{said}: say which is meant, {choice}, or give a callable (outputs, batch) -> value")
        if not self._warned:
            self._warned = True
            rank_zero_warn(f"{said}; that of {step} is taken. Say which is meant: {choice}")

    def _missing(self, outputs: Any, batch: Any, step: str) -> str:
        looked = {OUTPUTS: f"what {step} returned ({describe(outputs)})", BATCH: f"the batch ({describe(batch)})"}
        where = [looked[place] for place in self._places]
        absent = f"in neither {where[0]} nor {where[1]}" if len(where) > 1 else f"not in {where[0]}"
        return (
            f"{self.name}={self.source!r} is {absent}. Either let the step return it:\n"
            f"    def {step}(self, batch, batch_idx):\n"
            f"        return {_example(self.name, self.key, step)}\n"
            f'or say where it is: {self.name}=<key, tuple index, ("batch", key or index) or callable (outputs, batch) '
            "-> value>"
        )


class MissingKeyError(KeyError):
    """What was looked for is not there."""

    def __str__(self) -> str:
        # A KeyError shows the repr of its message, which would hide the line breaks.
        return str(self.args[0])


def _read_source(
    name: str, source: object, places: tuple[str, ...]
) -> tuple[Callable[[Any, Any], Any] | None, tuple[str, ...], Key]:
    if callable(source):
        return source, (), ""
    # Also as a list, as it comes from a YAML file.
    if isinstance(source, (tuple, list)) and len(source) == 2 and source[0] in (OUTPUTS, BATCH):
        places, key = (source[0],), source[1]
    else:
        key = source
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise TypeError(
            f'{name} must be a key, a tuple index, a pair such as ("batch", 1) or a callable (outputs, batch) -> '
            f"tensor, got {source!r}"
        )
    return None, places, key


def _example(name: str, key: Key, step: str) -> str:
    """A return value in which ``key`` is found."""
    usual = ("logits",) if step == "predict_step" else ("loss", "logits", "target")
    keys = dict(zip(usual, usual, strict=True)) | {name: key if isinstance(key, str) else name}
    return "{" + ", ".join(f'"{key}": {value}' for value, key in keys.items()) + "}"


def find_images(finder: Finder | None, outputs: Any, batch: Any, step: str) -> Tensor:
    """The input images: where ``finder`` looks, or by default what batches usually hold.

    That is the item ``"image"`` of a dict, the first item of a tuple, or the batch itself.

    Raises:
        KeyError: if nothing is there.
        TypeError: if it is not a tensor.
    """
    if finder is None and isinstance(batch, Tensor):
        return plain(batch).detach()
    usual: Key = "image" if isinstance(batch, Mapping) else 0
    finder = Finder("image", usual, (BATCH,)) if finder is None else finder
    return finder.tensor(outputs, batch, step)


def find_cases(finder: Finder, outputs: Any, batch: Any, step: str, count: int) -> list[str]:
    """The cases of the ``count`` images of a batch, such as the patients of slices.

    Raises:
        KeyError: if nothing is there.
        TypeError: if it is not a sequence.
        ValueError: if it does not hold one for each image.
    """
    found = finder.find(outputs, batch, step)
    found = found.tolist() if isinstance(found, Tensor) else found
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise TypeError(
            f"cases={finder.source!r} must lead to a sequence with one for each image, got {describe(found)}"
        )
    if len(found) != count:
        raise ValueError(f"cases={finder.source!r} must lead to one for each of {count} images, got {len(found)}")
    return [str(case) for case in found]


def _look_up(holder: Any, key: Key) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(key, _MISSING)
    if isinstance(key, str):
        # Tensors and strings have attributes too, but none that a user means.
        return _MISSING if isinstance(holder, (Tensor, str)) else getattr(holder, key, _MISSING)
    if isinstance(holder, Sequence) and not isinstance(holder, str) and -len(holder) <= key < len(holder):
        return holder[key]
    return _MISSING


def _same(one: Any, other: Any) -> bool:
    """Whether it does not matter which of two values is taken; what cannot be compared differs."""
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one == other.to(one.device)).all())
    both = [each for each in (one, other) if isinstance(each, (list, tuple))]
    return len(both) == 2 and all(isinstance(item, str) for each in both for item in each) and [*one] == [*other]


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
