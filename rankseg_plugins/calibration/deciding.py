"""The option ``decoder`` of adapters, and what such a decoder decides on the output of a network."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.core import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.core.inputs.options import read_integer
from rankseg_plugins.core.inputs.probabilities import to_probabilities
from rankseg_plugins.scores.checks import check_decoder


def decide(decoder: Any, logits: Tensor, activation: str) -> Tensor:
    """What the decoder of an adapter decides on the output of a network.

    Probabilities of the whole tensor are made only for a decoder that takes nothing else: a function, or a module whose
    call does more than those of this package, by its class or by a hook.

    Args:
        decoder: see ``as_decoder``.
        logits: (B, C, *spatial).
        activation: what makes probabilities of them.

    Returns:
        Labels (B, *spatial), or bool masks (B, C, *spatial).

    Example:
        >>> decide(lambda probs: probs[:, 1:] > 0.1, torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), "softmax")
        tensor([[[ True, False]]])
    """
    if activation != "identity" and takes_logits(decoder):
        decided: Tensor = decoder.predict_logits(logits, activation)
    else:
        decided = decoder(to_probabilities(logits, activation))
    return decided


def decide_knowing(decoder: Any, logits: Tensor, activation: str) -> tuple[Tensor, Tensor | None]:
    """What ``decide`` gives, and how likely the decision took each class to be there: (B, C) float64.

    The latter is None of a decoder that knows nothing of it, or whose call does more than those of this package.

    Example:
        >>> from rankseg_plugins import PresenceRankSEG
        >>> logits = torch.tensor([[[1.0, 3.0], [0.0, 0.0]]])
        >>> decide_knowing(PresenceRankSEG(2, frequencies=[1.0, 0.25]), logits, "softmax")[1].round(decimals=3)
        tensor([[1.0000, 0.2500]], dtype=torch.float64)
        >>> decide_knowing(RankSEG(), logits, "softmax")[1] is None
        True
    """
    knows = decoder.knows_presence if isinstance(decoder, TunedDecoder) else isinstance(decoder, PresenceRankSEG)
    if knows and takes_logits(decoder):
        found: tuple[Tensor, Tensor | None] = decoder.decision_and_presence(logits, activation)
        return found
    return decide(decoder, logits, activation), None


def takes_logits(decoder: Any) -> bool:
    """Whether calling it does no more than what this package made it do: no other class, and no hook."""
    if type(decoder) not in (RankSEG, PresenceRankSEG, GlobalRankSEG, TunedDecoder):
        return False
    return not (decoder._forward_hooks or decoder._forward_pre_hooks)


def as_decoder(decoder: Any, num_classes: int | None = None) -> Any:
    """Bring the option ``decoder`` of an adapter into one form: something to call on probabilities.

    Args:
        decoder: a ``RankSEG`` or another callable, or the path of a file that ``TunedDecoder.save`` wrote; None is
            ``RankSEG()``.
        num_classes: C, where it is known.

    Raises:
        TypeError: if it is neither.
        OSError: if the file cannot be read.
        ValueError: if the file holds no decoder, or the decoder does not serve this number of classes.

    Example:
        >>> as_decoder(TunedDecoder(RankSEG(), num_classes=4), num_classes=3)
        Traceback (most recent call last):
            ...
        ValueError: decoder is for num_classes=4, got num_classes=3
    """
    source, decoder = "decoder", RankSEG() if decoder is None else decoder
    if isinstance(decoder, (str, PathLike)):
        source = f"decoder={str(decoder)!r}"
        try:
            decoder = TunedDecoder.load(decoder)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{source}: no such file; decoder must be a RankSEG, another callable on probabilities, or the file of "
                "a tuned decoder"
            ) from error
    check_decoder(decoder)
    known = decoder.num_classes if isinstance(decoder, (TunedDecoder, GlobalRankSEG, PresenceRankSEG)) else None
    if None not in (known, num_classes) and known != num_classes:
        raise ValueError(f"{source} is for num_classes={known}, got num_classes={num_classes}")
    if num_classes is not None and isinstance(decoder, RankSEG):
        try:
            decoder.check_classes(read_integer("num_classes", num_classes))
        except ValueError as error:
            raise ValueError(f"{source} with num_classes={num_classes}: {error}") from error
    return decoder


def label_maps(decided: Tensor, logits: Tensor) -> Tensor:
    """One label for each pixel, int64 (B, *spatial), in which the only class of one channel is 1.

    Args:
        decided: what a decoder gave: labels, or masks.
        logits: (B, C, *spatial), what it was given.

    Raises:
        ValueError: for masks of several channels, which may overlap, and all else that is no labels.

    Example:
        >>> label_maps(torch.tensor([[[True, False]]]), torch.tensor([[[0.3, -0.2]]]))
        tensor([[1, 0]])
    """
    shape = logits.shape[:1] + logits.shape[2:]
    if decided.dtype == torch.bool and decided.shape == logits.shape and logits.shape[1] == 1:
        return decided[:, 0].long()
    if decided.dtype != torch.int64 or decided.shape != shape:
        raise ValueError(
            f"decoder must give one int64 label a pixel, {tuple(shape)}, got {decided.dtype} of shape "
            f"{tuple(decided.shape)}; output_mode='multilabel' is for networks of one class"
        )
    return decided
