"""Numbers that were found from data and are to stay as they were found, whatever is done to the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
            return super()._apply(move, recurse)

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


class Fitted(Lasting):
    """A decoder of a known number of classes that can decide once its numbers are known."""

    num_classes: int
    _fitted = False

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
        """Raise a ``ValueError`` for another number of classes; see :meth:`rankseg_plugins.RankSEG.check_classes`."""
        if num_classes != self.num_classes:
            raise ValueError(f"decoder is for num_classes={self.num_classes}, got num_classes={num_classes}")

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *problems: list[str]
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *problems)
        self._fitted = False
        self._fitted = self.fitted
