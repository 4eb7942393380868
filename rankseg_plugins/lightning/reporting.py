"""What the report of one dataloader needs, collected while a Trainer evaluates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.calibration.temperature import warn_if_unsure
from rankseg_plugins.comparison import Recorder, Scoring
from rankseg_plugins.comparison.facts import collect_facts
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
    """

    def __init__(
        self,
        decoder: Callable[[Tensor], Tensor],
        baseline: Callable[[Tensor], Tensor],
        num_classes: int,
        ignore_index: int | None,
        scoring: Scoring,
    ) -> None:
        self.decoder = decoder
        decoders = {BASELINE: baseline, DECODER: decoder}
        # The callback warns, once for all evaluations.
        self._recorder = Recorder(
            decoders, num_classes=num_classes, ignore_index=ignore_index, scoring=scoring, warn=False
        )

    def add(
        self,
        names: Sequence[str],
        cases: Sequence[str | None],
        calibrations: Sequence[Calibration],
        target: Tensor,
        argmax: Tensor,
        decided: Tensor,
    ) -> None:
        r"""Keep what a batch scored; each argument holds the same B images.

        Args:
            names: of the images.
            cases: see :class:`~rankseg_plugins.comparison.Sample`.
            calibrations: of the probabilities.
            target: truth in any form that the callback takes.
            argmax: the baseline's labels (B, \*spatial) or masks (B, C, \*spatial).
            decided: RankSEG's, likewise.
        """
        images = zip(names, cases, calibrations, target, argmax, decided, strict=True)
        for name, case, measured, truth, *decisions in images:
            self._recorder.add_decided(name, truth, decisions, case=case, calibration=measured)

    def write(
        self,
        folder: Path,
        class_names: Sequence[str] | None,
        stage: str,
        trainer: Trainer,
        skipped: Mapping[str, str],
        quiet: bool = False,
    ) -> bool:
        """Bring the images of all processes together; the first process writes, unless there is no image.

        To be called on each of them.

        Args:
            folder: of the report.
            class_names: C names; None numbers the classes.
            stage: the evaluation.
            trainer: that evaluates.
            skipped: images of all processes that are left out, and why.
            quiet: do not warn of probabilities on which RankSEG loses.

        Returns:
            Whether it warned.
        """
        self._recorder.gather()
        self._recorder.skipped = dict(skipped)
        if not trainer.is_global_zero or not self._recorder.measurements:
            return False
        decoder = " ".join(repr(self.decoder).split())
        run = f"{stage}, epoch {trainer.current_epoch}, step {trainer.global_step}"
        facts: dict[str, Any] = {**collect_facts(), DECODER: decoder, "evaluated": run}
        self._recorder.comparison(class_names, facts=facts).report(folder)
        measured = self._recorder.calibration
        return not quiet and measured is not None and warn_if_unsure(measured, self._recorder.num_classes)
