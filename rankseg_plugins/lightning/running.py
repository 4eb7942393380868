"""What is done with the batches of a validation, a test or a prediction, from the first to the last."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from rankseg_plugins.calibration.deciding import decide
from rankseg_plugins.comparison.sample import describe_form
from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.lightning._toolkit import LightningModule, Trainer, rank_zero_info
from rankseg_plugins.lightning.deciding import Decision
from rankseg_plugins.lightning.figures import Drawing
from rankseg_plugins.lightning.loaders import Loader, Loaders
from rankseg_plugins.lightning.reading import Decided, Images, Reader, Task, check_finite
from rankseg_plugins.lightning.reporting import SKIPPED, Claims, Log, Report, Warner
from rankseg_plugins.lightning.sources import LabelKey, Step
from rankseg_plugins.lightning.tuning import Tuning
from rankseg_plugins.report.words import describe_left_out
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.scores.shown import LeftOut, left_out
from rankseg_plugins.scores.truth import count_known
from rankseg_plugins.torchmetrics import MultiLevelScore


class Scores:
    """Measures both decisions on each dataloader.

    Args:
        score: never updated itself, but copied for each dataloader and decoder.
    """

    def __init__(self, score: MultiLevelScore) -> None:
        self._score = score
        self._kept: dict[str, tuple[MultiLevelScore, MultiLevelScore]] = {}
        self._left_out: dict[str, LeftOut] = {}

    @property
    def names(self) -> list[str]:
        """Of the levels."""
        return self._score.names

    def start(self, suffixes: Iterable[str], device: torch.device) -> None:
        """Begin anew, for dataloaders whose names of values end like this."""
        score = self._score.to(device)
        self._kept = {suffix: (copy.deepcopy(score), copy.deepcopy(score)) for suffix in suffixes}
        none = torch.zeros(score.num_classes, dtype=torch.int64, device="cpu")
        self._left_out = {suffix: LeftOut(none, none, none) for suffix in self._kept}

    def add(self, batch: Decided) -> None:
        """Count a batch."""
        score, baseline = self._kept[batch.suffix]
        score.update(batch.decided, batch.images.target)
        baseline.update(batch.argmax, batch.images.target)
        decisions, options = (batch.argmax, batch.decided), (score.num_classes, score.ignore_index)
        found = left_out(*(count_known(each, batch.images.target, *options) for each in decisions))
        self._left_out[batch.suffix] = self._left_out[batch.suffix].plus(LeftOut(*(each.cpu() for each in found)))

    def left_out(self) -> dict[str, LeftOut]:
        """Classes of all processes that argmax shows and RankSEG does not, by dataloader; each process must call it."""
        return {suffix: reduce(LeftOut.plus, gather(found)) for suffix, found in self._left_out.items()}

    def finish(self, stage: str, log: Log) -> dict[str, Tensor]:
        """The scores of all processes by logged name; each process must call it."""
        values: dict[str, Tensor] = {}
        kept, self._kept = self._kept, {}
        for suffix, (score, baseline) in kept.items():
            values |= log.scores(stage, suffix, score.compute(), baseline.compute())
        return values


@dataclass(frozen=True)
class Plan:
    """What a callback was asked for: one object for each concern, which has checked its own options.

    Args:
        decision: what decides.
        task: what is segmented.
        reader: where the images are.
        loaders: which dataloaders are scored.
        scores: what is measured.
        log: what is logged.
        drawing: what is drawn.
        report: what is written; None writes nothing.
        tuning: what is tuned; None tunes nothing.
        labels: where the labels of predictions go.
        warner: what was warned of.
    """

    decision: Decision
    task: Task
    reader: Reader
    loaders: Loaders
    scores: Scores
    log: Log
    drawing: Drawing
    report: Report | None
    tuning: Tuning | None
    labels: LabelKey
    warner: Warner

    def names(self, stage: str, suffix: str = "") -> list[str]:
        """Every name logged for a stage, with the suffix of one dataloader."""
        tuned = self.tuning.names if self.tuning is not None and stage == "val" else ()
        return self.log.names(stage, self.scores.names, suffix) + [self.log.name(stage, name) for name in tuned]

    def claims(self) -> Claims:
        """What no other callback may give."""
        suffixes = self.loaders.possible_suffixes()
        names = {
            stage: {name for suffix in suffixes for name in self.names(stage, suffix)} for stage in ("val", "test")
        }
        return Claims(self.log.prefix, names, None if self.report is None else self.report.folder, self.labels.key)

    def prepare(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Have the decoder ready before the first batch."""
        self.decision.prepare(trainer, module.device, stage)
        self.warner.start(trainer)

    def evaluate(self, trainer: Trainer, module: LightningModule, stage: str) -> Run:
        """Begin a validation or test."""
        return Rehearsal(self) if trainer.sanity_checking else Evaluation(self, trainer, module, stage)

    def predict(self, trainer: Trainer, module: LightningModule) -> Run:
        """Begin a prediction."""
        return Run() if self.labels.key is None else Prediction(self, trainer, module)


class Run:
    """What is done with the batches of a Trainer; this one does nothing."""

    def add(self, trainer: Trainer, step: Step) -> None:
        """Take up a batch."""

    def finish(self, trainer: Trainer, module: LightningModule) -> None:
        """Know that all batches were there."""


