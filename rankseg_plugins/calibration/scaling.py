"""Temperature scaling: probabilities that mean what they say, which is what every decision here relies on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rankseg_plugins._warning import warn
from rankseg_plugins.calibration.fit import TemperatureFit, fit_temperature
from rankseg_plugins.calibration.temperature import OF_LOGITS, rescaled, scaled, to_logits
from rankseg_plugins.core.fits.lasting import Lasting
from rankseg_plugins.core.fits.reservoir import Reservoir, gathered
from rankseg_plugins.core.inputs.options import OUTPUT_MODES, read_index, read_integer
from rankseg_plugins.core.inputs.plausibility import ChecksSums
from rankseg_plugins.core.inputs.probabilities import (
    ACTIVATIONS,
    check_choice,
    check_probs,
    class_masks,
    plain,
    to_probabilities,
)
from rankseg_plugins.scores.truth import known_pixels, to_truth

#: A probability that rules out what is true is taken for this much, or the loss would be infinite: of a label's class,
#: and of a mask.
TINY, TINY_OF_MASKS = 1e-12, 1e-7
#: In the sample, the logit of a class that is ruled out: no temperature within the limit makes it possible.
RULED_OUT = -1e6
#: What makes a probability of each value alone.
ALONE = ("sigmoid", "identity")
#: Below this temperature, probabilities are so unsure that RankSEG may lose to argmax.
UNSURE = 0.8


class TemperatureScaling(ChecksSums, Lasting):
    """Divides logits by a temperature that is fitted on validation data, for probabilities that can be trusted.

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
        - Input: (B, C, *spatial), floating point.
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
        """Add a batch of images to the sample.

        Args:
            values: (B, C, *spatial) logits or probabilities, as ``activation`` says. A logit of -inf rules a class out
                in a multiclass softmax, where another class of the pixel is finite.
            labels: (B, *spatial) integer labels, or masks (B, C, *spatial); with one channel 0 and 1.
            ignore_index: label of pixels that do not count; their values need not be finite. In masks it leaves a pixel
                out of the class whose mask holds it (where softmax and normalize still need its value for the others),
                with ``output_mode="multiclass"`` altogether. Multiclass pixels without any probability do not count
                either.

        Raises:
            TypeError: for tensors or an ``ignore_index`` of the wrong type.
            ValueError: for wrong shapes or values: NaN or infinite ones, or a label whose class is ruled out. The
                sample is then as before.

        Example:
            >>> scaling = TemperatureScaling(num_classes=2)
            >>> scaling.update(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]), torch.tensor([[0, 255]]), ignore_index=255)
            >>> scaling.update(torch.tensor([[[0.9, 0.2], [0.1, 0.8]]]), torch.tensor([[1, 1]]))
            >>> scaling.fit().temperature > 1  # too sure
            array([ True])
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
        logits, total = to_logits(inside, self.activation, self.output_mode)
        some = slice(None) if total is None else total.flatten() > 0
        rows = self._bounded(logits.flatten(1)[some].float(), true.flatten(1)[some])
        if self._sample is None:
            self._sample = Reservoir(self.max_pixels, 2 * classes, self.seed)
        self._sample.add(rows)

    def fit(self) -> TemperatureFit:
        """Find the temperature by L-BFGS; with several processes, which must all call it, from the samples of all.

        Warns if it says that the probabilities are too unsure for RankSEG.

        Raises:
            RuntimeError: before any ``update`` with a pixel that counts.
            ValueError: if the loss is not finite.

        Example:
            >>> scaling = TemperatureScaling(num_classes=2)
            >>> scaling.update(torch.tensor([[[0.9] * 4, [0.1] * 4]]), torch.tensor([[0, 0, 0, 1]]))
            >>> found = scaling.fit()
            >>> found.loss[1] < found.loss[0], found.temperature.round(2)
            (True, array([2.]))
        """
        logits, truth = self._gathered().double().split(self.num_classes, 1)
        found = fit_temperature(logits, truth, len(self.temperature), self.output_mode)
        self.keep("temperature", torch.from_numpy(found.temperature).to(self.temperature))
        largest = found.temperature.max()
        if largest < UNSURE:
            warn(
                f"the probabilities are too unsure (fitted temperature {largest:.2f}), so RankSEG without "
                "TemperatureScaling may lose to argmax. Likely causes: softmax was applied twice (pass logits, or "
                "probabilities with activation='identity'), or label smoothing, or averaged predictions"
            )
        return found

    @torch.no_grad()
    def forward(self, values: Tensor) -> Tensor:
        """Turn logits or probabilities into calibrated probabilities; see the class."""
        check_probs("values", values, self.num_classes)
        values = plain(values)
        if (self.activation, self.output_mode) in OF_LOGITS:
            logits, total = to_logits(values, self.activation, self.output_mode)
            return scaled(logits, total, self.temperature, self.output_mode)
        probs = to_probabilities(values if values.dtype == torch.float64 else values.float(), self.activation)
        probs = rescaled(probs, self.temperature, self.output_mode)
        if self.activation == "identity":
            self._look_at_sums(values)
        return probs

    def _marked(self, truth: Tensor, known: Tensor | None, ndim: int) -> tuple[Tensor, Tensor]:
        """Masks of 0 and 1, NaN where a mask is not known, and whether it is, both (B, C, *spatial)."""
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
        rows = gathered(self.max_pixels, self._sample)
        if rows is None:
            raise RuntimeError("TemperatureScaling has no pixels to fit: call update(values, labels) first")
        return rows
