"""Dataset-level decisions: for scores that pool the pixels of all images before they divide."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins._warning import warn
from rankseg_plugins.core.fits.labels import read_truth
from rankseg_plugins.core.fits.lasting import Fitted, Mark
from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.core.fits.reservoir import Reservoir, join
from rankseg_plugins.core.inputs.options import OUTPUT_MODES, read_choice, read_index, read_integer, read_real
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.inputs.plausibility import ChecksSums
from rankseg_plugins.core.inputs.probabilities import check_probs, check_valid_mask, check_values, plain
from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.pooled.fit import (
    GlobalFit,
    Rule,
    affine_argmax,
    best_thresholds,
    fit_labels,
    fit_masks,
    sums_of,
)
from rankseg_plugins.core.pooled.guards import (
    Evidence,
    Guards,
    evidence_of,
    no_evidence,
    told,
    too_little,
    too_widely_shown,
    without_evidence,
)
from rankseg_plugins.core.volumes import round_down

#: Values that are made probabilities at a time.
_VALUES = 1 << 20

METRICS = ("iou", "dice")
#: What a fit finds.
RULE = ("scale", "offset")


class GlobalRankSEG(ChecksSums, Fitted):
    """Decides for scores pooled over a data set: MMSegmentation's mIoU, TorchMetrics' ``JaccardIndex``.

    The best decision for a pooled Dice or IoU is an affine rule, label = argmax of ``scale * probs - offset``, or a
    threshold for each class where masks may overlap. ``update`` keeps a sample of the pixels of unlabelled (or
    labelled) images, ``fit`` finds the rule, and from then on the module decides at about the cost of argmax.

    Without labels the fit takes the probabilities at their word. Guards keep it from pursuing classes of which they
    give no evidence, such as the 19 classes of a network of 21 that never occur in the photographs at hand: a class
    must show in ``min_images`` images, and its own mask must promise a pooled Dice of ``min_dice``. Without labels, as
    many images must hold a pixel where it is the likeliest (in masks, likelier than not): a haze of small
    probabilities over all images looks the same whether the class is in a few of them or in none. For the same reason
    the rule must not show it in many more images than argmax does (``max_spread``) unless most hold it; and where all
    of the rule promises less than ``min_gain``, nothing is pursued. All other classes compete with the largest class on
    equal terms, as under argmax, or at the threshold 1/2; what ``fit`` returns names the reason of each.

    Args:
        num_classes: C; 1 for a single channel of foreground probabilities, which needs ``"multilabel"``.
        metric: ``"iou"`` or ``"dice"``. In multilabel mode both have the same optimum.
        output_mode: ``"multiclass"`` gives one label per pixel, ``"multilabel"`` one bool mask per class.
        max_pixels: pixels in the sample, at least 1. It takes 4 bytes for each of them and each class, with labels
            twice that; ``fit`` takes some 70 bytes for each pixel besides, and with several processes holds their
            samples all at once.
        min_images: a class is pursued if the *effective* number of images that hold it, (sum v)^2 / sum v^2, is at
            least this, >= 0; v is the mean squared probability of an image, or with labels the share of the class. It
            is the number of images only if all hold the class alike: five uneven images are fewer than 5.
        min_dice: in [0, 1]; a class is pursued if its best mask has at least this pooled Dice.
        max_spread: at least 1, without labels only; a class is pursued if the rule shows it in at most this many times
            the images where argmax (in masks, the threshold 1/2) does, or if its effective number is at least half of
            all images. A class that is shown where it is not costs an image more than one that is missed.
        min_gain: in [0, 1], without labels only; what the rule must promise over the plain decision for anything to be
            pursued, in the mean score of the pursued classes.
        void_index: label of pixels that ``valid_mask`` leaves out, outside the class range; multiclass only.
        seed: of the sample.

    Attributes:
        scale: (C,) float64, NaN until fitted; part of ``state_dict``. It goes where the module goes, and no ``half()``
            rounds it; decisions are made on the device of the probabilities.
        offset: (C,) float64, likewise.
        multilabel: whether the rule is for masks, int64; part of ``state_dict``, so that no rule for the other
            ``output_mode`` is loaded. Nothing else is in the ``state_dict``.

    Shape:
        - Input: (B, C, *spatial), float16, bfloat16, float32 or float64 in [0, 1].
        - Output: int64 labels (B, *spatial), or bool masks (B, C, *spatial).

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option out of range.

    Source: Narasimhan et al., "Consistent multiclass algorithms for complex performance measures", ICML 2015; for the
    pooled IoU: Nowozin, "Optimal decisions from probabilistic models", CVPR 2014.

    Example:
        >>> sure, unsure = torch.tensor([[[0.9], [0.1]]]), torch.tensor([[[0.6], [0.4]]])
        >>> images = torch.cat([sure.expand(1, 2, 90), unsure.expand(1, 2, 10)], dim=2)
        >>> decoder = GlobalRankSEG(num_classes=2, min_images=0)
        >>> decoder.update(images)
        >>> found = decoder.fit()
        >>> decoder(unsure), found.after > found.before  # the second class is rare: worth more than its probability
        (tensor([[1]]), True)
    """

    #: The word for what is optimised, as in TorchMetrics; ``RankSEG`` decides "samplewise".
    aggregation_level = "global"
    scale: Tensor
    offset: Tensor
    multilabel: Tensor

    def __init__(
        self,
        num_classes: int,
        metric: str = "iou",
        output_mode: str = "multiclass",
        max_pixels: int = 200_000,
        min_images: float = 5.0,
        min_dice: float = 0.1,
        max_spread: float = 1.2,
        min_gain: float = 0.005,
        void_index: int = 255,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = read_integer("num_classes", num_classes, least=1)
        self.max_pixels = read_integer("max_pixels", max_pixels, least=1)
        self.metric = read_choice("metric", metric, METRICS)
        self.output_mode = read_choice("output_mode", output_mode, OUTPUT_MODES)
        self.min_images = read_real("min_images", min_images, 0.0, math.inf)
        self.min_dice = read_real("min_dice", min_dice, 0.0, 1.0)
        self.max_spread = read_real("max_spread", max_spread, 1.0, math.inf)
        self.min_gain = read_real("min_gain", min_gain, 0.0, 1.0)
        self.void_index, self.seed = read_integer("void_index", void_index), read_integer("seed", seed)
        if self.output_mode == "multiclass" and (num_classes == 1 or 0 <= void_index < num_classes):
            what = "num_classes=1 needs output_mode='multilabel'" if num_classes == 1 else "void_index is a class"
            raise ValueError(f"{what}, got num_classes={num_classes}, void_index={void_index}")
        for name in RULE:
            self.keep(name, torch.full((num_classes,), torch.nan, dtype=torch.float64, device="cpu"))
        self.mark()
        self.reset()

    def extra_repr(self) -> str:
        """Every option, as it would be passed."""
        names = ("num_classes", "metric", "output_mode", "max_pixels", *Guards._fields, "void_index", "seed")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def marks(self) -> dict[str, Mark]:
        """A rule is for labels or for masks."""
        return {"multilabel": Mark("output_mode", OUTPUT_MODES)}

    def _is_known(self) -> bool:
        return not bool(self.scale.isnan().any())

    def what_is_wrong(self, found: dict[str, Tensor]) -> str | None:
        """Why no decision can be made by a rule; it may be one that is not fitted."""
        problem = super().what_is_wrong(found)
        if problem is not None:
            return problem
        rule = {name: found[name] for name in RULE if name in found}
        if len(rule) == 1:
            return f"a rule holds {' and '.join(RULE)}, got {next(iter(rule))} alone"
        if all(each.isnan().all() for each in rule.values()):
            return None
        for name, each in rule.items():
            if not each.float().isfinite().all():  # as it decides
                return f"{name} of the rule must be finite in float32, got {each.tolist()}"
        if not (rule["scale"].float() > 0).all():
            return f"scale of the rule must be above 0 in float32, got {rule['scale'].tolist()}"
        return None

    def reset(self) -> None:
        """Forget the sample, so that another can be collected; what was fitted stays.

        Example:
            >>> decoder = GlobalRankSEG(2)
            >>> decoder.update(torch.full((5, 2, 4), 0.5))
            >>> decoder.reset()
            >>> decoder.fit()
            Traceback (most recent call last):
                ...
            RuntimeError: GlobalRankSEG has no images to fit, or none with a valid pixel: call update(probs) first
        """
        self._with_labels: bool | None = None
        self._sample: Reservoir | None = None
        self._evidence = no_evidence(self.num_classes)

    @torch.no_grad()
    def update(
        self,
        probs: Tensor,
        labels: Tensor | None = None,
        valid_mask: Tensor | None = None,
        ignore_index: int | None = None,
        number: int | None = None,
    ) -> None:
        """Add a batch of images to the sample.

        Args:
            probs: (B, C, *spatial) probabilities.
            labels: None fits what the probabilities promise. Given, the measured counts are fitted: labels
                (B, *spatial) or (B, 1, *spatial) in 0..C-1, with one channel 0 and 1; or masks (B, C, *spatial) of
                zeros and ones. Any dtype that holds whole numbers.
            valid_mask: optional bool (B, *spatial) or (*spatial); False leaves a pixel out.
            ignore_index: label of pixels that are left out; not with masks.
            number: of the first image, where images are numbered from 0: several processes that share them then keep
                the sample that a single one would.

        Raises:
            TypeError: for tensors or an ``ignore_index`` of the wrong type.
            ValueError: for wrong shapes or values, if only some batches have labels, or for an ``ignore_index`` without
                labels or with masks. The sample is then as before.

        Example:
            >>> decoder = GlobalRankSEG(num_classes=2, min_images=0)
            >>> decoder.update(torch.tensor([[[0.9, 0.6], [0.1, 0.4]]]), torch.tensor([[0, 255]]), ignore_index=255)
            >>> decoder.update(torch.tensor([[[0.3], [0.7]]]), torch.tensor([[1]]))
            >>> decoder.fit().after
            1.0
        """
        probs, labels, valid_mask = plain(probs), plain(labels), plain(valid_mask)
        self._check(probs, valid_mask)
        ignore_index = read_index("ignore_index", ignore_index)
        if ignore_index is not None and labels is None:
            raise ValueError(
                f"ignore_index={ignore_index} has no effect without labels; leave pixels out by valid_mask"
            )
        kept = torch.ones(len(probs), *probs.shape[2:], dtype=torch.bool, device=probs.device)
        kept = kept if valid_mask is None else kept & valid_mask
        parts = [probs]
        if labels is not None:
            truth, known = read_truth(labels, probs, ignore_index, valid_mask)
            parts, kept = [*parts, truth.to(probs.dtype)], kept & known
        if self._with_labels is not None and self._with_labels != (labels is not None):
            raise ValueError("labels must be given for every batch or for none; reset() starts anew")
        check_values(probs if kept.all() else probs.masked_fill(~kept.unsqueeze(1), 0))
        self._look_at_sums(probs, kept)
        columns = torch.cat(parts, 1).flatten(2)
        if self._sample is None:
            self._sample = Reservoir(self.max_pixels, columns.shape[1], self.seed)
        self._with_labels = labels is not None
        for index, (image, inside) in enumerate(zip(columns.movedim(1, 2), kept.flatten(1), strict=True)):
            rows = image if inside.all() else image[inside]
            if len(rows):
                both = rows[:, : self.num_classes], rows[:, -self.num_classes :]
                # Not in place: inference mode may have made the sum so far.
                self._evidence = self._evidence + evidence_of(*both, self.output_mode == "multilabel")
                self._sample.add(rows.clamp(0, 1), None if number is None else number + index)

    def fit(self) -> GlobalFit:
        """Find the rule; with several processes, which must all call it, from the samples of all, the same on each.

        Warns if no class is pursued, so that the rule is plain argmax.

        Raises:
            RuntimeError: before any ``update`` with a valid pixel.
            ValueError: if all processes together saw fewer images than ``min_images``, or only some of them labels.

        Example:
            >>> decoder = GlobalRankSEG(num_classes=3, min_images=0, min_gain=0.0)
            >>> decoder.update(torch.tensor([[[0.6, 0.2], [0.4, 0.8], [0.0, 0.0]]]))
            >>> found = decoder.fit()
            >>> found.pursued, found.left_out
            (tensor([ True,  True, False]), {2: 'it does not occur'})
        """
        rows, sums = self._gathered()
        evidence = Evidence.of(sums)
        if evidence.images < self.min_images:
            raise ValueError(
                f"{evidence.images} images give no evidence about a data set: update() with at least "
                f"min_images={self.min_images:g}, or lower it"
            )
        rule, left_out = self._guarded(rows, evidence)
        pursued = self._pursued(left_out)
        if not pursued.any():
            warn(
                f"GlobalRankSEG pursues no class and decides as {self._plain} does. {told(left_out)}. More images, or "
                "other values of these options, may change that"
            )
        for name in RULE:
            self.keep(name, getattr(rule, name).to(getattr(self, name)))
        self._fitted = True
        return GlobalFit(rule.before, rule.after, pursued, left_out)

    def _guarded(self, rows: Tensor, evidence: Evidence) -> tuple[Rule, dict[int, str]]:
        """The rule, and the classes that it does not pursue."""
        probs, truth = rows[:, : self.num_classes], rows[:, -self.num_classes :]
        guards = Guards(*(getattr(self, name) for name in Guards._fields))
        volumes, (dice, thresholds) = sums_of(truth), best_thresholds(probs, truth)
        with_labels = rows.shape[1] > self.num_classes
        left_out = without_evidence(guards, evidence, volumes, dice, None if with_labels else self._plain)

        def fit() -> tuple[Rule, Tensor]:
            pursued = self._pursued(left_out)
            if self.output_mode == "multilabel":
                return fit_masks(probs, truth, volumes, thresholds, pursued, self.metric), pursued
            return fit_labels(probs, truth, volumes, pursued, self.metric), pursued

        rule, pursued = fit()
        while pursued.any() and not with_labels:
            least = rule.least(probs, self.output_mode == "multilabel")
            found = too_widely_shown(guards, evidence, least, pursued, self._plain)
            # Only when each is shown where it may be, as those that are not promise most.
            found = found or too_little(guards, rule.before, rule.after, pursued, self._plain)
            if not found:
                break
            left_out |= found
            rule, pursued = fit()
        return rule, dict(sorted(left_out.items()))

    def predict(self, probs: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Decide. The same as calling the module.

        Args:
            probs: (B, C, *spatial) probabilities; see the class.
            valid_mask: optional bool, (B, *spatial) or (*spatial): False pixels come out as ``void_index``, or as
                False in every mask.

        Returns:
            int64 labels (B, *spatial) or bool masks (B, C, *spatial).

        Raises:
            RuntimeError: if it is not fitted.
            TypeError: for tensors of the wrong type.
            ValueError: for wrong shapes, or values that are no probabilities.

        Example:
            >>> decoder = GlobalRankSEG(num_classes=2)
            >>> rule = {"scale": torch.ones(2), "offset": torch.tensor([0.3, 0.0])}  # as a fit finds it
            >>> loaded = decoder.load_state_dict(rule, strict=False)
            >>> decoder.predict(torch.tensor([[[0.9, 0.6], [0.1, 0.4]]]), valid_mask=torch.tensor([False, True]))
            tensor([[255,   1]])
        """
        found: Tensor = self(probs, valid_mask)
        return found

    @torch.no_grad()
    def forward(self, probs: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """See ``predict``."""
        probs, valid_mask = plain(probs), plain(valid_mask)
        self._check_fitted()
        self._check(probs, valid_mask)
        return self._decide(probs, valid_mask)

    @torch.no_grad()
    def predict_logits(
        self, logits: Tensor, activation: str = "softmax", valid_mask: Tensor | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Decide on the output of a network; see ``RankSEG.predict_logits`` and ``predict``.

        Example:
            >>> decoder = GlobalRankSEG(num_classes=2)
            >>> rule = {"scale": torch.ones(2), "offset": torch.tensor([0.3, 0.0])}  # as a fit finds it
            >>> loaded = decoder.load_state_dict(rule, strict=False)
            >>> decoder.predict_logits(torch.tensor([[[2.0, 0.4], [0.0, 0.0]]]))
            tensor([[0, 1]])
        """
        self._check_fitted()
        pixels = Pixels.of_logits(logits, activation, valid_mask, temperature, self.num_classes)
        if is_blind() or not logits.numel():
            return self._decide(pixels.probs(), pixels.valid)
        # Pixels are decided one by one: the probabilities of a few at a time are all that exists.
        return torch.cat(
            [self._decide(strip.probs(), strip.valid) for strip in pixels.strips(_VALUES)], 2 - logits.ndim
        )

    def _pursued(self, left_out: Collection[int]) -> Tensor:
        return torch.tensor([label not in left_out for label in range(self.num_classes)], device="cpu")

    @property
    def _plain(self) -> str:
        return "argmax" if self.output_mode == "multiclass" else "the threshold 1/2"

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise RuntimeError(
                "GlobalRankSEG is not fitted: call update(probs) with the batches of a data set and then fit(), or "
                "load the state_dict of one that is fitted"
            )

    def _decide(self, probs: Tensor, valid_mask: Tensor | None) -> Tensor:
        outside = None if valid_mask is None else ~valid_mask.unsqueeze(1 - probs.ndim)
        check_values(probs if outside is None else probs.masked_fill(outside, 0))
        self._look_at_sums(probs, valid_mask)
        scale, offset = self.scale.to(probs.device), self.offset.to(probs.device)
        if self.output_mode == "multilabel":
            # The thresholds belong to probabilities as the sample holds them, in float32.
            p = probs.float() if probs.dtype == torch.float64 else probs
            masks = p > round_down(offset / scale, torch.float32).view(-1, *[1] * (probs.ndim - 2))
            return masks if outside is None else masks & ~outside
        labels = affine_argmax(probs, scale, offset)
        return labels if valid_mask is None else labels.masked_fill(~valid_mask, self.void_index)

    def _check(self, probs: Tensor, valid_mask: Tensor | None) -> None:
        check_probs("probs", probs, self.num_classes)
        check_valid_mask(probs, valid_mask)

    def _gathered(self) -> tuple[Tensor, Tensor]:
        sample = self._sample
        ours: Any = None if sample is None else ((sample.keys, sample.rows), self._evidence, self._with_labels)
        parts = [part for part in gather(ours) if part is not None and len(part[0][1])]
        if not parts:
            raise RuntimeError(
                "GlobalRankSEG has no images to fit, or none with a valid pixel: call update(probs) first"
            )
        samples, evidence, with_labels = zip(*parts, strict=True)
        if len(set(with_labels)) > 1:
            raise ValueError("labels must be given on every process or on none, got them on some")
        return join(self.max_pixels, samples), torch.stack(evidence).sum(0)
