"""Tuning the decoder on the images of a validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.calibration.deciding import decide
from rankseg_plugins.lightning.reading import Decided, Task
from rankseg_plugins.tuning import Tuner
from rankseg_plugins.tuning.choosing import ARGMAX, CHOSEN, check_intervals
from rankseg_plugins.tuning.tuner import Tuned, options_but

#: The parts of logged names.
TUNED, TUNED_GAIN = "tuned", "tuned_gain"

FINISHING = ("confidence", "seed")
#: What the callback knows itself.
GIVEN = ("num_classes", "output_mode", "ignore_index", "scoring", "device")
OPTIONS = (*options_but(*GIVEN, "others"), *FINISHING)


class Tuning:
    """Measures every candidate on the images of one validation after the other, and chooses at the end of each.

    Args:
        options: of ``Tuner`` and its ``finish``; True takes the defaults.
        task: what is segmented; its score at image level is the objective unless ``options`` names another.
        output_mode: ``"multiclass"`` or ``"multilabel"``.

    Attributes:
        found: what the last validation with an image found; None before.

    Raises:
        TypeError: if ``options`` are not such, or one is unknown or of the wrong type.
        ValueError: for an option out of range.
        ImportError: without SciPy.

    Example:
        >>> from rankseg_plugins.comparison import Scoring
        >>> from rankseg_plugins.lightning.reading import Images
        >>> task = Task(2, None, Scoring("iou"))
        >>> tuning = Tuning(True, task, "multiclass")
        >>> tuning.names
        ['tuned/iou_image', 'tuned_gain/iou_image']
        >>> tuning.start("cpu")
        >>> probs = torch.tensor([[[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]]])
        >>> images = Images(probs, "identity", torch.tensor([[0, 1, 1]]), cases=[None], names=["000000"])
        >>> tuning.add(Decided(task, images, probs.argmax(1), probs.argmax(1)))
        >>> tuning.finish(skipped={}).decoder.is_argmax
        True
    """

    def __init__(self, options: bool | Mapping[str, Any], task: Task, output_mode: str) -> None:
        own = _check_options(options)
        self._finishing = {name: own.pop(name) for name in FINISHING if name in own}
        objective = f"{task.scoring.score}_image"
        self._options = {"objective": objective, "output_mode": output_mode, **task.options, **own}
        self._class_names = task.class_names
        self.found: Tuned | None = None
        self._tuner: Tuner | None = None
        # The end of the first validation would be too late to refuse an option, or to miss SciPy.
        self._objective = Tuner(**self._options).objective
        check_intervals(**self._finishing)

    def start(self, device: str | torch.device) -> None:
        """Begin anew: the network has changed since the last validation."""
        self._tuner = Tuner(**self._options, device=device)
        # The callback warns, once for all validations.
        self._tuner.recorder.warn = False

    def add(self, batch: Decided) -> None:
        """Decode a batch with every candidate."""
        assert self._tuner is not None
        candidates = [decoder for name, decoder in self._tuner.candidates.items() if name != ARGMAX]
        # Image by image: all decisions on a large batch at once would take the memory of many batches.
        for image in batch:
            one = (image.logits[None], batch.images.activation)
            decisions = [image.argmax, *(decide(decoder, *one)[0] for decoder in candidates)]
            name = _name_of_all(batch.suffix, image.name)
            self._tuner.recorder.add_decided(
                name, image.truth, decisions, case=image.case, calibration=image.calibration
            )

    def finish(self, skipped: Mapping[str, Mapping[str, str]]) -> Tuned | None:
        """Choose from the images of all processes, the same on each of them; None without any image.

        Args:
            skipped: images of all processes that are left out, and why, by the suffix of their dataloader.
        """
        tuner, self._tuner = self._tuner, None
        if tuner is None:
            return None
        tuner.gather()
        tuner.recorder.skipped = {
            _name_of_all(suffix, name): why for suffix, images in skipped.items() for name, why in images.items()
        }
        if not tuner.recorder.measurements:
            return None
        self.found = tuner.finish(self._class_names, **self._finishing)
        return self.found

    @property
    def names(self) -> list[str]:
        """Of ``scores``."""
        return [f"{TUNED}/{self._objective}", f"{TUNED_GAIN}/{self._objective}"]

    def scores(self, found: Tuned | None) -> dict[str, Tensor]:
        """What the tuned decoder scores on images that had no part in choosing it, and its gain on argmax, by name.

        Where argmax is kept, it is argmax's score, and 0; without any image NaN. Float64.
        """
        if found is None:
            return {name: torch.tensor(torch.nan, dtype=torch.float64) for name in self.names}
        score, level = self._objective.split("_")
        chosen = ARGMAX if found.decoder.is_argmax else CHOSEN
        tuned, argmax = (found.validated.level(name, score, level) for name in (chosen, ARGMAX))
        values = (tuned, tuned - argmax)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in zip(self.names, values, strict=True)}


def _name_of_all(suffix: str, name: str) -> str:
    """The name of an image among those of all dataloaders."""
    return f"{suffix}/{name}".strip("/")


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
