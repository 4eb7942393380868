"""Temperature scaling: probabilities that mean what they say, which is what every decision here relies on."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rankseg_plugins.calibration.reliability import Calibration, calibration
from rankseg_plugins.core.lasting import Lasting
from rankseg_plugins.core.options import OUTPUT_MODES, read_index, read_integer, read_real
from rankseg_plugins.core.paths import check_values
from rankseg_plugins.core.plausibility import ChecksSums
from rankseg_plugins.core.pooled.reservoir import Reservoir, join
from rankseg_plugins.core.probabilities import (
    ACTIVATIONS,
    check_choice,
    check_probs,
    class_masks,
    plain,
    to_probabilities,
)
from rankseg_plugins.core.processes import gather, seed_of_process
from rankseg_plugins.scores.truth import known_pixels, to_truth

#: A probability that rules out what is true is taken for this much, or the loss would be infinite: of a label's class,
#: and of a mask.
TINY, TINY_OF_MASKS = 1e-12, 1e-7
#: In the sample, the logit of a class that is ruled out: no temperature within the limit makes it possible.
RULED_OUT = -1e6
#: What gives probabilities over logits that are divided themselves.
OF_LOGITS = (("softmax", "multiclass"), ("sigmoid", "multilabel"))
#: What makes a probability of each value alone.
ALONE = ("sigmoid", "identity")
#: Temperatures that make a difference: beyond them, all probabilities are as good as equal, or 0 and 1.
TEMPERATURE_RANGE = (1e-3, 1e3)
#: Below this temperature, probabilities are so unsure that RankSEG may lose to argmax.
UNSURE = 0.8
#: Decisions that are right more often than their probability says by more than this: a warning is due.
GAP = 0.05
#: Fewer pixels say nothing about a network.
FEWEST_PIXELS = 1000
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


class TemperatureScaling(ChecksSums, Lasting):
    r"""Divides logits by a temperature that is fitted on validation data, for probabilities that can be trusted.

    Works on logits or on probabilities: softmax(log p / T) times the sum of p, where each class has its logit to itself
    sigmoid(logit(p) / T). So a probability of 0 stays 0, a pixel without any probability too, and T = 1 changes nothing
    even where they do not sum to 1; what the sum would raise above 1 is 1. Over-confidence only makes RankSEG's gain
    smaller; under-confidence makes it lose.

    Args:
        num_classes: C.
        by_class: one temperature for each class instead of one for all.
        activation: what turns the values that are given into probabilities: ``"identity"`` for probabilities,
            ``"softmax"``, ``"sigmoid"`` or ``"normalize"``.
        output_mode: ``"multiclass"``, or ``"multilabel"`` for one channel and for classes that may overlap.
        max_pixels: pixels in the sample that the fit is made on.
        seed: of the sample.

    Attributes:
        temperature: (1,) or (C,) float32, 1 until fitted; all there is in the ``state_dict``.

    Shape:
        - Input: (B, C, \*spatial), floating point.
        - Output: probabilities of the same shape, float32 or float64.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is unknown or out of range, or one channel in multiclass mode.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017.

    Example:
        >>> logits = torch.tensor([[[4.0, 4.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0]]])  # 98 % sure, right 3 times of 4
        >>> scaling = TemperatureScaling(num_classes=2, activation="softmax")
        >>> scaling.update(logits, torch.tensor([[0, 0, 0, 1]]))
        >>> scaling.fit().temperature.round(2)
        array([3.64])
        >>> scaling(logits)[0, 0, 0]
        tensor(0.7500)
    """

    temperature: Tensor

    def __init__(
        self,
        num_classes: int,
        by_class: bool = False,
        activation: str = "identity",
        output_mode: str = "multiclass",
        max_pixels: int = 100_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("output_mode", output_mode, OUTPUT_MODES)
        check_choice("activation", activation, ACTIVATIONS)
        num_classes, max_pixels = read_integer("num_classes", num_classes), read_integer("max_pixels", max_pixels)
        if num_classes < 1 or max_pixels < 1:
            raise ValueError(f"num_classes and max_pixels must be at least 1, got {num_classes} and {max_pixels}")
        if num_classes == 1 and output_mode == "multiclass":
            raise ValueError("num_classes=1 needs output_mode='multilabel'")
        self.num_classes, self.activation, self.output_mode = num_classes, activation, output_mode
        self.max_pixels, self.seed = max_pixels, read_integer("seed", seed)
        self._sample: Reservoir | None = None
        self.keep("temperature", torch.ones(num_classes if by_class else 1, device="cpu"))

    @torch.no_grad()
    def update(self, values: Tensor, labels: Tensor, ignore_index: int | None = None) -> None:
        r"""Add a batch of images to the sample.

        Args:
            values: (B, C, \*spatial) logits or probabilities, as ``activation`` says. A logit of -inf rules a class out
                in a multiclass softmax, where another class of the pixel is finite.
            labels: (B, \*spatial) integer labels, or masks (B, C, \*spatial); with one channel 0 and 1.
            ignore_index: label of pixels that do not count; their values need not be finite. In masks it leaves a pixel
                out of the class whose mask holds it (where softmax and normalize still need its value for the others),
                with ``output_mode="multiclass"`` altogether. Multiclass pixels without any probability do not count
                either.

        Raises:
            TypeError: for tensors or an ``ignore_index`` of the wrong type.
            ValueError: for wrong shapes or values: NaN or infinite ones, or a label whose class is ruled out. The
                sample is then as before.
        """
        check_probs("values", values, self.num_classes)
        values, classes = plain(values), self.num_classes
        ignore_index = read_index("ignore_index", ignore_index)
        truth = to_truth(labels, classes, tuple(values.shape[2:]), ignore_index).to(values.device)
        if len(truth) != len(values):
            raise ValueError(f"labels must hold one image for each of {len(values)} in values, got {len(truth)}")
        true, known = self._marked(truth, known_pixels(truth, ignore_index), values.ndim)
        kept = known.all(1) if self.output_mode == "multiclass" else known.any(1)
        if self.activation == "identity":
            self._look_at_sums(values, kept)
        # Those that count, as images of one pixel.
        inside, true = (each.movedim(1, -1)[kept].unsqueeze(-1) for each in (values, true))
        if self.activation in ALONE:
            inside = inside.masked_fill(true.isnan(), 0)
        logits, total = self._logits(inside)
        some = slice(None) if total is None else total.flatten() > 0
        rows = self._bounded(logits.flatten(1)[some].float(), true.flatten(1)[some])
        if self._sample is None:
            self._sample = Reservoir(self.max_pixels, 2 * classes, seed_of_process(self.seed))
        self._sample.add(rows)

    def fit(self) -> TemperatureFit:
        """Find the temperature by L-BFGS; with several processes, which must all call it, from the samples of all.

        Warns if it says that the probabilities are too unsure for RankSEG.

        Raises:
            RuntimeError: before any :meth:`update` with a pixel that counts.
            ValueError: if the loss is not finite.
        """
        logits, truth = self._gathered().double().split(self.num_classes, 1)
        sharpness, (before, after) = self._minimise(logits, truth)
        if not (math.isfinite(before) and math.isfinite(after)):
            raise ValueError(f"the loss of the sample must be finite, got {before} before the fit and {after} after")
        if not after < before:
            sharpness, after = torch.zeros_like(sharpness), before
        found = (-sharpness).exp()
        self.keep("temperature", found.to(self.temperature))
        error = (self._error(logits, truth), self._error(logits / found, truth))
        if found.max() < UNSURE:
            warnings.warn(
                f"the probabilities are too unsure (fitted temperature {found.max():.2f}), so RankSEG without "
                "TemperatureScaling may lose to argmax. Likely causes: softmax was applied twice (pass logits, or "
                "probabilities with activation='identity'), or label smoothing, or averaged predictions",
                UserWarning,
                stacklevel=2,
            )
        return TemperatureFit(found.numpy(), (before, after), error)

    @torch.no_grad()
    def forward(self, values: Tensor) -> Tensor:
        """Turn logits or probabilities into calibrated probabilities; see the class."""
        check_probs("values", values, self.num_classes)
        values = plain(values)
        scaled = _scaled(*self._logits(values), self.temperature, self.output_mode)
        if self.activation == "identity":
            self._look_at_sums(values)
        return scaled

    def _logits(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        return _to_logits(values, self.activation, self.output_mode)

    def _marked(self, truth: Tensor, known: Tensor | None, ndim: int) -> tuple[Tensor, Tensor]:
        r"""Masks of 0 and 1, NaN where a mask is not known, and whether it is, both (B, C, \*spatial)."""
        if truth.ndim == ndim:
            true = truth == 1
        else:
            true = class_masks(truth, self.num_classes, first=int(self.num_classes == 1))
            known = None if known is None else known.unsqueeze(1)
        known = torch.ones_like(true) if known is None else known.expand_as(true)
        return true.float().masked_fill(~known, torch.nan), known

    def _bounded(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Pixels that the loss can take, (K, 2 C), from their logits and masks (K, C); others are refused."""
        multiclass, true = self.output_mode == "multiclass", truth == 1
        if (self.activation, self.output_mode) in OF_LOGITS:
            if not (logits.isfinite() | (logits.isneginf() & multiclass)).all():
                raise ValueError(
                    "values must be finite where they count, got NaN or infinite ones; only a multiclass softmax takes "
                    "-inf, for some of the classes of a pixel"
                )
            if (logits.isneginf() & true).any():
                raise ValueError("values hold -inf for the class of a label, which rules it out at every temperature")
        else:
            least = math.log(TINY) if multiclass else math.log(TINY_OF_MASKS / (1 - TINY_OF_MASKS))
            logits = logits.clamp(min=least).where(true, logits if multiclass else logits.clamp(max=-least))
        return torch.cat([logits.nan_to_num(neginf=RULED_OUT, posinf=-RULED_OUT), truth], 1)

    def what_is_wrong(self, found: dict[str, Tensor]) -> str | None:
        """Why probabilities cannot be divided by a temperature."""
        for temperature in found.values():
            if not ((temperature > 0) & temperature.isfinite()).all():
                return f"temperature must be finite and above 0, got {temperature.tolist()}"
        return None

    def _gathered(self) -> Tensor:
        sample = self._sample
        parts = gather(None if sample is None else (sample.keys, sample.rows))
        held = [part for part in parts if part is not None and len(part[1])]
        if not held:
            raise RuntimeError("TemperatureScaling has no pixels to fit: call update(values, labels) first")
        return join(self.max_pixels, held)

    # Also where validation runs without gradients, or in inference mode.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def _minimise(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, tuple[float, float]]:
        """The logarithm of 1 / T, and the loss before and after."""
        logits, truth = logits.clone(), truth.clone()
        # The loss is convex in 1 / T; its logarithm keeps it above 0.
        sharpness = torch.zeros(len(self.temperature), dtype=torch.float64, device="cpu", requires_grad=True)
        optimiser = torch.optim.LBFGS([sharpness], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimiser.zero_grad()
            loss = self._loss(logits * sharpness.clamp(-LIMIT, LIMIT).exp(), truth)
            loss.backward()
            return loss.item()

        before = closure()
        optimiser.step(closure)
        return sharpness.detach().clamp(-LIMIT, LIMIT), (before, closure())

    def _loss(self, logits: Tensor, truth: Tensor) -> Tensor:
        if self.output_mode == "multiclass":
            return -(logits.log_softmax(1) * truth).sum(1).mean()
        known = ~truth.isnan()
        return nn.functional.binary_cross_entropy_with_logits(logits[known], truth[known])

    def _error(self, logits: Tensor, truth: Tensor) -> float:
        known, probs = ~truth.isnan().T, _activate(logits, self.output_mode).T
        return float(calibration(probs, truth.nan_to_num(0).T.bool(), known).error().mean())


@torch.no_grad()
def scale_probs(probs: Tensor, temperature: float, output_mode: str = "multiclass") -> Tensor:
    r"""What :class:`TemperatureScaling` gives at a known temperature, as a function without state.

    Args:
        probs: (B, C, \*spatial) probabilities.
        temperature: in [0.001, 1000].
        output_mode: ``"multiclass"`` or ``"multilabel"``.

    Returns:
        Probabilities of the same shape, float32 or float64.

    Raises:
        TypeError: if they are no floating point tensor, or the temperature is no number.
        ValueError: if they are no probabilities, or the temperature is out of range.

    Example:
        >>> scale_probs(torch.tensor([[[0.8], [0.2]]]), temperature=2.0)
        tensor([[[0.6667],
                 [0.3333]]])
    """
    check_probs("probs", probs)
    # float32, as TemperatureScaling holds it: both are to give the same to the last digit.
    divisor = torch.full((1,), read_temperature("temperature", temperature), device=probs.device)
    return _scaled(*_to_logits(plain(probs), "identity", output_mode), divisor, output_mode)


def read_temperature(name: str, value: object) -> float:
    """A temperature; see :func:`~rankseg_plugins.core.options.read_real`."""
    return read_real(name, value, *TEMPERATURE_RANGE)


def _to_logits(values: Tensor, activation: str, output_mode: str) -> tuple[Tensor, Tensor | None]:
    """Logits, and the sum over the classes, (B, 1, *spatial), where probabilities compete whose sum may not be 1."""
    values = values if values.dtype == torch.float64 else values.float()
    if (activation, output_mode) in OF_LOGITS:
        return (values.log_softmax(1) if output_mode == "multiclass" else values), None
    probs = to_probabilities(values, activation)
    check_values(probs)
    probs = probs.clamp(0, 1)
    return (probs.log(), probs.sum(1, keepdim=True)) if output_mode == "multiclass" else (probs.logit(), None)


def _scaled(logits: Tensor, total: Tensor | None, temperature: Tensor, output_mode: str) -> Tensor:
    """Probabilities at a temperature, from what :func:`_to_logits` gives."""
    probs = _activate(logits / _as_channels(temperature, logits), output_mode)
    return probs if total is None else (probs * total).masked_fill(total == 0, 0).clamp(max=1)


def _as_channels(temperature: Tensor, logits: Tensor) -> Tensor:
    """Bring (1,) or (C,) temperatures into the form of the logits (B, C, *spatial)."""
    return temperature.to(logits).view(-1, *[1] * (logits.ndim - 2))


def _activate(logits: Tensor, output_mode: str) -> Tensor:
    return logits.softmax(1) if output_mode == "multiclass" else logits.sigmoid()


def warn_if_softened(probs: Tensor) -> bool:
    r"""Warn where probabilities look as if softmax, or a sigmoid, was applied to probabilities.

    Softmax of values in [0, 1] can never make one class more than e times as probable as another, and a sigmoid of
    them lies in [0.5, 0.731]. RankSEG loses on such probabilities. No labels are needed. A network that has hardly been
    trained may look the same; one that gives all classes alike, or 1/2 everywhere, is not warned of.

    Args:
        probs: (B, C, \*spatial) probabilities.

    Returns:
        Whether it warned.

    Example:
        >>> probs = torch.tensor([[[0.99, 0.05], [0.01, 0.95]]])
        >>> warn_if_softened(probs)
        False
        >>> with warnings.catch_warnings(record=True):
        ...     warn_if_softened(probs.softmax(1))
        True
    """
    smallest, largest = (each.double() for each in plain(probs).aminmax(dim=1))
    slack = 1.01
    if probs.shape[1] == 1:
        twice = bool(0.5 / slack <= smallest.min()) and bool(0.6 < largest.max() <= slack * math.e / (1 + math.e))
    else:
        # All equal is what a network gives that knows nothing, not a sign of anything applied twice; as 1/2 above.
        twice = bool((largest <= slack * math.e * smallest).all()) and bool((largest > 1.5 * smallest).any())
    if twice:
        name = "the sigmoid" if probs.shape[1] == 1 else "softmax"
        # At this place, whoever calls: where an adapter and a recorder look at the same, Python shows it once, unless
        # something between them entered warnings.catch_warnings(), which makes it forget.
        warnings.warn(
            f"the probabilities look as if {name} was applied twice, and RankSEG loses on them: apply it once, in the "
            "network or by the option activation. (A network that is hardly trained may look the same)",
            UserWarning,
            stacklevel=1,
        )
    return twice


def warn_if_unsure(measured: Calibration, num_classes: int) -> bool:
    """Warn where decisions are right more often than their probability says: RankSEG loses there.

    Args:
        measured: probabilities against labels.
        num_classes: C.

    Returns:
        Whether it warned.

    Example:
        >>> probs = torch.tensor([[0.6, 0.6, 0.4]]).repeat(1, 500)
        >>> with warnings.catch_warnings(record=True):
        ...     warn_if_unsure(calibration(probs, probs > 0.5), num_classes=1)
        True
    """
    gap = measured.underconfidence(num_classes)
    if not gap > GAP or measured.count[-1].sum() < FEWEST_PIXELS:  # NaN is no sign of anything
        return False
    warnings.warn(
        f"the probabilities are too unsure: decisions are right {100 * gap:.0f} points more often than their "
        "probability says, and RankSEG loses on such probabilities. Likely causes: softmax was applied twice, label "
        "smoothing, or averaged predictions. A temperature below 1 mends it: TemperatureScaling fits one, "
        "and tune() takes those that it is given, such as temperatures=[0.25, 0.5, 1]",
        UserWarning,
        stacklevel=1,
    )
    return True
