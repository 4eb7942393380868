"""The options in ``model.test_cfg.rankseg``: read, checked, and turned into a decoder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison.blocks.expected import EXPECTED
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.decoder import OPTIONS
from rankseg_plugins.core.inputs.options import suggest
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice

#: Where the options stand in a config; every message names it.
KEY = "model.test_cfg.rankseg"

OWN_OPTIONS = ("activation", "compare", "expected_score", "tuned")


@dataclass(frozen=True)
class Options:
    """What ``model.test_cfg.rankseg`` asks for.

    Args:
        decoder: options of ``RankSEG``.
        activation: ``"auto"`` or one of ``ACTIVATIONS``.
        compare: whether argmax's labels are kept beside RankSEG's.
        expected_score: ``"dice"`` or ``"iou"``, what both are expected to score is worked out; None is neither.
        tuned: file of a ``TunedDecoder``, instead of ``decoder``.
    """

    decoder: dict[str, Any] = field(default_factory=dict)
    activation: str = "auto"
    compare: bool = False
    tuned: str | None = None
    expected_score: str | None = None

    def __str__(self) -> str:
        """As they stand in a config, without what says nothing of the decision.

        Example:
            >>> print(Options({"metric": "iou"}, compare=True)), print(Options(tuned="a.json", activation="sigmoid"))
            dict(metric='iou')
            dict(tuned='a.json', activation='sigmoid')
            (None, None)
        """
        shown = dict(self.decoder) if self.tuned is None else {"tuned": self.tuned}
        shown |= {} if self.activation == "auto" else {"activation": self.activation}
        return f"dict({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def build(
        self, channels: int | None, read: Callable[[str], TunedDecoder] = TunedDecoder.load
    ) -> RankSEG | TunedDecoder:
        """Build the decoder for a model with ``channels`` output channels.

        Args:
            channels: C; None is several, where the model does not say how many.
            read: reads the file ``tuned``.

        Raises:
            TypeError: for a decoder option of the wrong type.
            ValueError: for a decoder option that is unknown, out of range, or does not fit the channels, or a file
                that holds no decoder or one that does not fit.
            OSError: for a file that cannot be read. All errors name the config key.
        """
        if self.tuned is not None:
            return self._read_tuned(channels, read)
        fitting = "multilabel" if channels == 1 else "multiclass"
        asked = self.decoder.get("output_mode", fitting)
        if asked != fitting:
            raise ValueError(
                f"{KEY}.output_mode={asked!r} does not fit a model with {channels or 'several'} output channel(s): "
                f"MMSegmentation keeps one label per pixel, which is {fitting!r} here; leave the key out"
            )
        try:
            decoder = RankSEG(**{**self.decoder, "output_mode": fitting})
            if channels is not None:
                decoder.check_classes(channels)
            return decoder
        except (TypeError, ValueError) as error:
            raise type(error)(f"{KEY}: {error}") from error

    def _read_tuned(self, channels: int | None, read: Callable[[str], TunedDecoder]) -> TunedDecoder:
        assert self.tuned is not None
        key = f"{KEY}.tuned={self.tuned!r}"
        try:
            decoder = read(self.tuned)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{key}: no such file (relative paths start in {os.getcwd()}). RankSEGTuningHook writes it when a run "
                "validates, which is after the model is built: leave the key out to train, and name the file to test"
            ) from error
        except (OSError, ValueError) as error:
            raise type(error)(f"{key}: {error}") from error
        fitting = "multilabel" if channels == 1 else "multiclass"
        if decoder.num_classes != (channels or decoder.num_classes) or decoder.output_mode != fitting:
            raise ValueError(
                f"{key}: tuned for {decoder.num_classes} channel(s) and output_mode={decoder.output_mode!r}, the model "
                f"has {channels or 'several'} output channel(s), which takes {fitting!r}"
            )
        return decoder


class TunedFile:
    """Reads the file of a tuned decoder anew only when it has changed.

    Example:
        >>> read = TunedFile()
        >>> read("absent.json")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        FileNotFoundError: ...
    """

    def __init__(self) -> None:
        self._state: tuple[str, int, int] | None = None
        self._decoder: TunedDecoder | None = None

    def __call__(self, path: str) -> TunedDecoder:
        """The decoder in the file, see ``TunedDecoder.load``."""
        found = os.stat(path)
        state = (path, found.st_mtime_ns, found.st_size)
        if self._decoder is None or state != self._state:
            self._decoder, self._state = TunedDecoder.load(path), state
        return self._decoder


def read_options(value: object) -> Options | None:
    """Check the value of ``model.test_cfg.rankseg``.

    Args:
        value: None (RankSEG is off) or a mapping with options of ``RankSEG`` or ``tuned``, and ``activation``,
            ``compare`` and ``expected_score``. An empty mapping takes every default.

    Returns:
        The options, or None when RankSEG is off.

    Raises:
        TypeError: if ``value`` is neither, ``compare`` is not a bool or ``tuned`` not a path.
        ValueError: for an unknown key (the message names the nearest valid one), an unknown activation or expected
            score, one without ``compare``, or a decoder option beside ``tuned``.

    Example:
        >>> read_options(dict(metric="iou", compare=True))
        Options(decoder={'metric': 'iou'}, activation='auto', compare=True, tuned=None, expected_score=None)
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
    allowed = OPTIONS + OWN_OPTIONS
    for key in given:
        if key not in allowed:
            raise ValueError(f"unknown key {key!r} in {KEY}, {suggest(str(key), allowed)}")
    activation, compare = given.pop("activation", "auto"), given.pop("compare", False)
    tuned, expected = given.pop("tuned", None), given.pop("expected_score", None)
    check_choice(f"{KEY}.activation", activation, ("auto", *ACTIVATIONS))
    if not isinstance(compare, bool):
        raise TypeError(f"{KEY}.compare must be True or False, got {compare!r}")
    if expected is not None:
        check_choice(f"{KEY}.expected_score", expected, EXPECTED)
        if not compare:
            raise ValueError(f"{KEY}.expected_score has no effect without {KEY}.compare=True, which keeps it")
    return Options(given, activation, compare, _tuned_path(tuned, given), expected)


def _tuned_path(tuned: object, others: Mapping[str, Any]) -> str | None:
    if tuned is None:
        return None
    if not isinstance(tuned, (str, os.PathLike)):
        raise TypeError(f"{KEY}.tuned must be the path of a file, got {tuned!r}")
    if others:
        raise ValueError(
            f"{KEY}.tuned takes the decision from a file, {', '.join(others)} beside it would be ignored: leave out "
            f"one or the other (where a base config brings it, add {KEY}._delete_=True)"
        )
    return os.fspath(tuned)
