"""Tuning the decoder on the images of a validation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.comparison import Scoring
from rankseg_plugins.tuning import Tuner
from rankseg_plugins.tuning.choosing import ARGMAX, CHOSEN, check_intervals
from rankseg_plugins.tuning.tuner import Tuned

#: The parts of logged names.
TUNED, TUNED_GAIN = "tuned", "tuned_gain"

FINISHING = ("resamples", "confidence", "seed")
#: What the callback knows itself.
GIVEN = ("num_classes", "output_mode", "ignore_index", "scoring", "device")
OPTIONS = (*(name for name in inspect.signature(Tuner).parameters if name not in (*GIVEN, "others")), *FINISHING)


class Tuning:
    """Measures every candidate on the images of one validation after the other, and chooses at the end of each.

    Args:
        options: of :class:`~rankseg_plugins.tuning.Tuner` and its ``finish``; True takes the defaults.
        num_classes: C.
        output_mode: ``"multiclass"`` or ``"multilabel"``.
        ignore_index: label of the truth whose pixels do not count.
        scoring: its score at image level is the objective unless ``options`` names another.

    Raises:
        TypeError: if ``options`` are not such, or one is unknown or of the wrong type.
        ValueError: for an option out of range.
        ImportError: without SciPy.

    Example:
        >>> from rankseg_plugins.comparison.measuring import calibrate
        >>> tuning = Tuning(True, 2, "multiclass", None, Scoring("iou"))
        >>> tuning.objective
        'iou_image'
        >>> tuning.start("cpu")
        >>> probs = torch.tensor([[[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]]])
        >>> target = torch.tensor([[0, 1, 1]])
        >>> tuning.add(["000000"], ["000000"], probs, [calibrate(probs[0], target[0])], target, probs.argmax(1))
        >>> tuning.finish().decoder.is_argmax
        True
    """

    def __init__(
        self,
        options: bool | Mapping[str, Any],
        num_classes: int,
        output_mode: str,
        ignore_index: int | None,
        scoring: Scoring,
    ) -> None:
        own = _check_options(options)
        self._finishing = {name: own.pop(name) for name in FINISHING if name in own}
        self._options = {
            "num_classes": num_classes,
            "objective": f"{scoring.score}_image",
            "output_mode": output_mode,
            "ignore_index": ignore_index,
            "scoring": scoring,
            **own,
        }
        self._tuner: Tuner | None = None
        # The end of the first validation would be too late to refuse an option, or to miss SciPy.
        self.objective = Tuner(**self._options).objective
        check_intervals(**self._finishing)

    def start(self, device: str | torch.device) -> None:
        """Begin anew: the network has changed since the last validation."""
        self._tuner = Tuner(**self._options, device=device)
        # The callback warns, once for all validations.
        self._tuner.recorder.warn = False

    def add(
        self,
        names: Sequence[str],
        cases: Sequence[str | None],
        probs: Tensor,
        calibrations: Sequence[Calibration],
        target: Tensor,
        argmax: Tensor,
    ) -> None:
        r"""Decode a batch with every candidate; each argument holds the same B images.

        Args:
            names: of the images.
            cases: see :class:`~rankseg_plugins.comparison.Sample`.
            probs: (B, C, \*spatial) probabilities.
            calibrations: of them.
            target: truth in any form that the callback takes.
            argmax: its labels (B, \*spatial) or masks (B, C, \*spatial).
        """
        assert self._tuner is not None
        candidates = [decoder for name, decoder in self._tuner.candidates.items() if name != ARGMAX]
        # Image by image: all decisions on a large batch at once would take the memory of many batches.
        images = zip(names, cases, probs, calibrations, target, argmax, strict=True)
        for name, case, image, measured, truth, baseline in images:
            decisions = [baseline, *(decoder(image[None])[0] for decoder in candidates)]
            self._tuner.recorder.add_decided(name, truth, decisions, case=case, calibration=measured)

    def finish(
        self, class_names: Sequence[str] | None = None, skipped: Mapping[str, str] | None = None
    ) -> Tuned | None:
        """Choose from the images of all processes, the same on each of them; None without any image.

        Args:
            class_names: C names; None numbers the classes.
            skipped: images of all processes that are left out, and why.
        """
        tuner, self._tuner = self._tuner, None
        if tuner is None:
            return None
        tuner.gather()
        tuner.recorder.skipped = dict(skipped or {})
        return tuner.finish(class_names, **self._finishing) if tuner.recorder.measurements else None

    @property
    def names(self) -> list[tuple[str, str]]:
        """Of :meth:`scores`: the decision and the level."""
        return [(TUNED, self.objective), (TUNED_GAIN, self.objective)]

    def scores(self, found: Tuned | None) -> Tensor:
        """What the tuned decoder scores on images that had no part in choosing it, and its gain on argmax.

        Where argmax is kept, it is argmax's score, and 0; without any image NaN. (2,) float64.
        """
        score, level = self.objective.split("_")
        if found is None:
            return torch.full((2,), torch.nan, dtype=torch.float64)
        chosen = ARGMAX if found.decoder.is_argmax else CHOSEN
        tuned, argmax = (found.validated.level(name, score, level) for name in (chosen, ARGMAX))
        return torch.tensor([tuned, tuned - argmax], dtype=torch.float64)


def _check_options(options: bool | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(options, (bool, Mapping)):
        raise TypeError(f"tune must be True, False or a dict of options, got {options!r}")
    own = dict(options) if isinstance(options, Mapping) else {}
    for name in own:
        if name == "aggregation_levels":
            raise TypeError(
                "tune takes no aggregation_levels: a decision at the level of the data set needs the images twice; "
                "see rankseg_plugins.tuning.tune"
            )
        if name in GIVEN:
            raise TypeError(f"tune takes no {name!r}: it follows from the options of the callback")
        if name not in OPTIONS:
            raise TypeError(f"tune takes {', '.join(OPTIONS)}; got {name!r}")
    return own
