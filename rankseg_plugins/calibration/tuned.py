"""A decoder that was chosen on validation data, as an object and as a small JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankseg_plugins._strict_json import read_json
from rankseg_plugins._writing import write_atomically
from rankseg_plugins.calibration.temperature import OF_LOGITS, probs_at, read_temperature
from rankseg_plugins.core import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.core.inputs.options import read_integer
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.inputs.probabilities import check_probs, check_valid_mask, plain
from rankseg_plugins.core.pooled.decoder import RULE
from rankseg_plugins.core.presence.reading import STATE

FORMAT = "rankseg_plugins decoder"
VERSION = 2
#: Of each version; the first knew no presence.
KEYS: dict[int, tuple[str, ...]] = {
    1: ("format", "version", "num_classes", "temperature", "options", "rule", "evidence")
}
KEYS[2] = (*KEYS[1], "presence")
OPTIONS = ("metric", "smooth", "output_mode", "solver", "pruning_prob", "unassigned_policy", "void_index", "eps")
GLOBAL_OPTIONS = ("metric", "output_mode", "void_index")
PRESENCE_OPTIONS = (
    *("rule", "present", "absent", "level", "excluded"),
    *(name for name in OPTIONS if name != "pruning_prob"),
)


class TunedDecoder(nn.Module):
    """What ``rankseg_plugins.tuning.tune`` chose: a temperature and a decision.

    Its ``state_dict`` is empty: what was chosen is in its file, and a checkpoint neither needs nor changes it. Its
    numbers keep their precision where a module around it is made ``half``.

    Args:
        decoder: a ``RankSEG`` (``metric="acc"`` is argmax), or a fitted ``PresenceRankSEG`` or ``GlobalRankSEG``, of
            which it holds a copy.
        num_classes: C, the channels of the probabilities.
        temperature: in [0.001, 1000]; see ``TemperatureScaling``.
        evidence: why it was chosen, as values that JSON holds.

    Shape:
        - Input: (B, C, *spatial) probabilities.
        - Output: int64 labels (B, *spatial), or bool masks (B, C, *spatial).

    Raises:
        TypeError: if ``decoder`` is of another class, or a number is none.
        ValueError: if it is not fitted or does not serve ``num_classes``, or the temperature is out of range.

    Example:
        >>> decoder = TunedDecoder(RankSEG(pruning_prob=0.3), num_classes=2, temperature=0.7)
        >>> decoder(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]))
        tensor([[0, 1]])
        >>> decoder.is_argmax, decoder.knows_presence, decoder.output_mode, decoder.check_sums
        (False, False, 'multiclass', True)
        >>> decoder.unassigned_policy, decoder.void_index
        ('max_score', 255)
    """

    def __init__(
        self,
        decoder: RankSEG | GlobalRankSEG,
        num_classes: int,
        temperature: float = 1.0,
        evidence: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(decoder, (RankSEG, GlobalRankSEG)):
            raise TypeError(f"decoder must be a RankSEG, a PresenceRankSEG or a GlobalRankSEG, got {decoder!r}")
        if isinstance(decoder, (GlobalRankSEG, PresenceRankSEG)) and not decoder.fitted:
            raise ValueError(f"decoder is a {type(decoder).__name__} that is not fitted: call update() and fit() first")
        if evidence is not None and not isinstance(evidence, Mapping):
            raise TypeError(f"evidence must be a dict of values that JSON holds, got {evidence!r}")
        temperature = read_temperature("temperature", temperature)
        num_classes = read_integer("num_classes", num_classes, least=1)
        decoder.check_classes(num_classes)
        if isinstance(decoder, (GlobalRankSEG, PresenceRankSEG)):
            decoder = _without_state(decoder)
        self.decoder, self.num_classes = decoder, num_classes
        self.evidence = dict(evidence or {})
        self.temperature = temperature

    @property
    def output_mode(self) -> str:
        """``"multiclass"`` or ``"multilabel"``."""
        return self.decoder.output_mode

    @property
    def check_sums(self) -> bool:
        """Whether it warns of probabilities that do not add up to 1; see ``RankSEG``."""
        return self.decoder.check_sums

    @check_sums.setter
    def check_sums(self, value: bool) -> None:
        self.decoder.check_sums = value

    @property
    def unassigned_policy(self) -> str:
        """``"void"`` if pixels may stay without a class, else ``"max_score"``."""
        return getattr(self.decoder, "unassigned_policy", "max_score")

    @property
    def void_index(self) -> int:
        """The label of pixels without a class."""
        return self.decoder.void_index

    @property
    def is_argmax(self) -> bool:
        """Whether it decides as plain argmax does (multilabel: the threshold 1/2)."""
        return self.decoder.metric == "acc"

    def extra_repr(self) -> str:
        """Classes and temperature."""
        return f"num_classes={self.num_classes}, temperature={self.temperature:g}"

    def forward(self, probs: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Decide; see the class, and ``RankSEG.predict``."""
        probs, valid_mask = plain(probs), plain(valid_mask)
        check_probs("probs", probs, self.num_classes)
        if self.temperature != 1:
            check_valid_mask(probs, valid_mask)
            # What lies outside may be no probability at all.
            inside = probs if valid_mask is None else probs.masked_fill(~valid_mask.unsqueeze(1 - probs.ndim), 0)
            probs = self.scaling(inside)
        decided: Tensor = self.decoder(probs, valid_mask)
        return decided

    def scaling(self, probs: Tensor) -> Tensor:
        """The probabilities (B, C, *spatial) at its temperature; at 1 these themselves.

        Example:
            >>> decoder = TunedDecoder(RankSEG("dice"), 2, temperature=2.0)
            >>> decoder.scaling(torch.tensor([[[0.9], [0.1]]])).flatten()  # 3 : 1 instead of 9 : 1
            tensor([0.7500, 0.2500])
        """
        return probs_at(probs, self.temperature, self.output_mode)

    def predict(self, probs: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Decide. The same as calling the module.

        Args:
            probs: (B, C, *spatial) probabilities.
            valid_mask: optional bool, (B, *spatial) or (*spatial): see ``RankSEG.predict``.

        Returns:
            int64 labels (B, *spatial), or bool masks (B, C, *spatial).

        Raises:
            TypeError: for tensors of the wrong type.
            ValueError: for wrong shapes or values.

        Example:
            >>> TunedDecoder(RankSEG("dice"), 2, temperature=1.4).predict(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]))
            tensor([[0, 1]])
        """
        found: Tensor = self(probs, valid_mask)
        return found

    @torch.no_grad()
    def predict_logits(self, logits: Tensor, activation: str = "softmax", valid_mask: Tensor | None = None) -> Tensor:
        """Decide on the output of a network, its temperature included.

        Args:
            logits: (B, C, *spatial), floating point.
            activation: see ``RankSEG.predict_logits``, as the rest.
            valid_mask: optional bool, (B, *spatial) or (*spatial).

        Returns:
            int64 labels (B, *spatial), or bool masks (B, C, *spatial).

        Raises:
            TypeError: for tensors of the wrong type.
            ValueError: for wrong shapes or values.

        Example:
            >>> TunedDecoder(RankSEG("dice"), 2).predict_logits(torch.tensor([[[2.0, -1.0], [0.0, 0.0]]]))
            tensor([[0, 1]])
        """
        pixels = Pixels.of_logits(logits, activation, valid_mask, 1.0, self.num_classes)
        if self.temperature != 1 and (activation, self.output_mode) not in OF_LOGITS:
            found: Tensor = self(pixels.probs(), pixels.valid)
            return found
        return self.decoder.predict_logits(logits, activation, valid_mask, temperature=self.temperature)

    @property
    def knows_presence(self) -> bool:
        """Whether it decides by how likely classes are there."""
        return isinstance(self.decoder, PresenceRankSEG)

    @torch.no_grad()
    def decision_and_presence(self, logits: Tensor, activation: str = "softmax") -> tuple[Tensor, Tensor]:
        """What ``predict_logits`` decides, and how likely that takes each class to be there, (B, C) float64.

        See ``PresenceRankSEG.decision_and_presence``, for a decoder that ``knows_presence``.

        Example:
            >>> decoder = TunedDecoder(PresenceRankSEG(2, frequencies=[1.0, 0.3], rule=0.5), 2)
            >>> decision, presence = decoder.decision_and_presence(torch.tensor([[[0.0, 0.0], [0.0, 0.0]]]))
            >>> decision, presence.round(decimals=2)
            (tensor([[0, 0]]), tensor([[1.0000, 0.3000]], dtype=torch.float64))
        """
        decoder, scaled = self.decoder, (activation, self.output_mode) in OF_LOGITS
        assert isinstance(decoder, PresenceRankSEG)
        if self.temperature == 1 or scaled:
            return decoder.decision_and_presence(logits, activation, self.temperature)
        probs = Pixels.of_logits(logits, activation, None, 1.0, self.num_classes).probs()
        return decoder.decision_and_presence(self.scaling(probs), "identity")

    def to_dict(self) -> dict[str, Any]:
        """Everything, as values that JSON holds.

        Example:
            >>> found = TunedDecoder(RankSEG("iou"), 2, temperature=1.4).to_dict()
            >>> found["temperature"], found["options"]["metric"], found["rule"]
            (1.4, 'iou', None)
        """
        names, of_rule, of_presence = _parts_of(self.decoder)
        return {
            "format": FORMAT,
            "version": VERSION,
            "num_classes": self.num_classes,
            "temperature": self.temperature,
            "options": {name: _as_json(getattr(self.decoder, name)) for name in names},
            "rule": {name: _as_json(getattr(self.decoder, name)) for name in of_rule} or None,
            "presence": {name: _as_json(getattr(self.decoder, name)) for name in of_presence} or None,
            "evidence": self.evidence,
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> TunedDecoder:
        """The decoder that ``to_dict`` wrote down.

        Raises:
            ValueError: if it is none, was written by a later version, or a value is missing or not valid.

        Example:
            >>> written = TunedDecoder(RankSEG("iou"), 2).to_dict()
            >>> TunedDecoder.from_dict({**written, "temperature": 1.4}).temperature
            1.4
            >>> TunedDecoder.from_dict({"temperature": 1.4})
            Traceback (most recent call last):
                ...
            ValueError: no decoder of rankseg_plugins: 'format' must be 'rankseg_plugins decoder'
        """
        if not isinstance(found, Mapping) or found.get("format") != FORMAT:
            raise ValueError(f"no decoder of rankseg_plugins: 'format' must be {FORMAT!r}")
        version = found.get("version")
        if type(version) is not int or version not in KEYS:
            later = "; a newer rankseg_plugins reads it" if type(version) is int and version > VERSION else ""
            raise ValueError(f"version {version!r} of the format is not known here (this is {VERSION}){later}")
        if set(found) != set(KEYS[version]):
            raise ValueError(f"a decoder holds {', '.join(KEYS[version])}; got {', '.join(map(str, found))}")
        try:
            if not isinstance(found["evidence"], Mapping):
                raise TypeError(f"evidence must be a JSON object, got {found['evidence']!r}")
            return cls(_read_decoder(found), found["num_classes"], found["temperature"], found["evidence"])
        except (TypeError, RuntimeError, OverflowError) as error:
            raise ValueError(f"not a valid decoder: {error}") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write a JSON file, as a whole or not at all.

        Args:
            path: of the file.

        Raises:
            OSError: if it cannot be written; it names the file.
            TypeError: if ``evidence`` holds what JSON does not.
            ValueError: likewise, such as NaN.

        Example:
            >>> import os, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = os.path.join(folder, "decoder.json")
            ...     TunedDecoder(RankSEG("iou"), num_classes=3, evidence={"seed": 0}).save(path)
            ...     json.loads(Path(path).read_text())["evidence"]
            {'seed': 0}
        """
        try:
            text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:  # all else is checked
            raise type(error)(f"evidence must hold values of JSON, and None for NaN: {error}") from error
        write_atomically(Path(path), text + "\n")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TunedDecoder:
        """Read a file that ``save`` wrote.

        Args:
            path: of the file.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it holds no decoder, one of a later version, or a key twice; the message names the file.

        Example:
            >>> import os, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = os.path.join(folder, "decoder.json")
            ...     TunedDecoder(RankSEG("dice"), 2, temperature=1.4).save(path)
            ...     TunedDecoder.load(path).temperature
            1.4
        """
        try:
            found = read_json(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        try:
            return cls.from_dict(found)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _parts_of(decoder: RankSEG | GlobalRankSEG) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of its options, of its rule for a whole data set, and of what it knows of presence."""
    if isinstance(decoder, GlobalRankSEG):
        return GLOBAL_OPTIONS, RULE, ()
    return (PRESENCE_OPTIONS, (), STATE) if isinstance(decoder, PresenceRankSEG) else (OPTIONS, (), ())


def _as_json(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _without_state(decoder: GlobalRankSEG | PresenceRankSEG) -> GlobalRankSEG | PresenceRankSEG:
    """A copy that decides alike, with nothing in a state_dict, and without the sample that it was fitted to."""
    names, _, _ = _parts_of(decoder)
    copied = type(decoder)(decoder.num_classes, **{name: getattr(decoder, name) for name in names})
    # Of one that was copied so before, the state_dict is empty.
    copied.load_state_dict({**decoder.state_dict(), **dict(decoder.named_buffers())})
    copied.to(next(decoder.buffers()).device)
    for name, value in list(copied.named_buffers()):
        copied.register_buffer(name, value, persistent=False)
    return copied


def _read_decoder(found: Mapping[str, Any]) -> RankSEG | GlobalRankSEG:
    values: list[Any] = [found.get(name) for name in ("num_classes", "options", "rule", "presence")]
    classes, options, rule, presence = values
    if rule is not None and presence is not None:
        raise TypeError("a decoder has a rule for the whole data set or knows of presence, not both")
    decoder: RankSEG | GlobalRankSEG
    if rule is not None:
        _check_keys("options", options, GLOBAL_OPTIONS)
        decoder = GlobalRankSEG(classes, **options)
        decoder.load_state_dict(_read_numbers("rule", rule, RULE))
        return decoder
    _check_keys("options", options, OPTIONS if presence is None else PRESENCE_OPTIONS)
    # Written by name always; the decoders themselves take None for their default.
    options = {**options, "solver": str(options["solver"])}
    if presence is None:
        return RankSEG(**options)
    decoder = PresenceRankSEG(classes, **options)
    decoder.load_state_dict(_read_numbers("presence", presence, STATE))
    return decoder


def _check_keys(what: str, found: Any, names: Collection[str]) -> None:
    if not isinstance(found, Mapping):
        raise TypeError(f"{what} must be a JSON object, got {found!r}")
    if set(found) != set(names):
        raise TypeError(f"{what} must hold {', '.join(names)}; got {', '.join(map(str, found)) or 'nothing'}")


def _read_numbers(what: str, found: Any, names: Collection[str]) -> dict[str, Tensor]:
    _check_keys(what, found, names)
    return {
        name: torch.tensor(_read_list(what, name, found[name]), dtype=torch.float64, device="cpu") for name in names
    }


def _read_list(what: str, name: str, values: Any) -> list[float]:
    if not isinstance(values, list) or not all(type(each) in (int, float) and math.isfinite(each) for each in values):
        raise TypeError(f"{name} of the {what} must be a list of finite numbers, got {values!r}")
    return values
