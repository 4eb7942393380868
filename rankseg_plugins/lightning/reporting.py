"""What the report of one dataloader needs, collected while a Trainer evaluates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.evaluation import Recorder, Scoring
from rankseg_plugins.evaluation.facts import collect_facts
from rankseg_plugins.lightning._toolkit import Trainer

BASELINE, DECODER = "argmax", "RankSEG"


class LoaderReport:
    """Keeps the counts of every image of one dataloader, and writes the comparison of all processes.

    Args:
        decoder: the decision to compare with argmax.
        baseline: argmax, or the threshold 0.5.
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.
        scoring: what counts as better.
        trainer: whose process and number of processes the names of the images follow from.
    """

    def __init__(
        self,
        decoder: Callable[[Tensor], Tensor],
        baseline: Callable[[Tensor], Tensor],
        num_classes: int,
        ignore_index: int | None,
        scoring: Scoring,
        trainer: Trainer,
    ) -> None:
        self.trainer = trainer
        self.decoder = decoder
        decoders = {BASELINE: baseline, DECODER: decoder}
        self._recorder = Recorder(decoders, num_classes=num_classes, ignore_index=ignore_index, scoring=scoring)

    def add(self, probs: Tensor, target: Tensor, argmax: Tensor, decided: Tensor) -> None:
        r"""Keep what a batch scored; each tensor holds the same B images.

        Args:
            probs: (B, C, \*spatial) probabilities.
            target: truth in any form that the callback takes.
            argmax: the baseline's labels (B, \*spatial) or masks (B, C, \*spatial).
            decided: RankSEG's, likewise.
        """
        # CUDA has no deterministic kernel for the weighted counts of the calibration, and would raise.
        probs = probs.cpu() if torch.are_deterministic_algorithms_enabled() else probs
        for image_probs, truth, *decisions in zip(probs, target, argmax, decided, strict=True):
            # Samplers deal images out in turn: the place in the dataloader, for any number of processes.
            place = self.trainer.global_rank + self.trainer.world_size * len(self._recorder.measurements)
            self._recorder.add_decided(f"{place:06d}", truth, decisions, image_probs)

    def write(self, folder: Path, class_names: Sequence[str] | None, stage: str) -> None:
        """Bring the images of all processes together; the first process writes, unless there is no image.

        To be called on each of them.
        """
        self._recorder.gather()
        if not self.trainer.is_global_zero or not self._recorder.measurements:
            return
        decoder = " ".join(repr(self.decoder).split())
        run = f"{stage}, epoch {self.trainer.current_epoch}, step {self.trainer.global_step}"
        facts: dict[str, Any] = {**collect_facts(), DECODER: decoder, "evaluated": run}
        self._recorder.comparison(class_names, facts=facts).report(folder)
