"""Checks of options that several adapters take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Errors about values say which image or batch they speak of.

    Example:
        >>> with naming("image 3"):
        ...     check_decoder(3)
        Traceback (most recent call last):
            ...
        TypeError: image 3: decoder must be a RankSEG or another callable on probabilities, got 3
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        # Subclasses may not be made of a message alone.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what}: {error}") from error


def check_decoder(decoder: object) -> None:
    """Raise a ``TypeError`` unless ``decoder`` can be called on probabilities.

    Example:
        >>> from rankseg_plugins import RankSEG
        >>> check_decoder(RankSEG)
        Traceback (most recent call last):
            ...
        TypeError: decoder must be an object, got the class RankSEG: write RankSEG(...)
    """
    if isinstance(decoder, type):
        raise TypeError(f"decoder must be an object, got the class {decoder.__name__}: write {decoder.__name__}(...)")
    if not callable(decoder):
        raise TypeError(f"decoder must be a RankSEG or another callable on probabilities, got {decoder!r}")


def check_index(name: str, value: object) -> None:
    """Raise a ``TypeError`` unless ``value`` is a class label or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be an integer or None, got {value!r}")


def read_device(name: str, value: str | torch.device) -> torch.device:
    """The device of this name, if it can be used here: images would be read before it fails.

    Raises:
        ValueError: if it cannot.

    Example:
        >>> read_device("device", "meta")
        Traceback (most recent call last):
            ...
        ValueError: device 'meta' cannot be used: it holds no values
    """
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"{name} {str(value)!r} cannot be used: {str(error).splitlines()[0]}") from error
    if device.type == "meta":
        raise ValueError(f"{name} 'meta' cannot be used: it holds no values")
    return device


def as_tuple(name: str, value: Any, kind: type | tuple[type, ...]) -> tuple[Any, ...]:
    """Bring an option that takes one value or several into a tuple.

    Raises:
        TypeError: if a value is not of the kind.

    Example:
        >>> as_tuple("levels", "image", str)
        ('image',)
        >>> as_tuple("worst", "5%", (int, float))
        Traceback (most recent call last):
            ...
        TypeError: worst must hold values of type int or float, got '5%'
    """
    values = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    if not all(isinstance(each, kind) and not isinstance(each, bool) for each in values):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise TypeError(f"{name} must hold values of type {' or '.join(k.__name__ for k in kinds)}, got {value!r}")
    return values
