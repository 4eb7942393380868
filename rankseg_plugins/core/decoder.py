"""RankSEG, the one entrance to every decision."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from rankseg_plugins.core import dense
from rankseg_plugins.core.inputs.options import OUTPUT_MODES, fold, read_choice, read_integer, read_real
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.inputs.plausibility import ChecksSums
from rankseg_plugins.core.inputs.probabilities import (
    check_by_class,
    check_probs,
    check_tensor,
    check_valid_mask,
    class_masks,
    plain,
    to_masks,
)
from rankseg_plugins.core.inputs.tracing import is_blind, is_transforming
from rankseg_plugins.core.objectives import OBJECTIVES, Objective
from rankseg_plugins.core.paths import argmax, make_steps
from rankseg_plugins.core.rma import Steps, search
from rankseg_plugins.core.sharing import Once, SharedSteps
from rankseg_plugins.core.solvers.exact import expected_scores, search_exact
from rankseg_plugins.core.solvers.rankdice import SOLVERS as RANKDICE_SOLVERS
from rankseg_plugins.core.solvers.rankdice import search_rankdice
from rankseg_plugins.core.volumes import Classes, Volumes

METRICS = ("dice", "iou", "acc")
UNASSIGNED_POLICIES = ("max_score", "void")

#: Solvers of each (metric, output mode); the first one is the default.
SOLVERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("dice", "multiclass"): ("RMA", "exact"),
    ("dice", "multilabel"): ("RMA", "exact", *RANKDICE_SOLVERS),
    ("iou", "multiclass"): ("RMA", "exact"),
    ("iou", "multilabel"): ("RMA", "exact"),
    ("acc", "multiclass"): ("argmax",),
    ("acc", "multilabel"): ("TR", "argmax"),
}

#: Beyond this the scores of all volumes are 1 to the last digit of float64, and RMA, which compares thresholds instead
#: of scores, finds the optimum of every solver.
_FLAT_SMOOTH = 1e12
_LARGEST_SMOOTH = 1e100


class RankSEG(ChecksSums):
    """Turns class probabilities into the segmentation with the best expected Dice, IoU or accuracy.

    A module without parameters or buffers: it can end a ``nn.Sequential``, be pickled and moved. It warns, once, if
    multiclass probabilities do not add up to 1; to decide on scores on purpose, set its ``check_sums`` to False.

    Args:
        metric: ``"dice"``, ``"iou"`` or ``"acc"`` (pixel accuracy: plain argmax or a 0.5 threshold). Upper and
            lower case are alike in ``metric``, ``output_mode``, ``solver`` and ``unassigned_policy``.
        smooth: the constant, 0 to 1e100, that the score adds to numerator and denominator; Dice and IoU only.
        output_mode: ``"multiclass"`` gives one label per pixel, ``"multilabel"`` one bool mask per class. A single
            channel of foreground probabilities needs ``"multilabel"``.
        solver: for Dice and IoU ``"RMA"`` (fast approximation) or ``"exact"``; for multilabel Dice also ``"BA"``,
            ``"TRNA"`` and ``"BA+TRNA"`` (the approximations of the 2023 paper); for accuracy ``"argmax"`` or ``"TR"``
            (threshold 0.5). None takes the first of these that fits ``metric`` and ``output_mode``.
        pruning_prob: in [0, 1]; a class whose largest probability in an image is not above it stays empty there.
            Dice and IoU only.
        unassigned_policy: what becomes of a pixel that no class selected, in multiclass Dice and IoU:
            ``"max_score"`` gives it to the class with the largest gain (and one whose probabilities are all 0, such
            as outside of a crop, to class 0, as argmax does), ``"void"`` labels it ``void_index``.
        void_index: label of void pixels, outside the class range; multiclass only.
        eps: in (0, 1), probability of the foreground counts that BA and TRNA leave out.

    Shape:
        - Input: (B, C, *spatial), float16, bfloat16, float32 or float64 in [0, 1], one or more spatial dimensions.
        - Output: int64 labels (B, *spatial) for ``"multiclass"``, bool masks (B, C, *spatial) for
          ``"multilabel"``, on the device of the input.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option value that is unknown, out of range or not used by the solver.

    Source: Dai & Li, "RankSEG", JMLR 24:224 (2023); Wang & Dai, "RankSEG-RMA", NeurIPS 2025.

    Example:
        >>> probs = torch.tensor([[[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]]])  # 1 image, 2 classes, 3 pixels
        >>> RankSEG(metric="dice")(probs)
        tensor([[0, 0, 1]])
        >>> RankSEG(metric="iou", output_mode="multilabel").predict(torch.tensor([[[0.9, 0.4, 0.1]]]))
        tensor([[[ True,  True, False]]])
    """

    def __init__(
        self,
        metric: str = "dice",
        smooth: float = 0.0,
        output_mode: str = "multiclass",
        solver: str | None = None,
        pruning_prob: float = 0.5,
        unassigned_policy: str = "max_score",
        void_index: int = 255,
        eps: float = 1e-4,
    ) -> None:
        super().__init__()
        self.metric = read_choice("metric", "acc" if fold(metric) == "accuracy" else metric, METRICS)
        self.output_mode = read_choice("output_mode", output_mode, OUTPUT_MODES)
        self.solver = self._choose_solver(solver)
        self.smooth = read_real("smooth", smooth, 0.0, _LARGEST_SMOOTH)
        self.pruning_prob = read_real("pruning_prob", pruning_prob, 0.0, 1.0)
        self.unassigned_policy = read_choice("unassigned_policy", unassigned_policy, UNASSIGNED_POLICIES)
        self.void_index = read_integer("void_index", void_index)
        self.eps = read_real("eps", eps, 0.0, 1.0)
        if not 0 < self.eps < 1:
            raise ValueError(f"eps must lie between 0 and 1, got {eps!r}")
        self._refuse_unused()

    def _choose_solver(self, solver: str | None) -> str:
        allowed = SOLVERS[self.metric, self.output_mode]
        if solver is None:
            return allowed[0]
        everywhere = tuple(dict.fromkeys(name for names in SOLVERS.values() for name in names))
        solver = read_choice("solver", solver, everywhere)
        if solver not in allowed:
            raise ValueError(
                f"solver={solver!r} does not serve metric={self.metric!r} with output_mode={self.output_mode!r}; "
                f"use {' or '.join(map(repr, allowed))}"
            )
        return solver

    def _refuse_unused(self) -> None:
        by_volume, multiclass = self.metric != "acc", self.output_mode == "multiclass"
        unused = {
            "smooth": self.smooth != 0 and not by_volume,
            "pruning_prob": self.pruning_prob != 0.5 and not by_volume,
            "unassigned_policy": self.unassigned_policy != "max_score" and not (by_volume and multiclass),
            "void_index": self.void_index != 255 and not multiclass,
            "eps": self.eps != 1e-4 and self.solver not in RANKDICE_SOLVERS,
        }
        for name, refused in unused.items():
            if refused:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no effect with metric={self.metric!r}, "
                    f"output_mode={self.output_mode!r}, solver={self.solver!r}; leave it out"
                )

    def extra_repr(self) -> str:
        """Every option, as it would be passed."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in OPTIONS)

    def predict(self, probs: Tensor, valid_mask: Tensor | None = None, active: Tensor | None = None) -> Tensor:
        """Decide. The same as calling the module.

        Args:
            probs: (B, C, *spatial) probabilities; see the class. Values up to 1e-4 outside [0, 1] are clamped. No
                gradient is recorded.
            valid_mask: optional bool, (B, *spatial) or (*spatial): False marks pixels known to be no data, such
                as padding. They do not influence the decision on the others (their probabilities may even be NaN)
                and come out as ``void_index``, or as False in every mask. Never derive it from the ground truth.
            active: optional bool, (B, C) or (C,): the classes that are there, instead of those that ``pruning_prob``
                leaves. The others stay empty; in multiclass mode all classes compete in an image that has none.

        Returns:
            int64 labels (B, *spatial) or bool masks (B, C, *spatial).

        Raises:
            TypeError: if ``probs`` is not a floating point tensor, or ``valid_mask`` or ``active`` not a bool tensor.
            ValueError: for wrong shapes, NaN, infinite or out-of-range values, a single channel in multiclass mode,
                or a ``void_index`` inside the class range.

        Example:
            >>> probs = torch.tensor([[[0.9, 0.2], [0.1, 0.8]]])
            >>> RankSEG().predict(probs, valid_mask=torch.tensor([True, False]))
            tensor([[  0, 255]])
            >>> RankSEG().predict(probs, active=torch.tensor([True, False]))
            tensor([[0, 0]])
        """
        found: Tensor = self(probs, valid_mask, active)
        return found

    def check_classes(self, num_classes: int) -> None:
        """Refuse a number of classes among which this decoder cannot decide; ``predict`` does so, too.

        Where the number is known before there are probabilities, a wrong option need not wait for the first image.

        Args:
            num_classes: C, at least 1.

        Raises:
            ValueError: for a single channel that needs a rival, or a ``void_index`` inside the class range.

        Example:
            >>> RankSEG(void_index=2).check_classes(4)
            Traceback (most recent call last):
                ...
            ValueError: void_index must lie outside the class range 0 to 3, got 2
        """
        if num_classes == 1 and (self.output_mode == "multiclass" or self.solver == "argmax"):
            raise ValueError(
                f"a single channel cannot compete with itself (output_mode={self.output_mode!r}, solver="
                f"{self.solver!r}): use output_mode='multilabel' (for accuracy solver='TR') for a foreground mask, or "
                "two channels"
            )
        # The default may be one of 256 classes or more, where no pixel is ever void.
        if self.output_mode == "multiclass" and (self.unassigned_policy == "void" or self.void_index != 255):
            self._check_void_index(num_classes)

    @torch.no_grad()
    def forward(self, probs: Tensor, valid_mask: Tensor | None = None, active: Tensor | None = None) -> Tensor:
        """See ``predict``."""
        probs, valid_mask, active = plain(probs), plain(valid_mask), plain(active)
        self._check(probs, valid_mask)
        return self._decide(Pixels(probs, valid_mask), self._classes(probs, active))

    @torch.no_grad()
    def predict_logits(
        self,
        logits: Tensor,
        activation: str = "softmax",
        valid_mask: Tensor | None = None,
        active: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Decide on the output of a network: the same as ``predict`` on its probabilities, in less memory.

        Half precision is computed in float32. What argmax decides is decided by the logits themselves.

        Args:
            logits: (B, C, *spatial), float16, bfloat16, float32 or float64.
            activation: ``"softmax"`` over the classes, ``"sigmoid"`` of each class, ``"normalize"`` (non-negative
                scores over their sum) or ``"identity"`` (probabilities).
            valid_mask: see ``predict``.
            active: see ``predict``.
            temperature: in [0.001, 1000], divides the logits; softmax and sigmoid only.

        Returns:
            int64 labels (B, *spatial) or bool masks (B, C, *spatial).

        Raises:
            TypeError: as ``predict``.
            ValueError: as ``predict``; for an unknown activation, softmax or normalize over a single channel, NaN,
                infinite logits, negative scores, or a temperature that divides none.

        Example:
            >>> logits = torch.tensor([[[2.0, 0.1, -3.0], [0.0, 0.0, 0.0]]])
            >>> RankSEG().predict_logits(logits)
            tensor([[0, 0, 1]])
        """
        pixels, active = Pixels.of_logits(logits, activation, valid_mask, temperature), plain(active)
        self._check(pixels.values, pixels.valid)
        return self._decide(pixels, self._classes(pixels.values, active))

    def _classes(self, probs: Tensor, active: Tensor | None) -> Classes:
        return Classes(self.pruning_prob if active is None else _pruning_of(active, probs))

    def _decide(self, pixels: Pixels, classes: Classes) -> Tensor:
        values, valid_mask, blind = pixels.values, pixels.valid, is_blind()
        decide = self._most_probable if self.metric == "acc" else self._by_volumes
        decided = decide(pixels, classes)
        if not pixels.compete:
            self._look_at_sums(values, valid_mask, pixels.activate)
        if valid_mask is None:
            return decided
        if self.output_mode == "multilabel":
            within = decided.logical_and if blind else decided.logical_and_
            return within(valid_mask.unsqueeze(1 - values.ndim))
        fill = decided.masked_fill if blind else decided.masked_fill_
        return fill(~valid_mask, self.void_index)

    @property
    def by_thresholds(self) -> bool:
        """Whether RMA finds its masks: then ``decide_by`` can take the steps of others.

        Example:
            >>> RankSEG().by_thresholds, RankSEG(metric="acc").by_thresholds
            (True, False)
        """
        # The scores of all volumes are equal where smooth is very large.
        return self.metric != "acc" and (self.solver == "RMA" or self.smooth > _FLAT_SMOOTH)

    @torch.no_grad()
    def share(self, probs: Tensor, once: Once) -> SharedSteps:
        """Steps on probabilities (B, C, *spatial) that several decoders take; this one looks at their sums.

        Example:
            >>> from rankseg_plugins.core.sharing import Once
            >>> probs = torch.tensor([[[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]]])
            >>> steps = RankSEG().share(probs, Once())
            >>> [RankSEG(pruning_prob=least).decide_by(steps, probs) for least in (0.5, 0.95)]  # one search for both
            [tensor([[0, 0, 1]]), tensor([[0, 0, 1]])]
        """
        steps = make_steps(Pixels(probs), self._objective(), 0.0)
        self._look_at_sums(probs)
        return SharedSteps(steps, once)

    @torch.no_grad()
    def decide_by(self, steps: Steps, probs: Tensor) -> Tensor:
        """As ``predict``, by steps on these probabilities; their shape is not checked.

        Example:
            >>> from rankseg_plugins.core.sharing import Once
            >>> probs = torch.tensor([[[0.9, 0.4, 0.1], [0.1, 0.6, 0.9]]])
            >>> decoder = RankSEG("dice")
            >>> decoder.decide_by(decoder.share(probs, Once()), probs)
            tensor([[0, 1, 1]])
        """
        return self._read_off(steps, search(steps, self._objective(), self._classes(probs, None)), probs)

    def _by_volumes(self, pixels: Pixels, classes: Classes) -> Tensor:
        solver, objective = "RMA" if self.by_thresholds else self.solver, self._objective()
        if self.solver != "RMA":
            if is_blind():
                raise RuntimeError(
                    f"solver={self.solver!r} looks at the values it decides on and cannot be compiled, exported or "
                    "mapped; use solver='RMA'"
                )
            pixels = Pixels(pixels.probs(), pixels.valid)
        steps = make_steps(pixels, objective, classes.pruning, looks=solver != "RMA")
        # The other solvers begin with what RMA finds.
        volumes = search(steps, objective, classes)
        if solver != "RMA" and volumes.active.any():
            searches: dict[str, Callable[..., Volumes]] = {"exact": search_exact}
            searches |= {name: partial(search_rankdice, solver=name, eps=self.eps) for name in RANKDICE_SOLVERS}
            volumes = searches[solver](steps.values(), steps.maximum, volumes, objective)
        return self._read_off(steps, volumes, pixels.values)

    def _read_off(self, steps: Steps, volumes: Volumes, probs: Tensor) -> Tensor:
        if self.output_mode == "multiclass":
            decided = steps.labels(volumes, self._objective(), self._unassigned_label())
        else:
            decided = steps.masks(volumes)
        found: Tensor = decided.unflatten(-1, probs.shape[2:])
        return found

    def _objective(self) -> Objective:
        return OBJECTIVES[self.metric](self.smooth)

    def _unassigned_label(self) -> int | None:
        return self.void_index if self.unassigned_policy == "void" else None

    def expected_score(self, probs: Tensor, decision: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """Exact expected Dice or IoU of any decision, if pixels are independent with these probabilities.

        Compares decisions without ground truth, as far as the probabilities can be trusted. ``metric`` and ``smooth``
        of this decoder say which score; its solver does not matter.

        Args:
            probs: (B, C, *spatial) probabilities; see ``predict``.
            decision: int64 labels (B, *spatial) in 0..C-1 or ``void_index`` (no class), or bool masks
                (B, C, *spatial).
            valid_mask: optional bool mask of the pixels that hold data; the others belong to no class.

        Returns:
            (B, C) float64 in [0, 1]; an empty mask scores 0 at ``smooth = 0``.

        Raises:
            TypeError: for tensors of the wrong type.
            ValueError: for wrong shapes or values, or ``metric="acc"``.

        Source: quadrature of the Poisson binomial's generating function; see
        ``rankseg_plugins.core.solvers.expectation``.

        Example:
            >>> probs = torch.tensor([[[0.5, 0.5]]], dtype=torch.float64)
            >>> both = torch.tensor([[[True, True]]])
            >>> RankSEG("dice", output_mode="multilabel").expected_score(probs, both)  # (0 + 2/3 + 2/3 + 1) / 4
            tensor([[0.5833]], dtype=torch.float64)
        """
        if self.metric == "acc":
            raise ValueError("expected_score serves metric='dice' and 'iou', this decoder has metric='acc'")
        probs, decision, valid_mask = plain(probs), plain(decision), plain(valid_mask)
        check_probs("probs", probs)
        check_valid_mask(probs, valid_mask)
        if is_transforming():
            raise RuntimeError("expected_score looks at values and cannot be mapped by torch.func")
        if isinstance(decision, Tensor) and decision.dtype == torch.int64:
            self._check_void_index(probs.shape[1])
        with torch.no_grad():
            masks = to_masks(decision, probs, self.void_index)
            pixels, objective = Pixels(probs, valid_mask), self._objective()
            values = make_steps(pixels, objective, 0.0, looks=True).values()
            self._look_at_sums(probs, valid_mask)
            valid = None if valid_mask is None else valid_mask.expand(len(probs), *probs.shape[2:]).flatten(1)
            return expected_scores(values, masks, valid, objective).to(probs.device)

    def _most_probable(self, pixels: Pixels, classes: Classes) -> Tensor:
        probs, there = self._comparable(pixels), None
        if isinstance(classes.pruning, Tensor):
            there = classes.pruning.isfinite().view(*classes.pruning.shape, *[1] * (probs.ndim - 2))
            probs = probs.masked_fill(~there & there.any(1, keepdim=True), -torch.inf)
        if self.solver == "TR":
            decided = probs > 0.5
        else:
            decided = argmax(probs)
            if self.output_mode == "multiclass":
                return decided
            decided = class_masks(decided, probs.shape[1])
        return decided if there is None else decided & there

    def _comparable(self, pixels: Pixels) -> Tensor:
        """Probabilities; or the values themselves, where the largest one says which probability is."""
        if is_blind() or pixels.values.device.type != "cpu":
            found: Tensor = dense.to_checked(pixels.probs(), pixels.valid).unflatten(-1, pixels.values.shape[2:])
            return found
        if pixels.check():
            return pixels.values.clamp(0.0, 1.0)
        return pixels.values if pixels.compete and self.solver == "argmax" else pixels.probs()

    def _check(self, probs: Tensor, valid_mask: Tensor | None) -> None:
        check_probs("probs", probs)
        self.check_classes(probs.shape[1])
        if valid_mask is not None and self.output_mode == "multiclass":
            self._check_void_index(probs.shape[1])
        check_valid_mask(probs, valid_mask)

    def _check_void_index(self, classes: int) -> None:
        if 0 <= self.void_index < classes:
            raise ValueError(f"void_index must lie outside the class range 0 to {classes - 1}, got {self.void_index}")


def _pruning_of(active: Tensor, probs: Tensor) -> Tensor:
    """What the largest probability of each class has to exceed, (B, C), for the active classes to be left."""
    if check_tensor("active", active).dtype != torch.bool:
        raise TypeError(f"active must be a bool tensor, got {active.dtype}")
    check_by_class("active", active, probs)
    lowest = torch.zeros(probs.shape[:2], dtype=torch.float32, device=probs.device)
    return lowest.masked_fill(~active.to(probs.device), torch.inf)


#: Names of all options.
OPTIONS = tuple(inspect.signature(RankSEG).parameters)
