"""Decisions on one image that may be larger than memory, and what they are expected to score.

On a CPU, RMA reads the probabilities where they lie, chunk by chunk, and writes labels of 16 bits to a place that is
given to it; what decides pixel by pixel (argmax, thresholds, a rule for the data set) goes through the image in strips,
and so does a temperature. Other solvers, and other devices, take the image as a whole. What a decision is expected to
score is worked out class by class, in strips, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.calibration.deciding import decide as decide_whole
from rankseg_plugins.calibration.temperature import OF_LOGITS
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.core import GlobalRankSEG, RankSEG
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.objectives import OBJECTIVES
from rankseg_plugins.core.paths import make_steps
from rankseg_plugins.core.solvers.exact import expected_score_in_parts
from rankseg_plugins.files.decoding.scratch import Scratch

#: Values of a strip; and of one that is looked at several times, whose mask lies in memory.
STRIP, MASKED = 1 << 16, 1 << 18

Decoder = RankSEG | GlobalRankSEG | TunedDecoder


@torch.no_grad()
def one_class(values: Tensor, activation: str, label: int, scratch: Scratch) -> Tensor:
    """The probabilities of one class, (1, *spatial).

    Args:
        values: (C, *spatial).
        activation: what makes probabilities of them, which takes all channels.
        label: the class.
        scratch: gives memory.

    Example:
        >>> from pathlib import Path
        >>> one_class(torch.tensor([[1.0, 0.0], [3.0, 2.0]]), "normalize", 1, Scratch(Path(".")))
        tensor([[0.7500, 1.0000]])
    """
    if activation == "identity":
        return values[label : label + 1]
    pixels = Pixels.of_logits(_flat(values), activation, None, 1.0)
    made = _by_strips(pixels, lambda strip: strip.probs()[:, label : label + 1], scratch)
    return made[0].view(1, *values.shape[1:])


@torch.no_grad()
def decide(decoder: Decoder, values: Tensor, activation: str, scratch: Scratch, device: torch.device) -> Tensor:
    """What a decoder decides, the same as ``decide``.

    Args:
        decoder: decides.
        values: (C, *spatial), on the CPU.
        activation: what makes probabilities of them.
        scratch: gives memory.
        device: where to decide.

    Returns:
        Labels (*spatial) int16 or int64, or bool masks (C, *spatial), on the CPU.

    Raises:
        TypeError: as the decoder.
        ValueError: likewise.
        OSError: if the disk has no room.

    Example:
        >>> from pathlib import Path
        >>> values = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> decide(RankSEG(), values, "identity", Scratch(Path(".")), torch.device("cpu"))
        tensor([0, 0, 1], dtype=torch.int16)
    """
    inner = decoder.decoder if isinstance(decoder, TunedDecoder) else decoder
    by_pixel = isinstance(inner, GlobalRankSEG) or inner.metric == "acc"
    if device.type != "cpu" or not (by_pixel or cast(RankSEG, inner).by_thresholds):
        return decide_whole(decoder, values[None].to(device), activation)[0].cpu()
    inner.check_classes(len(values))
    pixels = _pixels(decoder, values, activation, scratch)
    holder = _Holder(scratch, max(len(values) - 1, abs(inner.void_index)))
    if by_pixel:
        decided = _by_strips(pixels, _decider(inner, pixels), scratch, holder.empty)[0]
    else:
        ranked = cast(RankSEG, inner)
        steps = make_steps(pixels, OBJECTIVES[ranked.metric](ranked.smooth), 0.0, make=holder.empty)
        decided = ranked.decide_by(steps, pixels.values)[0]
    return decided.reshape(*decided.shape[: decided.dtype == torch.bool], *values.shape[1:])


@torch.no_grad()
def expect(
    score: str, decoder: Decoder, decision: Tensor, values: Tensor, activation: str, scratch: Scratch
) -> np.ndarray:
    """What a decision is expected to score, class by class; see ``rankseg_plugins.comparison.blocks.expected``.

    Args:
        score: ``"dice"`` or ``"iou"``.
        decoder: who decided.
        decision: what ``decide`` gave.
        values: (C, *spatial), on the CPU.
        activation: what makes probabilities of them.
        scratch: gives memory.

    Returns:
        (2, C) float64 in [0, 1].
    """
    pixels, classes = _pixels(decoder, values, activation, scratch), len(values)
    if pixels.activation != "identity":
        pixels = Pixels(_by_strips(pixels, Pixels.probs, scratch))
    decision = decision.reshape(*decision.shape[: decision.dtype == torch.bool], *pixels.values.shape[2:])
    found = []
    for label in range(classes):
        mask = (decision[label], True) if decision.dtype == torch.bool else (decision, label if classes > 1 else 1)
        found.append(_expect_class(score, Pixels(pixels.values[:, label : label + 1]), *mask))
    return np.array(found).T


def _expect_class(score: str, pixels: Pixels, decision: Tensor, label: int) -> tuple[float, float]:
    """Of one class (1, 1, *spatial), strip by strip, whose mask is where the decision (*spatial) is its label."""

    def mask(first: int, lines: int) -> Tensor:
        return (decision.narrow(0, first, lines) == label).flatten()[None]

    objective, parts, most = OBJECTIVES[score](0.0), [], 0.0
    for first, strip in _begun(pixels, MASKED):
        values = make_steps(strip, objective, 0.0, looks=True).values()
        parts.append((values, partial(mask, first, strip.values.shape[2])))
        most = max(most, float(strip.values.amax()))
    if any(part().any() for _, part in parts):
        return expected_score_in_parts(parts, objective), 1.0
    return 0.0, min(most, 1.0)


class _Holder:
    """Gives memory for a decision: labels, which PyTorch has in 64 bits, in 16 where these hold them."""

    def __init__(self, scratch: Scratch, largest: int) -> None:
        self._scratch, self._kind = scratch, torch.int16 if largest < 1 << 15 else torch.int64

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self._scratch.empty(shape, self._kind if dtype == torch.int64 else dtype)


def _flat(values: Tensor) -> Tensor:
    """(1, C, d) where that takes no copy: strips are then cut where they are to be, whatever the first dimension."""
    return (values.flatten(1) if values.is_contiguous() else values)[None]


def _pixels(decoder: Decoder, values: Tensor, activation: str, scratch: Scratch) -> Pixels:
    """What is decided on, at the temperature of the decoder."""
    temperature = decoder.temperature if isinstance(decoder, TunedDecoder) else 1.0
    if temperature == 1 or (activation, decoder.output_mode) in OF_LOGITS:
        return Pixels.of_logits(_flat(values), activation, None, temperature)
    tuned = cast(TunedDecoder, decoder)
    pixels = Pixels.of_logits(_flat(values), activation, None, 1.0, tuned.num_classes)
    return Pixels(_by_strips(pixels, lambda strip: tuned.scaling(strip.probs()), scratch))


def _decider(inner: RankSEG | GlobalRankSEG, pixels: Pixels) -> Callable[[Pixels], Tensor]:
    def decide_strip(strip: Pixels) -> Tensor:
        return inner.predict_logits(strip.values, pixels.activation, temperature=pixels.temperature)

    return decide_strip


def _by_strips(
    pixels: Pixels,
    work: Callable[[Pixels], Tensor],
    scratch: Scratch,
    make: Callable[[tuple[int, ...], torch.dtype], Tensor] | None = None,
) -> Tensor:
    """What is worked out for every pixel: (1, *spatial), or with a dimension of classes (1, C, *spatial)."""
    made: Tensor | None = None
    for first, strip in _begun(pixels):
        part = work(strip)
        along = part.ndim - (pixels.values.ndim - 2)
        if made is None:
            shape = (*part.shape[:along], *pixels.values.shape[2:])
            made = (make or scratch.empty)(shape, part.dtype)
        made.narrow(along, first, part.shape[along]).copy_(part)
    assert made is not None
    return made


def _begun(pixels: Pixels, size: int = STRIP) -> Iterator[tuple[int, Pixels]]:
    """Strips, and where they begin."""
    first = 0
    for strip in pixels.strips(size):
        yield first, strip
        first += strip.values.shape[2]
