"""Decoders by name: ``"argmax"``, ``"rankseg(metric=dice, pruning_prob=0.3)"``, and the file of a tuned one.

Also ``"presence(frequencies=[0.9, 0.1])"``, where how often images hold each class is known.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from rankseg_plugins.calibration.tuned import PRESENCE_OPTIONS, TunedDecoder
from rankseg_plugins.core import PresenceRankSEG, RankSEG
from rankseg_plugins.core.decoder import OPTIONS
from rankseg_plugins.core.inputs.options import read_mode, suggest

Decoder = Callable[[Tensor], Tensor]
ARGMAX, PRESENCE = "argmax", "presence"
FREQUENCIES = "frequencies"
#: The options of each decoder that has a name.
NAMED: dict[str, Sequence[str]] = {
    ARGMAX: ("output_mode",),
    "rankseg": OPTIONS,
    PRESENCE: (FREQUENCIES, *PRESENCE_OPTIONS),
}


@dataclass(frozen=True)
class NamedDecoder:
    """A decision that is built when the number of channels is known.

    Args:
        name: how it is called in tables.
        options: of ``RankSEG``; with ``frequencies`` of ``PresenceRankSEG``.
        tuned: what was read from a file, instead of options.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tuned: TunedDecoder | None = None

    @property
    def output_mode(self) -> str | None:
        """What its text or file asks for; None leaves it to ``build``."""
        return self.tuned.output_mode if self.tuned is not None else self.options.get("output_mode")

    def build(self, channels: int, output_mode: str | None = None) -> RankSEG | TunedDecoder:
        """Build the decoder; in multilabel mode argmax is the threshold 0.5.

        Args:
            channels: C; a single one needs masks.
            output_mode: of a decoder that does not say; None is what fits the number of channels.

        Raises:
            TypeError: for an option of the wrong type.
            ValueError: for an option value that ``RankSEG`` refuses, also for this number of channels, or a file that
                was tuned for another one.
        """
        if self.tuned is not None:
            if self.tuned.num_classes != channels:
                raise ValueError(
                    f"decoder {self.name!r} was tuned for {self.tuned.num_classes} classes, got probabilities of "
                    f"{channels}"
                )
            return self.tuned
        options = {"output_mode": read_mode(output_mode, channels), **self.options}
        try:
            if FREQUENCIES in options:
                return PresenceRankSEG(channels, **options)
            decoder = RankSEG(**options)
            decoder.check_classes(channels)
        except ValueError as error:
            raise ValueError(f"decoder {self.name!r}: {error}") from error
        return decoder

    @property
    def is_argmax(self) -> bool:
        """Whether it is argmax by its text."""
        return self.tuned is None and self.options.get("metric") == "acc"


class ByCase(nn.Module):
    """A decoder that is another for some cases: those that it must know nothing of.

    Args:
        decoder: decides on all cases but these, and on images whose case is not known.
        others: decoders for these cases.
        number: index among ``others``, by case.

    Example:
        >>> by_case = ByCase(RankSEG("dice"), [RankSEG("acc")], {"patient 7": 0})
        >>> by_case.of("patient 7").metric, by_case.of("patient 8").metric
        ('acc', 'dice')
    """

    def __init__(self, decoder: nn.Module, others: Iterable[nn.Module], number: Mapping[str, int]) -> None:
        super().__init__()
        self.decoder, self.others, self.number = decoder, nn.ModuleList(others), dict(number)

    def of(self, case: str) -> Decoder:
        """The decoder of a case."""
        return self.others[self.number[case]] if case in self.number else self.decoder

    def forward(self, probs: Tensor) -> Tensor:
        """Decide on images of which no more is known."""
        decided: Tensor = self.decoder(probs)
        return decided


def of_case(decoders: Mapping[str, Decoder], case: str) -> dict[str, Decoder]:
    """Who decides on the images of a case, by name."""
    return {name: each.of(case) if isinstance(each, ByCase) else each for name, each in decoders.items()}


