"""The decoder in force, what checkpoints keep of it, and what they may change."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.calibration.deciding import as_decoder
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice
from rankseg_plugins.lightning._toolkit import Trainer, rank_zero_warn


class Decision:
    """Holds the decoder that was given and the one in force, which differ once one was tuned.

    What was given counts: no checkpoint changes a decoder that is fitted, and where a checkpoint holds another one, a
    warning says which decides.

    Args:
        decoder: that of the user; None is argmax, until one is tuned.
        num_classes: C.
        activation: what turns logits into probabilities.
        tunes: whether decoders are tuned, so that checkpoints hold them, and give them back.

    Attributes:
        decoder: the one in force.
        baseline: argmax, or the threshold 0.5.
        output_mode: of both.

    Raises:
        TypeError: without a decoder where none will be tuned, or if it is none.
        ValueError: for an unknown activation; if the decoder does not fit the other options, or it is open whether the
            classes may overlap.
        OSError: if its file cannot be read.
    """

    def __init__(self, decoder: Any, num_classes: int, activation: str, tunes: bool) -> None:
        given = _starting_decoder(num_classes, activation, tunes) if decoder is None else decoder
        self.decoder = self._given = as_decoder(given, num_classes)
        check_choice("activation", activation, ACTIVATIONS)
        self.output_mode = _output_mode(self.decoder)
        _check_one_channel(self.output_mode, num_classes, activation)
        self.baseline = RankSEG(metric="acc", output_mode=self.output_mode)
        self._num_classes, self._tunes, self._key = num_classes, tunes, ""
        # Of the weights that the decoder was tuned on, and of those that a checkpoint brought.
        self._step: int | None = None
        self._loaded_step: int | None = None
        self._restored = False
        # What the given decoder held before a checkpoint put something into it, and what that was.
        self._replaced: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: the tuned decoder and the step of its weights, or what another has learnt."""
        tuned = _as_json(self.decoder) if self._tunes else None
        learnt = self.decoder.state_dict() if _learns(self.decoder) else {}
        return {"decoder": learnt, "tuned": tuned, "tuned_step": None if tuned is None else self._step}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up ``state`` as far as it fits what was given, and warn where it does not."""
        self._forget()
        tuned, learnt = state.get("tuned"), state.get("decoder") or {}
        problem = None
        if tuned is not None and self._tunes:
            problem = self._take_tuned(tuned, state.get("tuned_step"))
        elif tuned is not None and tuned != _as_json(self._given):
            problem = "the checkpoint holds a tuned decoder, which only tune=True takes up"
        elif tuned is None:
            problem = self._take_learnt(learnt)
        if problem is not None:
            rank_zero_warn(f"{problem}; {self._words()} stays in force as it was given")

    def start(self, key: str) -> None:
        """Know of no checkpoint yet, but the key under which they hold the state."""
        self._restored, self._key = False, key

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Other weights are loaded: what was tuned is not for them. Lightning hands over the state by itself."""
        self._restored, self._loaded_step = True, checkpoint.get("global_step")
        self._forget()

    def prepare(self, trainer: Trainer, device: torch.device, stage: str) -> None:
        """Have the decoder of the weights in use where their outputs will be; warns where none was tuned on them."""
        self._restore(trainer)
        if isinstance(self.decoder, torch.nn.Module):
            self.decoder.to(device)
        caveat = None if stage == "val" else self._caveat(trainer, stage)
        if caveat is not None:
            rank_zero_warn(caveat)

    def tuned(self, decoder: TunedDecoder, trainer: Trainer) -> None:
        """Put in force what was tuned on the weights of now."""
        self.decoder, self._step = decoder, self._weights(trainer)

    def _restore(self, trainer: Trainer) -> None:
        """Load what Lightning has not: a checkpoint of weights alone, and before 2.6 all but those to fit with."""
        if (self._tunes or _learns(self._given)) and trainer.ckpt_path and not self._restored:
            checkpoint = trainer.strategy.checkpoint_io.load_checkpoint(trainer.ckpt_path)
            self.on_load_checkpoint(checkpoint)
            state = (checkpoint.get("callbacks") or {}).get(self._key)
            if state is not None:
                self.load(state)
        self._restored = True

    def _caveat(self, trainer: Trainer, stage: str) -> str | None:
        """What to know where weights are tested that the decoder was not tuned on."""
        if not self._tunes:
            return None
        if not isinstance(self.decoder, TunedDecoder):
            return (
                f"tune: no decoder was tuned yet, so {stage} decides with {self.decoder}; validate first, or load a "
                "checkpoint that holds a tuned decoder"
            )
        now = self._weights(trainer)
        if self._step is None or now is None or now <= self._step:
            return None
        return (
            f"tune: {stage} decides with the decoder that was tuned on the weights of step {self._step}, but these are "
            f"those of step {now}: no validation lies in between. Validate first, or save checkpoints when a "
            "validation ends, as ModelCheckpoint does without every_n_train_steps"
        )

    def _weights(self, trainer: Trainer) -> int | None:
        """The step of the weights in use, as far as it is known."""
        loaded = trainer.ckpt_path and trainer.state.fn != "fit"
        return self._loaded_step if loaded else trainer.global_step

    def _forget(self) -> None:
        self.decoder, self._step = self._given, None
        before, self._replaced = self._replaced, None
        # What the user has fitted since then is his own.
        if before is not None and _alike(self._given.state_dict(), before[1]):
            self._given.load_state_dict(before[0])

    def _take_tuned(self, found: Mapping[str, Any], step: int | None) -> str | None:
        try:
            decoder = as_decoder(TunedDecoder.from_dict(found), self._num_classes)
        except ValueError as error:
            return f"the tuned decoder of the checkpoint does not fit here ({error})"
        if decoder.output_mode != self.output_mode:
            return (
                f"the tuned decoder of the checkpoint has output_mode={decoder.output_mode!r} instead of "
                f"{self.output_mode!r}"
            )
        self.decoder, self._step = decoder, step
        return None

    def _take_learnt(self, learnt: Mapping[str, Any]) -> str | None:
        """Load it into the given decoder, if that has not learnt anything itself."""
        own = self._given.state_dict() if _learns(self._given) else {}
        if _alike(learnt, own):
            return None
        fitted = bool(own) and _is_fitted(self._given)
        if not learnt:
            return None if fitted or self._tunes else "the checkpoint holds nothing that a decoder has learnt"
        if fitted or not own:
            return "the checkpoint holds what another decoder has learnt"
        before = copy.deepcopy(own)
        try:
            # Loading may fail in the middle: what was given is to stay whole.
            copy.deepcopy(self._given).load_state_dict(learnt)
        except RuntimeError as error:
            return f"what the checkpoint holds of a decoder does not fit here ({' '.join(str(error).split())})"
        self._given.load_state_dict(learnt)
        self._replaced = before, copy.deepcopy(self._given.state_dict())
        return None

    def _words(self) -> str:
        return " ".join(repr(self._given).split())


