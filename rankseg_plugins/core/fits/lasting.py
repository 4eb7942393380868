"""Numbers that were found from data and are to stay as they were found, whatever is done to the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Lasting(nn.Module):
    """A module whose buffers go where it goes, but are rounded by no conversion and marked by no inference mode.

    ``half()`` on a module around it would otherwise change what it decides, and what was made or copied in inference
    mode could not be written to outside of it. A device that knows no float64 (MPS) holds float32 instead.

    Example:
        >>> class Rule(Lasting):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.keep("threshold", torch.tensor([1 / 3], dtype=torch.float64))
        >>> with torch.inference_mode():
        ...     rule = Rule().half()
        >>> rule.threshold, rule.threshold.is_inference()
        (tensor([0.3333], dtype=torch.float64), False)
    """

    def keep(self, name: str, value: Tensor) -> None:
        """Register a buffer by a copy of ``value``, or put that in its place."""
        with torch.inference_mode(False):
            copied = value.detach().clone()
        if name in self._buffers:
            setattr(self, name, copied)
        else:
            self.register_buffer(name, copied)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Lasting:
        def move(tensor: Tensor) -> Tensor:
            try:
                moved = fn(tensor)
            except TypeError:  # MPS
                return fn(tensor.float())
            moved = moved if moved.dtype == tensor.dtype else tensor.to(moved.device)
            return moved.clone() if moved.is_inference() else moved

        with torch.inference_mode(False):
            moved: Lasting = super()._apply(move, recurse)  # type: ignore[no-untyped-call]  # not in the stubs
            return moved

    def what_is_wrong(self, found: dict[str, Tensor]) -> str | None:
        """Why the values of a ``state_dict`` cannot be taken; None if nothing is wrong with those that it holds."""
        return None

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *problems: list[str]
    ) -> None:
        found = {name: state_dict[prefix + name] for name in self._buffers if prefix + name in state_dict}
        # PyTorch itself sees to what is no tensor, or has no values.
        if all(isinstance(each, Tensor) and not each.is_meta for each in found.values()):
            problem = self.what_is_wrong(found)
            if problem is not None:
                problems[-1].append(problem)
                return
        self._apply(lambda tensor: tensor)  # what was copied in inference mode could not be written to
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *problems)


class Mark(NamedTuple):
    """A buffer that says for which value of an option the numbers beside it were found.

    Args:
        option: its name.
        choices: its two values, by their place; without them it is a number, or a tuple of classes.
        matters: whether decisions depend on it; else numbers that were found for another value serve as well.
    """

    option: str
    choices: tuple[str, ...] = ()
    matters: bool = True

    def write(self, value: Any, num_classes: int) -> Tensor:
        """The value as a buffer holds it."""
        if isinstance(value, tuple):
            return torch.tensor([label in value for label in range(num_classes)], dtype=torch.int64, device="cpu")
        number = self.choices.index(value) if self.choices else value
        return torch.tensor(number, dtype=torch.int64 if self.choices else torch.float64, device="cpu")

    def read(self, found: Tensor) -> Any:
        """The value that a buffer holds."""
        if found.ndim:
            return tuple(found.flatten().nonzero()[:, 0].tolist())
        return self.choices[bool(found)] if self.choices else found.item()


class Fitted(Lasting):
    """A decoder of a known number of classes that can decide once its numbers are known."""

    num_classes: int
    _fitted = False

    def marks(self) -> dict[str, Mark]:
        """By the names of their buffers; see ``mark``."""
        raise NotImplementedError

    def mark(self) -> None:
        """Note that the numbers are found for this decoder: a state of another is not taken."""
        for name, mark in self.marks().items():
            value = mark.write(getattr(self, mark.option), self.num_classes)
            self.keep(name, value.to(self._buffers[name]) if name in self._buffers else value)

    def what_is_wrong(self, found: dict[str, Tensor]) -> str | None:
        """Why no decision can be made by a state: it is for another option."""
        for name, mark in self.marks().items():
            ours, theirs = getattr(self, mark.option), mark.read(found[name]) if name in found else None
            if mark.matters and theirs not in (None, ours):
                return f"what was fitted is for {mark.option}={theirs!r}, this decoder has {ours!r}"
        return None

    @property
    def fitted(self) -> bool:
        """Whether it can decide: its numbers were found, given, or loaded with a ``state_dict``."""
        # Remembered: a graph that is being traced knows no values, and a GPU would have to be waited for.
        if not (self._fitted or torch.compiler.is_compiling() or any(each.is_meta for each in self.buffers())):
            self._fitted = self._is_known()
        return self._fitted

    def _is_known(self) -> bool:
        """Whether the buffers hold what a decision needs."""
        raise NotImplementedError

    def check_classes(self, num_classes: int) -> None:
        """Raise a ``ValueError`` for another number of classes; see ``RankSEG.check_classes``."""
        if num_classes != self.num_classes:
            raise ValueError(f"decoder is for num_classes={self.num_classes}, got num_classes={num_classes}")

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *problems: list[str]
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *problems)
        # States of earlier versions do not say what they are for.
        problems[0][:] = [name for name in problems[0] if name.removeprefix(prefix) not in self.marks()]
        self._fitted = False
        self._fitted = self.fitted