def parse_decoder(text: str) -> NamedDecoder:
    """Read a decoder from text.

    Args:
        text: ``"argmax"``, ``"rankseg"`` or ``"rankseg(option=value, ...)"`` with the options of
            ``RankSEG``; words need no quotes. ``"argmax(output_mode=multilabel)"`` is the threshold 0.5, a mask for
            each class. ``"presence(frequencies=[0.9, 0.1], option=value, ...)"`` is a ``PresenceRankSEG`` that is told
            how often images hold each class; one that learnt it is a file. Or the path of a ``.json`` file that
            ``TunedDecoder.save`` wrote.

    Returns:
        The decoder, called by its text without blanks around.

    Raises:
        ValueError: for another name, a file that cannot be read or holds no decoder, an unknown option (the message
            names the nearest one), an option that is given twice, one whose value the decoder refuses, or presence
            without frequencies.

    Example:
        >>> found = parse_decoder("rankseg(metric=dice, pruning_prob=0.3)")
        >>> found.name, found.options
        ('rankseg(metric=dice,pruning_prob=0.3)', {'metric': 'dice', 'pruning_prob': 0.3})
        >>> parse_decoder("rankseg(metrik=dice)")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: decoder 'rankseg(metrik=dice)': unknown option 'metrik', did you mean 'metric'? Allowed are ...
    """
    if text.strip().lower().endswith(".json"):
        return _read_file(text.strip())
    match = re.fullmatch(r"\s*([\w.+-]+)\s*(?:\((.*)\))?\s*", text, flags=re.DOTALL)
    name = match[1].lower() if match else ""
    if match is None or name not in NAMED:
        raise ValueError(
            "decoder must be 'argmax', 'rankseg(option=value, ...)', 'presence(frequencies=[...], ...)' or the .json "
            f"file of a tuned one, got {text!r}"
        )
    options = _parse_options(text, name, match[2] or "")
    if name == PRESENCE and FREQUENCIES not in options:
        raise ValueError(
            f"decoder {text!r}: which classes are there is learnt from other images with labels: tune does so, and "
            "writes the decoder.json to give here. Or frequencies=[1.0, 0.3, ...] says how often images hold each class"
        )
    try:
        decoder = _tried(options | ({"metric": "acc"} if name == ARGMAX else {}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"decoder {text!r}: {error}") from error
    if name == ARGMAX:
        options["metric"] = decoder.metric
    if "output_mode" in options:
        options["output_mode"] = decoder.output_mode  # in the one way it is written
    return NamedDecoder(re.sub(r"\s+", "", text).lower().removesuffix("()"), options)


def _tried(options: Mapping[str, Any]) -> RankSEG:
    """The decoder of these options, for as many classes as they speak of."""
    if FREQUENCIES not in options:
        return RankSEG(**options)
    given = options[FREQUENCIES]
    classes = len(given) if isinstance(given, (list, tuple)) else 1
    return PresenceRankSEG(classes, **{"output_mode": read_mode(None, classes), **options})


def _read_file(path: str) -> NamedDecoder:
    try:
        return NamedDecoder(path, tuned=TunedDecoder.load(path))
    except OSError as error:
        raise ValueError(f"decoder {path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"decoder {error}") from error


def _parse_options(text: str, name: str, inside: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    # At commas, but for those inside of brackets.
    for part in filter(None, (part.strip() for part in re.split(r",(?![^\[\](]*[\])])", inside))):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value:
            raise ValueError(f"decoder {text!r}: options are written option=value, got {part!r}")
        if name == ARGMAX and key not in NAMED[name]:
            raise ValueError(f"decoder {text!r}: argmax has no options but output_mode")
        if key not in NAMED[name]:
            raise ValueError(f"decoder {text!r}: unknown option {key!r}, {suggest(key, NAMED[name])}")
        if key in options:
            raise ValueError(f"decoder {text!r}: option {key!r} is given twice")
        options[key] = _value(value)
    return options


def _value(text: str) -> Any:
    """Numbers and quoted words as Python reads them; other words as they stand."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def named_decoders(decoders: Iterable[str] | Mapping[str, Decoder]) -> dict[str, NamedDecoder | Decoder]:
    """Bring the option ``decoders`` into one form: by name, the first being the baseline; one alone gets argmax.

    Args:
        decoders: texts for ``parse_decoder``, or callables on probabilities (1, C, *spatial) by name.

    Raises:
        TypeError: for what is neither.
        ValueError: for a text that is no decoder, two of the same name, none, or argmax alone.

    Example:
        >>> list(named_decoders(["rankseg(metric=iou)"]))
        ['argmax', 'rankseg(metric=iou)']
    """
    if isinstance(decoders, str):
        raise TypeError(f"decoders must be a list of decoders or a dict of callables by name, got {decoders!r}")
    if isinstance(decoders, Mapping):
        named: dict[str, NamedDecoder | Decoder] = dict(decoders)
        for name, decoder in named.items():
            if not callable(decoder):
                raise TypeError(f"decoder {name!r} must be a callable on probabilities, got {decoder!r}")
    else:
        parsed = [parse_decoder(text) for text in decoders]
        named = {each.name: each for each in parsed}
        if len(named) < len(parsed):
            raise ValueError(f"decoders must differ, got {', '.join(each.name for each in parsed)}")
    if len(named) == 1 and not any(isinstance(each, NamedDecoder) and each.is_argmax for each in named.values()):
        named = {ARGMAX: parse_decoder(ARGMAX), **named}
    if len(named) < 2:
        raise ValueError(f"decoders must hold another one than argmax to compare with it, got {list(named)}")
    return named


def common_mode(decoders: Mapping[str, NamedDecoder | Decoder]) -> str | None:
    """The output mode that the decoders ask for; None if none of them does.

    Raises:
        ValueError: if they differ: labels and masks are not scored against the same truth.

    Example:
        >>> common_mode(named_decoders(["argmax", "rankseg(output_mode=multilabel)"]))
        'multilabel'
    """
    asked = {name: mode for name, each in decoders.items() if (mode := getattr(each, "output_mode", None)) is not None}
    if len(set(asked.values())) > 1:
        each = ", ".join(f"{mode} for {name}" for name, mode in asked.items())
        raise ValueError(f"decoders must have one output_mode, got {each}")
    return next(iter(asked.values()), None)