def _starting_decoder(num_classes: int, activation: str, tunes: bool) -> RankSEG:
    """Argmax, the decision where none was given, until one is tuned."""
    if not tunes:
        raise TypeError("decoder must be given, such as RankSEG(metric='dice'), unless tune=True chooses one")
    if activation == "sigmoid" and num_classes != 1:
        raise ValueError(
            "activation='sigmoid' leaves open whether classes may overlap: give decoder=RankSEG('acc', "
            "output_mode='multilabel') for masks, or decoder=RankSEG('acc') for one label per pixel"
        )
    return RankSEG("acc", output_mode="multilabel" if num_classes == 1 else "multiclass")


def _output_mode(decoder: object) -> str:
    """A function gives one label per pixel unless it says otherwise."""
    return getattr(decoder, "output_mode", "multiclass")


def _check_one_channel(output_mode: str, num_classes: int, activation: str) -> None:
    if num_classes != 1:
        return
    if output_mode != "multilabel":
        raise ValueError("num_classes=1 needs a decoder with output_mode='multilabel', got 'multiclass'")
    if activation in ("softmax", "normalize"):
        raise ValueError(f"num_classes=1 needs activation='sigmoid' or 'identity', got {activation!r}")


def _learns(decoder: object) -> bool:
    """Whether a decoder's own state belongs into checkpoints."""
    # What was tuned is kept as a whole, and what was given as a file is not to change by a checkpoint.
    return isinstance(decoder, torch.nn.Module) and not isinstance(decoder, TunedDecoder)


def _is_fitted(decoder: torch.nn.Module) -> bool:
    """Whether it, or a part of it such as a ``GlobalRankSEG``, says that it is."""
    return any(getattr(part, "fitted", False) is True for part in decoder.modules())


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two states hold the same values, on whatever device."""
    if one.keys() != other.keys():
        return False
    return all(_is_equal(value, other[name]) for name, value in one.items())


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one.cpu() == other.cpu()).all())
    return not isinstance(one, Tensor) and not isinstance(other, Tensor) and bool(one == other)


def _as_json(decoder: object) -> dict[str, Any] | None:
    """A tuned decoder as values that every checkpoint can hold; None for other decoders."""
    # Through JSON: numbers of NumPy among the options would keep torch.load(weights_only=True) from reading them.
    return json.loads(json.dumps(decoder.to_dict())) if isinstance(decoder, TunedDecoder) else None
