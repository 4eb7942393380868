"""Finding things in what the user's steps return and their dataloaders yield, and putting labels there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rankseg_plugins.core.inputs.probabilities import plain
from rankseg_plugins.lightning._toolkit import rank_zero_warn

Key = str | int
Source = Key | Sequence[Key] | Callable[[Any, Any], Any]

#: What the step returned, and what the dataloader yielded; by these words a source says which of them it means.
OUTPUTS, BATCH = "outputs", "batch"
_MISSING = object()


@dataclass(frozen=True)
class Step:
    """One call of a step of the user.

    Args:
        name: such as ``"validation_step"``.
        outputs: what it returned.
        batch: what the dataloader yielded.
        batch_idx: number of the batch in its dataloader.
        dataloader_idx: number of the dataloader.
    """

    name: str
    outputs: Any
    batch: Any
    batch_idx: int = 0
    dataloader_idx: int = 0

    def __str__(self) -> str:
        return f"{self.name}, dataloader {self.dataloader_idx}, batch {self.batch_idx}"


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
        >>> Finder("target", 1).find(Step("validation_step", outputs={"logits": "a"}, batch=("image", "mask")))
        'mask'
        >>> step = Step("test_step", outputs=("logits", "labels"), batch=("image", "mask"))
        >>> Finder("target", ("batch", 1)).find(step)
        'mask'
    """

    def __init__(self, name: str, source: Source, places: Sequence[str] = (OUTPUTS, BATCH)) -> None:
        self.name, self.source = name, source
        self._call, self._places, self.key = _read_source(name, source, tuple(places))
        self._warned = False

    def find(self, step: Step) -> Any:
        """Look it up.

        Raises:
            KeyError: if it is not there; the message shows the lines that fix it.
            ValueError: if an index leads to different things in outputs and batch.
        """
        if self._call is not None:
            return self._call(step.outputs, step.batch)
        holders = {OUTPUTS: step.outputs, BATCH: step.batch}
        values = {place: _look_up(holders[place], self.key) for place in self._places}
        found = [value for value in values.values() if value is not _MISSING]
        if not found:
            raise MissingKeyError(self._missing(step))
        if len(found) > 1 and not _same(*found):
            self._choose(step)
        return found[0]

    def tensor(self, step: Step) -> Tensor:
        """``find``, for a tensor.

        Raises:
            KeyError: if it is not there.
            TypeError: if it is not a tensor.
            ValueError: see ``find``.
        """
        value = self.find(step)
        if not isinstance(value, Tensor):
            raise TypeError(f"{self.name}={self.source!r} must lead to a tensor, got {describe(value)}")
        return plain(value).detach()

    def _choose(self, step: Step) -> None:
        """Refuse or warn where what the step returned and the batch hold different things."""
        choice = " or ".join(f"{self.name}=({place!r}, {self.key!r})" for place in self._places)
        said = (
            f"{self.name}={self.source!r} fits both what {step.name} returned ({describe(step.outputs)}) and the "
            f"batch ({describe(step.batch)}), which hold different things there"
        )
        if not isinstance(self.key, str):
            raise ValueError(f"{said}: say which is meant, {choice}, or give a callable (outputs, batch) -> value")
        if not self._warned:
            self._warned = True
            rank_zero_warn(f"{said}; that of {step.name} is taken. Say which is meant: {choice}")

    def _missing(self, step: Step) -> str:
        looked = {
            OUTPUTS: f"what {step.name} returned ({describe(step.outputs)})",
            BATCH: f"the batch ({describe(step.batch)})",
        }
        where = [looked[place] for place in self._places]
        absent = f"in neither {where[0]} nor {where[1]}" if len(where) > 1 else f"not in {where[0]}"
        return (
            f"{self.name}={self.source!r} is {absent}. Either let the step return it:\n"
            f"    def {step.name}(self, batch, batch_idx):\n"
            f"        return {_example(self.name, self.key, step.name)}\n"
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


@dataclass(frozen=True)
class LabelKey:
    """Where decided labels go in what ``predict_step`` returned.

    Args:
        key: a key, a list index, or None where nobody wants them.

    Raises:
        TypeError: if it is none of these.
    """

    key: str | int | None

    def __post_init__(self) -> None:
        if isinstance(self.key, bool) or not (self.key is None or isinstance(self.key, (str, int))):
            raise TypeError(f"predict_labels must be a key, a list index or None, got {self.key!r}")

    def check(self, step: Step, logits: Finder) -> None:
        """Refuse outputs that have no such place, or hold something there that is not the logits.

        Raises:
            KeyError: if something else would be lost.
            TypeError: if there is no such place.
        """
        outputs, key = step.outputs, self.key
        at = isinstance(outputs, MutableSequence) and isinstance(key, int) and -len(outputs) <= key < len(outputs)
        if not (at or isinstance(outputs, MutableMapping)):
            raise TypeError(
                f"predict_labels={key!r} needs a dict from {step.name} to put the labels into, or a list with that "
                f"index, got {describe(outputs)}"
            )
        if not at and key in outputs and key != logits.key:
            raise KeyError(
                f"predict_labels={key!r} is in what {step.name} returned already ({describe(outputs)}), and would be "
                "lost: give another key"
            )
