"""What evaluations give: logged values, warnings, a report; and what two callbacks must not both give."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.calibration.temperature import warn_if_softened, warn_if_unsure
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison import Recorder
from rankseg_plugins.comparison.facts import collect_facts
from rankseg_plugins.comparison.telling.trust import describe_trust
from rankseg_plugins.core.inputs.options import suggest
from rankseg_plugins.core.inputs.probabilities import to_probabilities
from rankseg_plugins.lightning._toolkit import LightningModule, Trainer, rank_zero_warn
from rankseg_plugins.lightning.deciding import Decision
from rankseg_plugins.lightning.reading import Decided, Task
from rankseg_plugins.report.tuning import DECODER as FILE
from rankseg_plugins.report.writing import check_report

#: The decisions, in reports and in logged names.
BASELINE, DECODER = "argmax", "RankSEG"
SKIPPED = "skipped"
#: What a report is told beside the task: where it goes, and options of a Recorder.
FOLDER, BLOCKS = "folder", ("extra", "risk_coverage", "panels")
#: What stands before a level in logged names: RankSEG itself, argmax and the difference.
DECISIONS = ((), (BASELINE,), ("gain",))


class Log:
    """Under which names a callback logs its values, and what it logged last.

    Args:
        prefix: the middle of the names.
        prog_bar: show the first score and its gain in the progress bar.

    Attributes:
        prefix: likewise, without slashes around it.
        prog_bar: likewise.
        scores_of_stage: the last values of each stage by name, as floats.

    Raises:
        ValueError: if ``prefix`` is no name.

    Example:
        >>> Log("rankseg").name("test", "gain", "dice_image", suffix="/night")
        'test/rankseg/gain/dice_image/night'
    """

    def __init__(self, prefix: str, prog_bar: bool = False) -> None:
        if not isinstance(prefix, str) or not prefix.strip("/"):
            raise ValueError(f"prefix must be a name, got {prefix!r}")
        self.prefix, self.prog_bar = prefix.strip("/"), prog_bar
        self.scores_of_stage: dict[str, dict[str, float]] = {}

    def __str__(self) -> str:
        return f"RankSEGCallback(prefix={self.prefix!r})"

    def name(self, stage: str, *parts: str, suffix: str = "") -> str:
        """The name of a value."""
        return "/".join((stage, self.prefix, *parts)) + suffix

    def names(self, stage: str, levels: Iterable[str], suffix: str) -> list[str]:
        """Of what is logged of one dataloader."""
        scores = [(*decision, level) for level in levels for decision in DECISIONS]
        return [self.name(stage, *parts, suffix=suffix) for parts in (*scores, (SKIPPED,))]

    def scores(self, stage: str, suffix: str, decided: dict[str, Tensor], argmax: dict[str, Tensor]) -> dict[str, Any]:
        """The scores of one dataloader, and what RankSEG gains, by name."""
        values = {}
        for level, value in decided.items():
            trio = (value, argmax[level], value - argmax[level])
            for decision, number in zip(DECISIONS, trio, strict=True):
                values[self.name(stage, *decision, level, suffix=suffix)] = number
        return values

    def shown(self, stage: str, levels: Sequence[str], suffixes: Iterable[str]) -> set[str]:
        """Names of what the progress bar shows, if it shows anything: of each dataloader the first score and its gain.

        All of them would fill the screen. The image level goes before others: it is what RankSEG decides for.

        Args:
            stage: ``"val"`` or ``"test"``.
            levels: all that are logged.
            suffixes: of the dataloaders.

        Example:
            >>> sorted(Log("rankseg", prog_bar=True).shown("val", ["dice_dataset", "dice_image", "iou_image"], [""]))
            ['val/rankseg/dice_image', 'val/rankseg/gain/dice_image']
        """
        level = next((each for each in levels if each.endswith("_image")), levels[0])
        decisions = ((), ("gain",)) if self.prog_bar else ()
        return {self.name(stage, *parts, level, suffix=suffix) for suffix in suffixes for parts in decisions}

    def write(self, module: LightningModule, stage: str, values: Mapping[str, Tensor], shown: Collection[str]) -> None:
        """Log values, which are those of all processes; some are shown in the progress bar."""
        for name, value in values.items():
            # Max leaves equal values as they are, to the last digit.
            alike: dict[str, Any] = dict(reduce_fx="max", sync_dist=True, add_dataloader_idx=False, batch_size=1)
            module.log(name, value, prog_bar=name in shown, **alike)
        self.scores_of_stage[stage] = {name: float(value) for name, value in values.items()}


class Warner:
    """Warns once of each thing: the next epoch would only say the same. One process warns for all."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        # Whether an image was looked at, and whether that, or all of them, gave reason to warn.
        self._looked = self._told = False

    def start(self, trainer: Trainer) -> None:
        """Leave the probabilities to the first process."""
        self._looked |= not trainer.is_global_zero

    def once(self, topic: str, message: str) -> None:
        """Warn, unless the topic was warned of."""
        if topic not in self._said:
            self._said.add(topic)
            rank_zero_warn(message)

    def look_at(self, logits: Tensor, activation: str) -> None:
        """Warn, by the first image, of probabilities on which RankSEG loses."""
        if len(logits) and not self._looked:
            self._looked, self._told = True, warn_if_softened(logits[:1], activation)

    def look_back(self, measured: Calibration | None, num_classes: int) -> None:
        """Warn, by all images, of probabilities on which RankSEG loses; for the first process."""
        if measured is not None and not self._told:
            self._told = warn_if_unsure(measured, num_classes)


