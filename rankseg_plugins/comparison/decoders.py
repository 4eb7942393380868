"""Decoders by name: ``"argmax"``, ``"rankseg(metric=dice, pruning_prob=0.3)"``, and the file of a tuned one."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.decoder import OPTIONS
from rankseg_plugins.core.options import read_mode, suggest

Decoder = Callable[[Tensor], Tensor]
NAMES = ("argmax", "rankseg")


@dataclass(frozen=True)
class NamedDecoder:
    """A decision that is built when the number of channels is known.

    Args:
        name: how it is called in tables.
        options: options of :class:`rankseg_plugins.RankSEG`.
        tuned: what was read from a file, instead of options.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tuned: TunedDecoder | None = None

    @property
    def output_mode(self) -> str | None:
        """What its text or file asks for; None leaves it to :meth:`build`."""
        return self.tuned.output_mode if self.tuned is not None else self.options.get("output_mode")

    def build(self, channels: int, output_mode: str | None = None) -> RankSEG | TunedDecoder:
        """Build the decoder; in multilabel mode argmax is the threshold 0.5.

        Args:
            channels: C; a single one needs masks.
            output_mode: of a decoder that does not say; None is what fits the number of channels.

        Raises:
            TypeError: for an option of the wrong type.
            ValueError: for an option value that :class:`~rankseg_plugins.RankSEG` refuses, also for this number of
                channels, or a file that was tuned for another one.
        """
        if self.tuned is not None:
            if self.tuned.num_classes != channels:
                raise ValueError(
                    f"decoder {self.name!r} was tuned for {self.tuned.num_classes} classes, got probabilities of "
                    f"{channels}"
                )
            return self.tuned
        decoder = RankSEG(**{"output_mode": read_mode(output_mode, channels), **self.options})
        try:
            decoder.check_classes(channels)
        except ValueError as error:
            raise ValueError(f"decoder {self.name!r}: {error}") from error
        return decoder


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
            :class:`rankseg_plugins.RankSEG`; words need no quotes. ``"argmax(output_mode=multilabel)"`` is the
            threshold 0.5, a mask for each class. Or the path of a ``.json`` file that
            :meth:`TunedDecoder.save` wrote.

    Returns:
        The decoder, called by its text without blanks around.

    Raises:
        ValueError: for another name, a file that cannot be read or holds no decoder, an unknown option (the message
            names the nearest one), an option that is given twice, or one whose value
            :class:`~rankseg_plugins.RankSEG` refuses.

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
    if match is None or name not in NAMES:
        raise ValueError(
            f"decoder must be 'argmax', 'rankseg(option=value, ...)' or the .json file of a tuned one, got {text!r}"
        )
    options = _parse_options(text, match[2] or "")
    if name == "argmax":
        if options.keys() - {"output_mode"}:
            raise ValueError(f"decoder {text!r}: argmax has no options but output_mode")
        options["metric"] = "acc"
    try:
        decoder = RankSEG(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"decoder {text!r}: {error}") from error
    if "output_mode" in options:
        options["output_mode"] = decoder.output_mode  # in the one way it is written
    return NamedDecoder(re.sub(r"\s+", "", text).lower().removesuffix("()"), options)


def _read_file(path: str) -> NamedDecoder:
    try:
        return NamedDecoder(path, tuned=TunedDecoder.load(path))
    except OSError as error:
        raise ValueError(f"decoder {path!r} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"decoder {error}") from error


def _parse_options(text: str, inside: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in inside.split(","))):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or not value:
            raise ValueError(f"decoder {text!r}: options are written option=value, got {part!r}")
        if key not in OPTIONS:
            raise ValueError(f"decoder {text!r}: unknown option {key!r}, {suggest(key, OPTIONS)}")
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
    r"""Bring the option ``decoders`` into one form: by name, the first being the baseline.

    Args:
        decoders: texts for :func:`parse_decoder`, or callables on probabilities (1, C, \*spatial) by name.

    Raises:
        ValueError: for fewer than two decoders, or two of the same name.
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
    if len(named) < 2:
        raise ValueError(f"a comparison needs a baseline and at least one other decoder, got {list(named)}")
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
