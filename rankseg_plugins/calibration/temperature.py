"""What a temperature makes of probabilities, and warnings where they need one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankseg_plugins._warning import warn
from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.core.inputs.options import OUTPUT_MODES, read_real
from rankseg_plugins.core.inputs.pixels import TEMPERATURE_RANGE
from rankseg_plugins.core.inputs.probabilities import check_choice, check_probs, check_values, plain, to_probabilities
from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.kernels import has_numba

#: What gives probabilities over logits that are divided themselves.
OF_LOGITS = (("softmax", "multiclass"), ("sigmoid", "multilabel"))
#: Decisions that are right more often than their probability says by more than this: a warning is due.
GAP = 0.05
#: Fewer pixels say nothing about a network.
FEWEST_PIXELS = 1000
#: Pixels of which ``warn_if_softened`` makes probabilities at once.
PIXELS_AT_ONCE = 1024


@torch.no_grad()
def probs_at(probs: Tensor, temperature: float, output_mode: str = "multiclass") -> Tensor:
    """What ``TemperatureScaling`` gives at a known temperature; at 1, where rounding could change a tie, what it got.

    Args:
        probs: (B, C, *spatial) probabilities.
        temperature: in [0.001, 1000].
        output_mode: ``"multiclass"`` or ``"multilabel"``.

    Returns:
        Probabilities of the same shape, float32 or float64 but at a temperature of 1.

    Raises:
        TypeError: if they are no floating point tensor, or the temperature is no number.
        ValueError: if they are no probabilities, or the temperature is out of range.

    Example:
        >>> probs_at(torch.tensor([[[0.8], [0.2]]]), temperature=2.0)
        tensor([[[0.6667],
                 [0.3333]]])
    """
    check_probs("probs", probs)
    check_choice("output_mode", output_mode, OUTPUT_MODES)
    temperature = read_temperature("temperature", temperature)
    if temperature == 1:
        return plain(probs)
    # float32, as TemperatureScaling holds it: both are to give the same to the last digit.
    return rescaled(plain(probs), torch.full((1,), temperature, device=probs.device), output_mode)


def rescaled(probs: Tensor, temperature: Tensor, output_mode: str) -> Tensor:
    """Probabilities (B, C, *spatial) at a temperature, (1,) or (C,), by the implementation that serves them best."""
    probs = probs if probs.dtype == torch.float64 else probs.float()
    if probs.device.type == "cpu" and not is_blind() and probs.numel() and has_numba():
        from rankseg_plugins.core.kernels.cpu.temperature import rescaled as by_kernel

        found, valid = by_kernel(probs, temperature, output_mode == "multiclass")
        if not valid:
            check_values(probs)
        return found
    return scaled(*to_logits(probs, "identity", output_mode), temperature, output_mode)


def read_temperature(name: str, value: object) -> float:
    """A temperature; see ``read_real``."""
    return read_real(name, value, *TEMPERATURE_RANGE)


def to_logits(values: Tensor, activation: str, output_mode: str) -> tuple[Tensor, Tensor | None]:
    """Logits, and the sum over the classes, (B, 1, *spatial), where probabilities compete whose sum may not be 1."""
    values = values if values.dtype == torch.float64 else values.float()
    if (activation, output_mode) in OF_LOGITS:
        return (values.log_softmax(1) if output_mode == "multiclass" else values), None
    probs = to_probabilities(values, activation)
    probs = probs.clamp(0, 1) if check_values(probs) else probs
    if output_mode != "multiclass":
        return probs.logit(), None
    total = probs.sum(1, keepdim=True)
    logs = probs.log()
    # No softmax of minus infinity alone: what it gives is multiplied by 0. Nearly always there is none.
    if is_blind() or (total.numel() and total.amin() == 0):
        logs = logs.masked_fill_(total == 0, 0)
    return logs, total


def scaled(logits: Tensor, total: Tensor | None, temperature: Tensor, output_mode: str) -> Tensor:
    """Probabilities at a temperature, (1,) or (C,), from what ``to_logits`` gives."""
    by_channel = temperature.to(logits).view(-1, *[1] * (logits.ndim - 2))
    probs = activate(logits / by_channel, output_mode)
    if total is None:
        return probs
    return (probs * total).clamp(max=1) if is_blind() else probs.mul_(total).clamp_(max=1)


def activate(logits: Tensor, output_mode: str) -> Tensor:
    """Probabilities of logits (B, C, *spatial)."""
    return logits.softmax(1) if output_mode == "multiclass" else logits.sigmoid()


def warn_if_softened(values: Tensor, activation: str = "identity") -> bool:
    """Warn where probabilities look as if softmax, or a sigmoid, was applied to probabilities.

    Softmax of values in [0, 1] can never make one class more than e times as probable as another, and a sigmoid of
    them lies in [0.5, 0.731]. RankSEG loses on such probabilities. No labels are needed. A network that has hardly been
    trained may look the same; one that gives all classes alike, or 1/2 everywhere, is not warned of.

    Args:
        values: (B, C, *spatial) probabilities, or what ``activation`` makes probabilities of.
        activation: see ``to_probabilities``.

    Returns:
        Whether it warned.

    Example:
        >>> probs = torch.tensor([[[0.99, 0.05], [0.01, 0.95]]])
        >>> warn_if_softened(probs)
        False
        >>> import warnings
        >>> with warnings.catch_warnings(record=True):
        ...     warnings.simplefilter("always")
        ...     warn_if_softened(probs, "softmax")
        True
    """
    twice = _is_softened(plain(values), activation)
    if twice:
        name, once = ("the sigmoid", "sigmoid") if values.shape[1] == 1 else ("softmax", "softmax")
        warn(
            f"the probabilities look as if {name} was applied twice, and RankSEG loses on them: apply it once, in the "
            f"network or by activation={once!r}. (A network that is hardly trained may look the same)"
        )
    return twice


def _is_softened(values: Tensor, activation: str) -> bool:
    slack, apart = 1.01, False
    # Piece by piece: most images are cleared by their first, and no probabilities of a whole image are made.
    rows = max(1, PIXELS_AT_ONCE // max(1, len(values) * math.prod(values.shape[3:])))
    for piece in values.split(rows, dim=2):
        smallest, largest = (each.double() for each in to_probabilities(piece, activation).aminmax(dim=1))
        if values.shape[1] == 1:
            close = bool((0.5 / slack <= smallest).all()) and bool((largest <= slack * math.e / (1 + math.e)).all())
            apart |= bool((largest > 0.6).any())
        else:
            close = bool((largest <= slack * math.e * smallest).all())
            # All equal is what a network gives that knows nothing, not a sign of anything applied twice; as 1/2 above.
            apart |= bool((largest > 1.5 * smallest).any())
        if not close:
            return False
    return apart


def warn_if_unsure(measured: Calibration, num_classes: int) -> bool:
    """Warn where decisions are right more often than their probability says: RankSEG loses there.

    Args:
        measured: probabilities against labels.
        num_classes: C.

    Returns:
        Whether it warned.

    Example:
        >>> import warnings
        >>> from rankseg_plugins.calibration.reliability import calibration
        >>> probs = torch.tensor([[0.6, 0.6, 0.4]]).repeat(1, 500)
        >>> with warnings.catch_warnings(record=True):
        ...     warnings.simplefilter("always")
        ...     warn_if_unsure(calibration(probs, probs > 0.5), num_classes=1)
        True
    """
    gap = measured.underconfidence(num_classes)
    if not gap > GAP or measured.count[-1].sum() < FEWEST_PIXELS:  # NaN is no sign of anything
        return False
    warn(
        f"the probabilities are too unsure: decisions are right {100 * gap:.0f} points more often than their "
        "probability says, and RankSEG loses on such probabilities. Likely causes: softmax was applied twice, label "
        "smoothing, or averaged predictions. A temperature below 1 mends it: TemperatureScaling fits one, "
        "and tune() takes those that it is given, such as temperatures=[0.25, 0.5, 1]"
    )
    return True