class Rehearsal(Run):
    """A sanity check: logits, targets and what else is looked for must be there, but nothing is scored."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def add(self, trainer: Trainer, step: Step) -> None:
        """Read a batch."""
        # A step may return nothing here, as there is nothing to score; what it returns is to be what is needed.
        if step.outputs is not None and step.dataloader_idx in self._plan.loaders:
            with naming(f"{self._plan.log}, {step}"):
                self._plan.reader.read(step)


class Prediction(Run):
    """Puts the decided labels into what ``predict_step`` returns."""

    def __init__(self, plan: Plan, trainer: Trainer, module: LightningModule) -> None:
        self._plan = plan
        plan.prepare(trainer, module, "predict")

    def add(self, trainer: Trainer, step: Step) -> None:
        """Decide a batch."""
        plan = self._plan
        plan.labels.check(step, plan.reader.logits)
        with naming(f"{plan.log}, {step}"):
            logits, activation = plan.reader.find_logits(step), plan.reader.activation
            plan.warner.look_at(logits, activation)
            check_finite(logits, activation, [f"image {index} of the batch" for index in range(len(logits))])
            step.outputs[plan.labels.key] = decide(plan.decision.decoder, logits, activation)


class Evaluation(Run):
    """A validation or test: every batch is decided twice, and handed to those who keep something of it."""

    def __init__(self, plan: Plan, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._plan, self._stage = plan, stage
        self._tuning = plan.tuning if stage == "val" else None
        plan.prepare(trainer, module, stage)
        self._loaders = plan.loaders.running(trainer, stage)
        # All of them now, on every process: one that never gets an image must still take part in adding up.
        suffixes = [loader.suffix for loader in self._loaders.values()]
        plan.scores.start(suffixes, module.device)
        plan.drawing.start(suffixes)
        if plan.report is not None:
            plan.report.start(suffixes, plan.decision)
        if self._tuning is not None:
            self._tuning.start(module.device)

    def add(self, trainer: Trainer, step: Step) -> None:
        """Decide and count a batch."""
        loader, plan = self._loaders.get(step.dataloader_idx), self._plan
        if loader is None:
            return
        with naming(f"{plan.log}, {step}"):
            images = plan.reader.read(step)
            plan.warner.look_at(images.logits, images.activation)
            images = loader.take(images, step, trainer)
            if images.names:
                self._count(images, loader)

    def _count(self, images: Images, loader: Loader) -> None:
        plan = self._plan
        decided, presence = images.decide(plan.decision.decoder)
        argmax, _ = images.decide(plan.decision.baseline)
        problem = describe_form(images.logits, images.activation, images.target, decided)
        if problem is not None:
            plan.warner.once("form", problem)
        batch = Decided(plan.task, images, argmax, decided, loader.suffix, presence)
        for keeper in (plan.scores, plan.report, plan.drawing, self._tuning):
            if keeper is not None:
                keeper.add(batch)

    def finish(self, trainer: Trainer, module: LightningModule) -> None:
        """Log, draw and write what all processes have found; each of them must call it."""
        if not self._loaders:
            return
        plan, stage = self._plan, self._stage
        for loader in self._loaders.values():
            loader.gather()
        scores = plan.scores.finish(stage, plan.log)
        if self._tuning is not None:
            scores |= self._tune(self._tuning, trainer, module)
        shown = plan.log.shown(stage, plan.scores.names, [loader.suffix for loader in self._loaders.values()])
        plan.log.write(module, stage, {**scores, **dict(self._skipped(module.device))}, shown)
        for suffix, found in plan.scores.left_out().items():
            said = describe_left_out(found, tuple(plan.task.class_names or ()), "RankSEG")
            if said is not None:
                plan.warner.once("left out", f"{plan.log}, {stage}{suffix}: {said}")
        plan.drawing.write(trainer, stage, plan.log, plan.warner)
        if plan.report is not None:
            for loader in self._loaders.values():
                verdict = plan.report.write(trainer, stage, loader.suffix, loader.skipped, plan.warner)
                if verdict is not None:
                    rank_zero_info(f"{plan.log.name(stage, suffix=loader.suffix)}: {verdict}")

    def _tune(self, tuning: Tuning, trainer: Trainer, module: LightningModule) -> dict[str, Tensor]:
        """Put the decoder in force that was chosen on this validation; returns what to log of it."""
        plan = self._plan
        found = tuning.finish({loader.suffix: loader.skipped for loader in self._loaders.values()})
        if found is not None:
            plan.decision.tuned(found.decoder.to(module.device), trainer)
            if trainer.is_global_zero:
                plan.warner.look_back(found.comparison.calibration, plan.task.num_classes)
            rank_zero_info(f"{plan.log.name('val')}, tuned on {len(found.comparison.names)} images: {found.verdict}")
            if trainer.is_global_zero and plan.report is not None:
                plan.report.save(found.decoder)
        return {plan.log.name("val", name): value.to(module.device) for name, value in tuning.scores(found).items()}

    def _skipped(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """How many images of each dataloader are left out, by logged name; warns, once, if there are any."""
        log, stage = self._plan.log, self._stage
        for loader in self._loaders.values():
            name = log.name(stage, SKIPPED, suffix=loader.suffix)
            yield name, torch.tensor(float(len(loader.skipped)), device=device)
            if loader.skipped:
                said = f"{log}, {stage}{loader.suffix}: {loader.left_out()}"
                self._plan.warner.once(SKIPPED, f"{said}. Every evaluation logs their number as {name!r}")
