"""Decisions that know which classes an image holds: first whether a class is there, then where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.core.decoder import RankSEG
from rankseg_plugins.core.fits.lasting import Fitted, Mark
from rankseg_plugins.core.fits.reservoir import Reservoir, gathered
from rankseg_plugins.core.inputs.options import ABSENT, PRESENT, read_choice, read_index, read_integer, read_real
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.inputs.probabilities import (
    check_by_class,
    check_floating,
    check_probs,
    check_valid_mask,
    plain,
)
from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.objectives import OBJECTIVES
from rankseg_plugins.core.paths import make_steps
from rankseg_plugins.core.presence.choosing import Known
from rankseg_plugins.core.presence.curve import Evidence, taken_at_their_word
from rankseg_plugins.core.presence.fitting import PresenceFit, by_frequencies, learn
from rankseg_plugins.core.presence.reading import (
    STATE,
    Truth,
    check_shares,
    number_of,
    read_excluded,
    read_frequencies,
    what_is_wrong,
)
from rankseg_plugins.core.presence.rule import LEVELS, SCORE, Rule, gauss
from rankseg_plugins.core.rma import Steps, search
from rankseg_plugins.core.volumes import Classes, Volumes

#: Options of RankSEG that are as useful here. Classes are pruned by their presence.
OPTIONS = ("smooth", "output_mode", "solver", "unassigned_policy", "void_index", "eps")
#: Why frequencies, or presence that is given, may not be enough.
NEEDS_FIT = (
    "what a single class scores on other images decides whether it pays on this one, and with level='class' every "
    "class, where absent ones are skipped: update() and fit(), or choose absent='one' or rule=0.5, a threshold"
)


class PresenceRankSEG(Fitted, RankSEG):
    """RankSEG that decides which classes an image holds, instead of asking for a largest probability.

    ``update`` keeps a few numbers of every image and whether its truth holds each class, ``fit`` finds how likely a
    class is there from them, and from then on the module decides, on a CPU at about the cost of RankSEG. Where nothing
    is known but how often an image holds each class, ``frequencies`` takes the place of the fit.

    Args:
        num_classes: C.
        metric: ``"dice"`` or ``"iou"``.
        rule: ``"score"`` takes the classes that the score gains by, as the next four options count it, which belong to
            it alone; a number in [0, 1] those whose presence exceeds it (in multiclass mode at least the most likely
            one).
        present: which classes have a score in an image: ``"union"`` (those of truth or prediction) or ``"label"``,
            where all classes pay that may be there.
        absent: what an absent class counts: ``"skip"``, ``"zero"`` or ``"one"``; with ``"union"`` only.
        level: ``"image"`` is the mean over the classes of an image, ``"class"`` that over the images of a class, which
            makes a difference where absent classes are skipped.
        excluded: classes that are not scored, such as the background; the score has nothing against taking them.
        frequencies: (C,) numbers in [0, 1], how often an image holds each class, instead of a fit.
        max_images: images that the fit keeps, 6 C + 1 numbers of each.
        seed: of the sample, if there are more.
        **options: ``smooth``, ``output_mode``, ``solver``, ``unassigned_policy``, ``void_index`` and ``eps`` of
            ``RankSEG``.

    Attributes:
        weight, offset, floor, below, slope, intercept, mean_score: what was fitted, float64, NaN before; part of the
            ``state_dict``. A mean score of -1 is not known.
        iou, smoothing, by_class, unscored: the ``metric``, ``smooth``, ``level`` and ``excluded`` that it was fitted
            for, so that nothing is loaded that was fitted for others. Nothing else is in the ``state_dict``.

    Shape:
        - Input: (B, C, *spatial), float16, bfloat16, float32 or float64 in [0, 1].
        - Output: int64 labels (B, *spatial), or bool masks (B, C, *spatial).

    Raises:
        TypeError: for an option that is unknown or of the wrong type.
        ValueError: for an option out of range or without effect, or ``frequencies`` where they are not enough: for one
            class, or ``level="class"``, what a class scores on other images decides whether it pays on this one.

    Source: ``rankseg_plugins.core.presence.rule`` and ``rankseg_plugins.core.presence.curve``.

    Example:
        >>> probs = torch.tensor([[[0.9, 0.8, 0.2, 0.1], [0.05, 0.1, 0.2, 0.6], [0.05, 0.1, 0.6, 0.3]]])
        >>> PresenceRankSEG(3, frequencies=[0.9, 0.8, 0.1])(probs)  # the third class is seldom there
        tensor([[0, 0, 1, 1]])
        >>> PresenceRankSEG(3, frequencies=[0.9, 0.8, 0.1], present="label")(probs)
        tensor([[0, 0, 2, 1]])
    """

    weight: Tensor
    offset: Tensor
    floor: Tensor
    below: Tensor
    slope: Tensor
    intercept: Tensor
    mean_score: Tensor

    def __init__(
        self,
        num_classes: int,
        metric: str = "dice",
        rule: str | float = SCORE,
        present: str = "union",
        absent: str = "skip",
        level: str = "image",
        excluded: Sequence[int] = (),
        frequencies: Sequence[float] | Tensor | None = None,
        max_images: int = 10_000,
        seed: int = 0,
        **options: Any,
    ) -> None:
        for name in options:
            if name not in OPTIONS:
                raise TypeError(f"PresenceRankSEG takes no option {name!r}; of RankSEG it takes {', '.join(OPTIONS)}")
        super().__init__(read_choice("metric", metric, tuple(OBJECTIVES)), **options)
        self.num_classes = read_integer("num_classes", num_classes, least=1)
        self.rule = read_choice("rule", rule, (SCORE,)) if isinstance(rule, str) else read_real("rule", rule, 0.0, 1.0)
        self.present = read_choice("present", present, PRESENT)
        self.absent = read_choice("absent", absent, tuple(ABSENT))
        self.level = read_choice("level", level, LEVELS)
        self.excluded = read_excluded(excluded, num_classes)
        self._rule = Rule(
            *(self.rule, self.present, self.absent, self.level, self.excluded),
            gauss(num_classes - len(self.excluded)),
            self.output_mode == "multiclass",
        )
        self._rule.refuse_without_effect()
        self.max_images, self.seed = read_integer("max_images", max_images, least=1), read_integer("seed", seed)
        RankSEG.check_classes(self, num_classes)
        sizes = {"weight": 3, "offset": num_classes, "intercept": num_classes, "mean_score": num_classes}
        for name in STATE:
            self.keep(name, torch.full((sizes.get(name, 1),), torch.nan, dtype=torch.float64, device="cpu"))
        self.mark()
        self.reset()
        if frequencies is not None:
            self._keep(by_frequencies(read_frequencies(frequencies, num_classes)))
            if self._needs_mean_scores:
                raise ValueError(f"frequencies are not enough here: {NEEDS_FIT}")

    def extra_repr(self) -> str:
        """Every option, as it would be passed."""
        own = ("num_classes", "metric", "rule", "present", "absent", "level", "excluded", "max_images", "seed")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in (*own, *OPTIONS))

    def marks(self) -> dict[str, Mark]:
        """What the curve looks at is for a score; what images score besides, which is not always asked, for a level."""
        return {
            "iou": Mark("metric", tuple(OBJECTIVES)),
            "smoothing": Mark("smooth"),
            "by_class": Mark("level", LEVELS, self._rule.asks_mean),
            "unscored": Mark("excluded", (), self._rule.asks_mean),
        }

    def _is_known(self) -> bool:
        return not (bool(self.offset.isnan().any()) or self._needs_mean_scores)

    def reset(self) -> None:
        """Forget the images, so that others can be collected; what was fitted stays.

        Example:
            >>> decoder = PresenceRankSEG(2)
            >>> decoder.update(torch.full((1, 2, 4), 0.5), torch.tensor([[0, 0, 1, 1]]))
            >>> decoder.reset()
            >>> decoder.fit()
            Traceback (most recent call last):
                ...
            RuntimeError: PresenceRankSEG has no images to fit to: call update(probs, labels) first
        """
        self._sample: Reservoir | None = None

    @torch.no_grad()
    def update(
        self,
        probs: Tensor,
        labels: Tensor,
        valid_mask: Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Add a batch of images to those that are fitted to.

        Args:
            probs: (B, C, *spatial) probabilities.
            labels: labels (B, *spatial) or (B, 1, *spatial) in 0..C-1, with one channel 0 and 1; masks
                (B, C, *spatial) of zeros and ones; or (B, C) bool, which classes each image holds.
            valid_mask: optional bool (B, *spatial) or (*spatial); see ``predict``.
            ignore_index: label of pixels whose class is not known; not with masks. An image without any other is left
                out.

        Raises:
            TypeError: for tensors or an ``ignore_index`` of the wrong type.
            ValueError: for wrong shapes or values. The sample is then as before.

        Example:
            >>> probs = torch.tensor([[[0.9, 0.2], [0.1, 0.8]], [[0.9, 0.8], [0.1, 0.2]]])
            >>> decoder = PresenceRankSEG(2)
            >>> decoder.update(probs, torch.tensor([[True, True], [True, False]]))  # which classes the two images hold
            >>> decoder.fit().frequency
            tensor([1.0000, 0.5000], dtype=torch.float64)
        """
        probs, labels, valid_mask = plain(probs), plain(labels), plain(valid_mask)
        self._check(probs, valid_mask)
        truth = Truth.read(labels, probs, valid_mask, read_index("ignore_index", ignore_index))
        evidence, masks = self.look(probs, valid_mask)
        evidence = evidence._replace(score=truth.score(masks, self.metric))
        rows = torch.cat([evidence.rows(), truth.there.double()], 1)
        self._look_at_sums(probs, valid_mask)
        if self._sample is None:
            self._sample = Reservoir(self.max_images, rows.shape[1], self.seed)
        self._sample.add(rows[truth.counts])

    def fit(self) -> PresenceFit:
        """Find how likely classes are there; with several processes, which must all call it, from the images of all.

        Raises:
            RuntimeError: before any ``update`` with an image that counts.

        Example:
            >>> probs = torch.tensor([[[0.9, 0.2], [0.1, 0.8]], [[0.9, 0.7], [0.1, 0.3]]])
            >>> decoder = PresenceRankSEG(2)
            >>> decoder.update(probs.repeat(10, 1, 1), torch.tensor([[True, True], [True, False]]).repeat(10, 1))
            >>> found = decoder.fit()
            >>> decoder.presence(probs).round(decimals=1)
            tensor([[1., 1.],
                    [1., 0.]], dtype=torch.float64)
        """
        rows = gathered(self.max_images, self._sample)
        if rows is None:
            raise RuntimeError("PresenceRankSEG has no images to fit to: call update(probs, labels) first")
        return self.fit_to(Evidence.from_rows(rows[:, : -self.num_classes]), rows[:, -self.num_classes :].bool())

    def fit_to(self, evidence: Evidence, there: Tensor) -> PresenceFit:
        """Find how likely classes are there, from what is known of images already.

        Args:
            evidence: of N images; see ``look``.
            there: (N, C) bool, the classes that they hold.

        Example:
            >>> decoder = PresenceRankSEG(2)
            >>> evidence, _ = decoder.look(torch.tensor([[[0.9, 0.2], [0.1, 0.8]], [[0.9, 0.7], [0.1, 0.3]]]))
            >>> decoder.fit_to(evidence, torch.tensor([[True, True], [True, False]])).images
            2
        """
        known, found = learn(evidence, there, self._objective(), self._rule)
        self._keep(known)
        return found

    @torch.no_grad()
    def look(self, probs: Tensor, valid_mask: Tensor | None = None) -> tuple[Evidence, Tensor]:
        """What is kept of a batch of images (B, C, *spatial), as float32 holds it, and RMA's masks of all classes.

        Example:
            >>> evidence, masks = PresenceRankSEG(2).look(torch.tensor([[[0.75, 0.25], [0.25, 0.75]]]))
            >>> evidence.maximum, masks.tolist()
            (tensor([[0.7500, 0.7500]], dtype=torch.float64), [[[True, False], [False, True]]])
        """
        steps = make_steps(Pixels(probs, valid_mask), self._objective(), 0.0)
        volumes = steps.search(self._objective(), 0.0)
        found = Evidence.of(steps.maximum, volumes.mu, volumes.n, volumes.s, number_of(probs, valid_mask))
        masks = steps.masks(volumes).unflatten(-1, probs.shape[2:])
        return Evidence(*(each.float().double() for each in found)), masks

    def presence(self, probs: Tensor, valid_mask: Tensor | None = None) -> Tensor:
        """How likely each class is there: (B, C) float64.

        Args:
            probs: (B, C, *spatial) probabilities.
            valid_mask: optional bool, (B, *spatial) or (*spatial); see ``predict``.

        Raises:
            RuntimeError: if it is not fitted.
            TypeError: for tensors of the wrong type.
            ValueError: for wrong shapes or values.

        Example:
            >>> PresenceRankSEG(2, frequencies=[1.0, 0.3]).presence(torch.full((1, 2, 4), 0.5)).round(decimals=2)
            tensor([[1.0000, 0.3000]], dtype=torch.float64)
        """
        probs, valid_mask = plain(probs), plain(valid_mask)
        self._check(probs, valid_mask)
        self._check_fitted()
        return self.presence_of(self.look(probs, valid_mask)[0])

    def presence_of(self, evidence: Evidence) -> Tensor:
        """As ``presence``, from what is known of images already; see ``look``.

        Example:
            >>> decoder = PresenceRankSEG(2, frequencies=[1.0, 0.3])
            >>> evidence, _ = decoder.look(torch.full((1, 2, 4), 0.5))
            >>> decoder.presence_of(evidence).round(decimals=2)
            tensor([[1.0000, 0.3000]], dtype=torch.float64)
        """
        return self._known(evidence.maximum.device).curve.presence(evidence, self._objective())

    def predict(self, probs: Tensor, valid_mask: Tensor | None = None, presence: Tensor | None = None) -> Tensor:
        """Decide. The same as calling the module.

        Args:
            probs: (B, C, *spatial) probabilities; see the class.
            valid_mask: optional bool mask of the pixels that hold data; see ``RankSEG.predict``.
            presence: optional (B, C) or (C,) in [0, 1]: how likely the truth holds each class, where another source
                knows it better than the fit, such as a classifier of images.

        Returns:
            int64 labels (B, *spatial) or bool masks (B, C, *spatial).

        Raises:
            RuntimeError: if it is not fitted and ``presence`` is not given.
            TypeError: for tensors of the wrong type.
            ValueError: for wrong shapes or values.

        Example:
            >>> probs = torch.tensor([[[0.5, 0.5, 0.4], [0.4, 0.4, 0.5], [0.1, 0.1, 0.1]]])
            >>> decoder = PresenceRankSEG(3, frequencies=[0.9, 0.1, 0.1], rule=0.5)
            >>> decoder.predict(probs)
            tensor([[0, 0, 0]])
            >>> decoder.predict(probs, presence=torch.tensor([0.9, 0.8, 0.1]))  # as a classifier of images says
            tensor([[0, 0, 1]])
        """
        found: Tensor = self(probs, valid_mask, presence)
        return found

    @torch.no_grad()
    def forward(self, probs: Tensor, valid_mask: Tensor | None = None, presence: Tensor | None = None) -> Tensor:
        """See ``predict``."""
        probs, valid_mask, presence = plain(probs), plain(valid_mask), plain(presence)
        self._check(probs, valid_mask)
        return self._decide(Pixels(probs, valid_mask), self._classes_there(probs, valid_mask, presence))

    @torch.no_grad()
    def predict_logits(
        self,
        logits: Tensor,
        activation: str = "softmax",
        valid_mask: Tensor | None = None,
        presence: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Decide on the output of a network; see ``RankSEG.predict_logits`` and ``predict``.

        Example:
            >>> decoder = PresenceRankSEG(2, frequencies=[1.0, 0.3], rule=0.5)
            >>> decoder.predict_logits(torch.tensor([[[0.0, 0.0], [-1.0, 1.0]]]))
            tensor([[0, 0]])
        """
        pixels = Pixels.of_logits(logits, activation, valid_mask, temperature, self.num_classes)
        classes = self._classes_there(pixels.values, pixels.valid, plain(presence))
        return self._decide(pixels, classes)

    @torch.no_grad()
    def decision_and_presence(
        self, logits: Tensor, activation: str = "softmax", temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """What ``predict_logits`` decides, and how likely that takes each class to be there.

        Args:
            logits: (B, C, *spatial), as the other two see ``predict_logits``.
            activation: what makes probabilities of them.
            temperature: in [0.001, 1000].

        Returns:
            The decision, and (B, C) float64: ``presence``, but for the rounding of what a fit keeps of images.

        Raises:
            RuntimeError: if it is not fitted.
            TypeError: as ``predict_logits``.
            ValueError: likewise.

        Example:
            >>> decoder = PresenceRankSEG(2, frequencies=[1.0, 0.3])
            >>> decoder.decision_and_presence(torch.tensor([[[3.0, -1.0], [0.0, 0.0]]]))[0]
            tensor([[0, 0]])
        """
        pixels = Pixels.of_logits(logits, activation, None, temperature, self.num_classes)
        classes, told = self._telling(pixels.values)
        return self._decide(pixels, classes), told[0]

    @torch.no_grad()
    def decision_and_presence_by(self, steps: Steps, probs: Tensor) -> tuple[Tensor, Tensor]:
        """As ``decision_and_presence``, by steps on these probabilities; their shape is not checked.

        Example:
            >>> from rankseg_plugins.core.sharing import Once
            >>> probs = torch.tensor([[[0.9, 0.2], [0.1, 0.8]]])
            >>> decoder, once = PresenceRankSEG(2, frequencies=[1.0, 0.9]), Once()
            >>> labels, presence = decoder.decision_and_presence_by(decoder.share(probs, once), probs)
            >>> labels, presence.shape
            (tensor([[0, 1]]), torch.Size([1, 2]))
        """
        classes, told = self._telling(probs)
        return self._read_off(steps, search(steps, self._objective(), classes), probs), told[0]

    def _telling(self, probs: Tensor) -> tuple[Classes, list[Tensor]]:
        """The classes that are decided on, and a list that then holds how likely each is there."""
        told: list[Tensor] = []
        return self._classes_there(probs, None, None, told), told

    def _classes(self, probs: Tensor, active: Tensor | None) -> Classes:
        return self._classes_there(probs, None, active)

    def _classes_there(
        self, probs: Tensor, valid_mask: Tensor | None, presence: Tensor | None, told: list[Tensor] | None = None
    ) -> Classes:
        if presence is None:
            self._check_fitted()
        else:
            check_by_class("presence", check_floating("presence", presence), probs)
            presence = check_shares("presence", presence.detach().double()).to(probs.device).expand(probs.shape[:2])
            if not torch.compiler.is_compiling() and self._needs_mean_scores:
                raise RuntimeError(f"presence is not enough here: {NEEDS_FIT}")
        pixels = number_of(probs, valid_mask)

        def choose(maximum: Tensor, volumes: Volumes) -> Volumes:
            known = self._known(maximum.device)
            shown, q = known.choose(maximum, volumes, pixels, self._objective(), self._rule, presence)
            if told is not None:
                told.append(q)
            return shown

        return Classes(0.0 if presence is not None else self._floor(probs), choose)

    def _floor(self, probs: Tensor) -> float | Tensor:
        if probs.device.type == "cpu" and not is_blind():
            return max(0.0, self.floor.item())
        return self.floor.to(probs.device).clamp(min=0).expand(probs.shape[:2])

    def _known(self, device: torch.device) -> Known:
        buffers: dict[str, Any] = self._buffers
        found = [buffers[name] for name in STATE]
        if not self.fitted:
            found[4:6] = taken_at_their_word(self.num_classes)
        return Known(*(found if device.type == "cpu" else [each.to(device) for each in found]))

    @property
    def _needs_mean_scores(self) -> bool:
        """Whether it cannot decide without the mean scores, and has none."""
        alone = self.level == "class" or self.num_classes - len(self.excluded) == 1
        return self._rule.asks_mean and alone and not bool((self.mean_score >= 0).all())

    def _keep(self, known: Known) -> None:
        for name, value in zip(STATE, known, strict=True):
            self.keep(name, value.to(getattr(self, name)))
        self.mark()
        self._fitted = True

    def _check(self, probs: Tensor, valid_mask: Tensor | None) -> None:
        check_probs("probs", probs, self.num_classes)
        check_valid_mask(probs, valid_mask)

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise RuntimeError(
                "PresenceRankSEG is not fitted: call update(probs, labels) with the batches of a data set and then "
                "fit(), load the state_dict of one that is fitted, or give frequencies"
            )

    def what_is_wrong(self, found: dict[str, Tensor]) -> str | None:
        """Why no decision can be made by a state; it may be one that is not fitted."""
        problem = super().what_is_wrong(found)
        return what_is_wrong(found) if problem is None else problem
