"""Every decoder on one image: what several of them need is worked out once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.calibration.deciding import decide_knowing, takes_logits
from rankseg_plugins.calibration.temperature import probs_at
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.core import PresenceRankSEG, RankSEG
from rankseg_plugins.core.sharing import Clock, Once


class Decided(NamedTuple):
    """What a decoder decides.

    Args:
        decision: what it returned.
        seconds: what it takes alone: what several decoders need counts for each of them.
        key: of the decision; decoders whose decisions are one have the same.
        presence: (C,) how likely it took each class to be there; None where that is not known.
    """

    decision: Tensor
    seconds: float
    key: str | int
    presence: Tensor | None


def decide_each(decoders: Mapping[str, Decoder], probs: Tensor) -> dict[str, Decided]:
    """Decide by every decoder; on a CPU, RankSEGs at the same temperature share what they have in common.

    Args:
        decoders: callables on (1, C, *spatial) probabilities by name.
        probs: (1, C, *spatial), in the form that decoders take.

    Example:
        >>> probs = torch.tensor([[[0.8, 0.7, 0.4], [0.2, 0.3, 0.6]]])
        >>> decoders = {f"{each:g}": RankSEG(pruning_prob=each) for each in (0.1, 0.3, 0.7)}
        >>> [each.decision.tolist() for each in decide_each(decoders, probs).values()]
        [[[0, 0, 1]], [[0, 0, 1]], [[0, 0, 0]]]
    """
    groups: dict[tuple[float, str], dict[str, RankSEG]] = {}
    for name, decoder in decoders.items():
        temperature, inner = _parts(decoder)
        can_share = probs.device.type == "cpu" and takes_logits(inner) and takes_logits(decoder)
        if can_share and isinstance(inner, RankSEG) and inner.by_thresholds:
            groups.setdefault((temperature, inner.output_mode), {})[name] = inner
    found: dict[str, Decided] = {}
    clock = Clock()
    for (temperature, mode), group in groups.items():
        if len(group) > 1:
            found |= _together(group, partial(probs_at, probs, temperature, mode), clock)
    return {name: found[name] if name in found else _alone(name, decoder, probs) for name, decoder in decoders.items()}


def _parts(decoder: Decoder) -> tuple[float, Decoder]:
    """Its temperature, and what decides at it."""
    return (decoder.temperature, decoder.decoder) if isinstance(decoder, TunedDecoder) else (1.0, decoder)


def _together(group: Mapping[str, RankSEG], scaled: Callable[[], Tensor], clock: Clock) -> dict[str, Decided]:
    """Decide by RankSEGs at the same temperature."""
    once = Once(clock)

    def decide(decoder: RankSEG) -> Decided:
        start = clock.now()
        probs = once("probs", scaled)
        steps = once("steps", lambda: decoder.share(probs, once))
        if isinstance(decoder, PresenceRankSEG):
            decision, q = decoder.decision_and_presence_by(steps, probs)
        else:
            decision, q = decoder.decide_by(steps, probs), None
        # The place in memory.
        return Decided(decision, clock.now() - start, decision.data_ptr(), None if q is None else q[0])

    return {name: decide(decoder) for name, decoder in group.items()}


def _alone(name: str, decoder: Decoder, probs: Tensor) -> Decided:
    start = _now(probs)
    decision, q = decide_knowing(decoder, probs, "identity")
    return Decided(decision, _now(probs) - start, name, None if q is None else q[0])


def _now(probs: Tensor) -> float:
    if probs.is_cuda:
        torch.cuda.synchronize(probs.device)
    return time.perf_counter()
