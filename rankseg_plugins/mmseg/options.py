"""The options in ``model.test_cfg.rankseg``: read, checked, and turned into a decoder."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.probabilities import ACTIVATIONS, check_choice

#: Where the options stand in a config; every message names it.
KEY = "model.test_cfg.rankseg"

DECODER_OPTIONS = tuple(inspect.signature(RankSEG).parameters)
OWN_OPTIONS = ("activation", "compare")


@dataclass(frozen=True)
class Options:
    """What ``model.test_cfg.rankseg`` asks for.

    Args:
        decoder: options of :class:`rankseg_plugins.RankSEG`.
        activation: ``"auto"`` or one of :data:`~rankseg_plugins.core.probabilities.ACTIVATIONS`.
        compare: whether argmax's labels are kept beside RankSEG's.
    """

    decoder: dict[str, Any] = field(default_factory=dict)
    activation: str = "auto"
    compare: bool = False

    def build(self, channels: int) -> RankSEG:
        """Build the decoder for a model with ``channels`` output channels.

        Raises:
            TypeError: for a decoder option of the wrong type.
            ValueError: for a decoder option that is unknown, out of range, or does not fit the channels. Both errors
                name the config key.
        """
        fitting = "multilabel" if channels == 1 else "multiclass"
        asked = self.decoder.get("output_mode", fitting)
        if asked != fitting:
            raise ValueError(
                f"{KEY}.output_mode={asked!r} does not fit a model with {channels} output channel(s): MMSegmentation "
                f"keeps one label per pixel, which is {fitting!r} here; leave the key out"
            )
        try:
            return RankSEG(**{**self.decoder, "output_mode": fitting})
        except (TypeError, ValueError) as error:
            raise type(error)(f"{KEY}: {error}") from error


def read_options(value: object) -> Options | None:
    """Check the value of ``model.test_cfg.rankseg``.

    Args:
        value: None (RankSEG is off) or a mapping with options of :class:`rankseg_plugins.RankSEG`, ``activation``
            and ``compare``. An empty mapping takes every default.

    Returns:
        The options, or None when RankSEG is off.

    Raises:
        TypeError: if ``value`` is neither, or ``compare`` is not a bool.
        ValueError: for an unknown key (the message names the nearest valid one) or an unknown activation.

    Example:
        >>> read_options(dict(metric="iou", compare=True))
        Options(decoder={'metric': 'iou'}, activation='auto', compare=True)
        >>> read_options(dict(metrc="iou"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: unknown key 'metrc' in model.test_cfg.rankseg, did you mean 'metric'? ...
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{KEY} must be a dict such as dict(metric='dice'), or None for plain argmax, got {value!r}")
    # MMEngine itself writes `_scope_` into dicts that a config takes over from a base.
    given = {key: option for key, option in value.items() if key != "_scope_"}
    allowed = DECODER_OPTIONS + OWN_OPTIONS
    for key in given:
        if key not in allowed:
            nearest = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown key {key!r} in {KEY}, did you mean {nearest!r}? Allowed are {', '.join(allowed)}"
            )
    activation, compare = given.pop("activation", "auto"), given.pop("compare", False)
    check_choice(f"{KEY}.activation", activation, ("auto", *ACTIVATIONS))
    if not isinstance(compare, bool):
        raise TypeError(f"{KEY}.compare must be True or False, got {compare!r}")
    return Options(given, activation, compare)