class Report:
    """Keeps the counts of every image, and writes the comparison of all processes, for each dataloader.

    Args:
        report: folder of the reports of all stages, or a dict with the ``folder`` and some of ``BLOCKS``.
        task: what is segmented.

    Raises:
        TypeError: if it is neither, or a block is of the wrong type.
        ValueError: if the folder is missing or a file, or for a block that is unknown or not allowed.
        ImportError: if a package is not installed.
        OSError: if the folder cannot be made.
    """

    def __init__(self, report: str | os.PathLike[str] | Mapping[str, Any], task: Task) -> None:
        blocks = dict(report) if isinstance(report, Mapping) else {FOLDER: report}
        for name in blocks:
            if name not in (FOLDER, *BLOCKS):
                raise ValueError(f"unknown key {name!r} in report, {suggest(str(name), (FOLDER, *BLOCKS))}")
        if FOLDER not in blocks:
            raise ValueError(f"report must say its {FOLDER!r}, got {report!r}")
        self.folder, self._task = check_report(blocks.pop(FOLDER)), task
        self._options = {**task.options, **blocks}
        Recorder(**self._options)  # refuses them before any image
        self._recorders: dict[str, Recorder] = {}

    def start(self, suffixes: Iterable[str], decision: Decision) -> None:
        """Begin anew, for dataloaders whose names of values end like this."""
        decoders = {BASELINE: decision.baseline, DECODER: decision.decoder}
        # The callback warns, once for all evaluations.
        self._recorders = {suffix: Recorder(decoders, warn=False, **self._options) for suffix in suffixes}

    def add(self, batch: Decided) -> None:
        """Keep what a batch scored."""
        recorder = self._recorders[batch.suffix]
        for image in batch:
            decisions, presence, probs = (image.argmax, image.decided), (None, image.presence), None
            if recorder.expected is not None:
                probs = to_probabilities(image.logits[None], batch.images.activation)[0]
            recorder.add_decided(image.name, image.truth, decisions, probs, image.case, image.calibration, presence)

    def write(
        self, trainer: Trainer, stage: str, suffix: str, skipped: Mapping[str, str], warner: Warner
    ) -> str | None:
        """Bring the images of all processes together; the first process writes, unless there is no image.

        To be called on each of them.

        Args:
            trainer: that evaluates.
            stage: the evaluation.
            suffix: of the dataloader.
            skipped: its images of all processes that are left out, and why.
            warner: warns of probabilities on which RankSEG loses.

        Returns:
            The verdict, and which images can be trusted if that was asked for; None in other processes, and without any
            image.
        """
        recorder = self._recorders.pop(suffix)
        recorder.gather()
        recorder.skipped = dict(skipped)
        if not trainer.is_global_zero or not recorder.measurements:
            return None
        decoder = " ".join(repr(recorder.decoders[DECODER]).split())
        run = f"{stage}, epoch {trainer.current_epoch}, step {trainer.global_step}"
        facts: dict[str, Any] = {**collect_facts(), DECODER: decoder, "evaluated": run}
        comparison = recorder.comparison(self._task.class_names, facts=facts)
        comparison.report(self.folder / stage / suffix.strip("/"))
        warner.look_back(recorder.calibration, recorder.num_classes)
        return " ".join(filter(None, (comparison.verdict(DECODER).sentence, describe_trust(comparison, DECODER))))

    def save(self, decoder: TunedDecoder) -> None:
        """Write a tuned decoder beside the reports."""
        decoder.save(self.folder / FILE)


@dataclass(frozen=True)
class Claims:
    """What a callback gives, and no other of the same Trainer may give.

    Args:
        prefix: for messages.
        names: that it may log in each stage.
        report: folder of its reports.
        predict_labels: key of its labels in predictions.
    """

    prefix: str
    names: Mapping[str, set[str]]
    report: Path | None
    predict_labels: str | int | None

    def check(self, other: Claims) -> None:
        """Refuse another callback of which one would overwrite what the other gives.

        Raises:
            ValueError: if a logged name, the folder of the report or ``predict_labels`` is the same.
        """
        prefixes = f"prefix={self.prefix!r} and prefix={other.prefix!r}"
        for stage, names in self.names.items():
            shared = sorted(names & other.names[stage])
            if shared:
                raise ValueError(
                    f"the RankSEGCallbacks with {prefixes} would both log {shared[0]!r}: give other prefixes"
                )
        if self.report is not None and other.report is not None and self.report.resolve() == other.report.resolve():
            raise ValueError(
                f"the RankSEGCallbacks with {prefixes} need two folders, both have report={str(self.report)!r}"
            )
        if self.predict_labels is not None and self.predict_labels == other.predict_labels:
            raise ValueError(
                f"the RankSEGCallbacks with {prefixes} need two keys, both have predict_labels={self.predict_labels!r}"
            )
