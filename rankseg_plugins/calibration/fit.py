"""The temperature of the smallest loss, from a sample of pixels; see ``rankseg_plugins.calibration.scaling``.

``logits`` and ``truth`` are (K, C) float64; truth is 0 and 1, and NaN where it is not known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rankseg_plugins.calibration.reliability import calibration
from rankseg_plugins.calibration.temperature import activate

ITERATIONS = 100
#: Temperatures stay within e^-3 and e^3: that of a class which never occurs would run away.
LIMIT = 3.0


class TemperatureFit(NamedTuple):
    """What a fit found, on the pixels that it was fitted on.

    Args:
        temperature: (1,) or (C,) float64; above 1 the network was too sure, below 1 too unsure.
        loss: mean negative log-likelihood before and after.
        error: expected calibration error before and after, the mean over the classes.
    """

    temperature: np.ndarray
    loss: tuple[float, float]
    error: tuple[float, float]


def fit_temperature(logits: Tensor, truth: Tensor, number: int, output_mode: str) -> TemperatureFit:
    """Find the temperature by L-BFGS; 1 where no other has a smaller loss.

    Args:
        logits: see the module.
        truth: see the module.
        number: of temperatures, 1 or C.
        output_mode: ``"multiclass"`` or ``"multilabel"``.

    Raises:
        ValueError: if the loss is not finite.
    """
    sharpness, (before, after) = _minimise(logits, truth, number, output_mode)
    if not (math.isfinite(before) and math.isfinite(after)):
        raise ValueError(f"the loss of the sample must be finite, got {before} before the fit and {after} after")
    if not after < before:
        sharpness, after = torch.zeros_like(sharpness), before
    found = (-sharpness).exp()
    error = _error(logits, truth, output_mode), _error(logits / found, truth, output_mode)
    return TemperatureFit(found.numpy(), (before, after), error)


# Also where validation runs without gradients, or in inference mode.
@torch.inference_mode(False)
@torch.enable_grad()
def _minimise(logits: Tensor, truth: Tensor, number: int, output_mode: str) -> tuple[Tensor, tuple[float, float]]:
    """The logarithm of 1 / T, and the loss before and after."""
    logits, truth = logits.clone(), truth.clone()
    # The loss is convex in 1 / T; its logarithm keeps it above 0.
    sharpness = torch.zeros(number, dtype=torch.float64, device="cpu", requires_grad=True)
    optimiser = torch.optim.LBFGS([sharpness], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimiser.zero_grad()
        loss = _loss(logits * sharpness.clamp(-LIMIT, LIMIT).exp(), truth, output_mode)
        loss.backward()
        return loss.item()

    before = closure()
    optimiser.step(closure)
    return sharpness.detach().clamp(-LIMIT, LIMIT), (before, closure())


def _loss(logits: Tensor, truth: Tensor, output_mode: str) -> Tensor:
    if output_mode == "multiclass":
        return -(logits.log_softmax(1) * truth).sum(1).mean()
    known = ~truth.isnan()
    return nn.functional.binary_cross_entropy_with_logits(logits[known], truth[known])


def _error(logits: Tensor, truth: Tensor, output_mode: str) -> float:
    known, probs = ~truth.isnan().T, activate(logits, output_mode).T
    return float(calibration(probs, truth.nan_to_num(0).T.bool(), known).error().mean())
