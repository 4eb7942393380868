"""Checks of the callback's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankseg_plugins._imports import require
from rankseg_plugins.core import RankSEG


def check_key(name: str, value: object) -> Any:
    """Raise a ``TypeError`` unless ``value`` is a key, a list index or None."""
    if isinstance(value, bool) or not (value is None or isinstance(value, (str, int))):
        raise TypeError(f"{name} must be a key, a list index or None, got {value!r}")
    return value


def check_count(name: str, value: object) -> int:
    """Check a number of pictures.

    Raises:
        TypeError: unless it is an integer.
        ValueError: if it is below 0.
        ImportError: if there are to be any, and matplotlib is absent.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    if value:
        require("matplotlib", extra="report")
    return value


def output_mode(decoder: object) -> str:
    """That of the decoder; a function gives one label per pixel unless it says otherwise."""
    return getattr(decoder, "output_mode", "multiclass")


def check_one_channel(decoder: object, num_classes: int, activation: str) -> None:
    """Raise a ``ValueError`` if one channel does not fit the other options."""
    if num_classes != 1:
        return
    if output_mode(decoder) != "multilabel":
        raise ValueError("num_classes=1 needs a decoder with output_mode='multilabel', got 'multiclass'")
    if activation in ("softmax", "normalize"):
        raise ValueError(f"num_classes=1 needs activation='sigmoid' or 'identity', got {activation!r}")


def starting_decoder(num_classes: int, activation: str, tune: bool | Mapping[str, Any]) -> RankSEG:
    """Argmax, the decision of a callback that was given none, until it has tuned one.

    Raises:
        TypeError: if it will not tune.
        ValueError: if it is open whether the classes may overlap.
    """
    if tune is False:
        raise TypeError("decoder must be given, such as RankSEG(metric='dice'), unless tune=True chooses one")
    if activation == "sigmoid" and num_classes != 1:
        raise ValueError(
            "activation='sigmoid' leaves open whether classes may overlap: give decoder=RankSEG('acc', "
            "output_mode='multilabel') for masks, or decoder=RankSEG('acc') for one label per pixel"
        )
    return RankSEG("acc", output_mode="multilabel" if num_classes == 1 else "multiclass")
