"""A Lightning callback that scores argmax and RankSEG side by side while a model is validated or tested."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rankseg_plugins.comparison import Scoring
from rankseg_plugins.core import RankSEG
from rankseg_plugins.lightning._toolkit import Callback, LightningModule, Trainer
from rankseg_plugins.lightning.deciding import Decision
from rankseg_plugins.lightning.figures import Drawing
from rankseg_plugins.lightning.loaders import Dataloaders, Loaders
from rankseg_plugins.lightning.reading import Reader, Task
from rankseg_plugins.lightning.reporting import Log, Report, Warner
from rankseg_plugins.lightning.running import Plan, Run, Scores
from rankseg_plugins.lightning.sources import LabelKey, Source, Step
from rankseg_plugins.lightning.tuning import Tuning
from rankseg_plugins.torchmetrics import MultiLevelScore
from rankseg_plugins.tuning.tuner import Tuned


class RankSEGCallback(Callback):
    """Decode every validation and test batch with argmax and with RankSEG, and log both scores and the difference.

    For the stages ``val`` and ``test`` it logs, for every score and level::

        {stage}/{prefix}/dice_image            RankSEG
        {stage}/{prefix}/argmax/dice_image     argmax (one-channel and multilabel models: threshold 0.5)
        {stage}/{prefix}/gain/dice_image       RankSEG minus argmax

    so that ``ModelCheckpoint(monitor="val/rankseg/dice_image", mode="max")`` works. With several dataloaders each name
    ends in ``/dataloader_idx_0``, ... as Lightning's own. The sanity check is not scored, only checked for logits,
    targets and what else is looked for. With several processes the scores are those of one process: images that
    Lightning's sampler repeats to even out the processes count once.

    Images for which the network gives NaN or infinite values are left out of both decoders' scores, the report
    and the tuning. A warning names them once, ``{stage}/{prefix}/skipped`` is their number.

    A decoder that learns, such as ``GlobalRankSEG``, takes up what a checkpoint holds of it. One that is fitted when it
    is given stays as it is, as every decoder does where the checkpoint is of another; a warning says so.

    Args:
        decoder: the decision to compare with argmax, e.g. ``RankSEG(metric="dice")``, or the path of the file of a
            ``TunedDecoder``. With ``tune`` it decides until the first validation has ended, and after loading a
            checkpoint without a tuned decoder; None is argmax then.
        num_classes: C; 1 for one-channel models.
        logits: where the network's output (B, C, *spatial) is: a key (or attribute, or tuple index) of what the step
            returned, a pair such as ``("batch", "logits")``, or a callable ``(outputs, batch) -> tensor``.
        target: where the truth is: labels (B, *spatial) or (B, 1, *spatial), or masks (B, C, *spatial). With one
            channel the labels are 0 and 1. A key, attribute or index of what the step returned or else of the batch;
            a pair, ``("outputs", 1)`` or ``("batch", 1)``, that says of which; or a callable. An index that leads to
            different things in both is refused; of a key that does, the step's is taken, with a warning.
        activation: what turns logits into probabilities: ``"softmax"``, ``"sigmoid"``, ``"normalize"`` or
            ``"identity"``. What a step returns under ``"logits"`` is usually what its loss takes, hence the default;
            probabilities are told by a warning.
        ignore_index: label of the truth whose pixels do not count.
        scores: any of ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"``.
        levels: any of ``"dataset"``, ``"image"``, ``"class"``; see
            ``MultiLevelScore``.
        absent: what a class counts that neither truth nor prediction hold: ``"skip"``, ``"zero"`` or ``"one"``.
        worst: share or shares in (0, 1] of the lowest scores for worst-case levels, such as ``dice_image_worst5``.
        prefix: the middle of the names; two callbacks with different decoders need different prefixes.
        prog_bar: show the first of ``scores`` and its gain in the progress bar, at image level if that is logged.
        dataloaders: indices of the dataloaders to score, or a mapping of indices to names that replace
            ``dataloader_idx_...``. None scores all.
        log_images: draw the N images of each dataloader that RankSEG changes most (image, truth, argmax, RankSEG,
            difference) for every logger that takes images or figures; needs matplotlib. 0 draws none.
        image: where the input images (B, K, *spatial) are. None takes the item ``"image"``
            of a dict batch, or the first of a tuple; otherwise as for ``target``. Looked at only with ``log_images``.
        predict_labels: key under which ``Trainer.predict`` outputs get the decided labels or masks: a new one, or that
            of the logits, which they replace. Of a list it is the index of the item to replace. The predict step must
            return a dict or list. None leaves the outputs alone.
        report: folder for reports of the comparison (see ``Comparison``): each evaluation replaces
            ``<report>/<stage>``, or ``<report>/<stage>/<dataloader>`` with several dataloaders. The first of ``scores``
            decides what is better. Images are called by their place in the dataloader (``000000``, ...), the same for
            any number of processes; the repetitions with which PyTorch's and Lightning's distributed samplers even out
            the processes are left out. Two callbacks need two folders. A dict with the ``folder`` may ask for more, as
            ``Recorder`` takes it: ``risk_coverage``, ``extra`` scores that need no size of pixels, and a number of
            ``panels``.
        class_names: C names of the classes in the report; None numbers them.
        cases: where the cases of the images are, as for ``target``: a sequence of B names, such as the patients of
            slices. The intervals of report and tuning count cases. None: every image is a case of its own.
        tune: True, or a dict of options of ``Tuner`` (``objective``, ``temperatures``, ``pruning_probs``, ``metrics``,
            ``solvers``, ``folds``, ``min_cases``, ``keep``) and of its ``finish`` (``confidence``, ``seed``): at the
            end of every validation, a decoder is chosen on the images of all scored dataloaders, and decides from then
            on, also in test and predict. Argmax is kept unless a gain is likely. The objective is the first of
            ``scores`` at image level unless given. ``val/{prefix}/tuned/{objective}`` is its score on images that had
            no part in choosing, and ``val/{prefix}/tuned_gain/{objective}`` that minus argmax; the other values of that
            validation are those of the decoder before. Checkpoints hold the decoder of the last validation, and the
            step of its weights.

    Attributes:
        decoder: the decision in force.
        baseline: argmax, or the threshold 0.5, which the decision is compared with.
        tuned: what the last tuning found, with all candidates; None before.
        scores_of_stage: the last scores of each stage by logged name, as floats; part of checkpoints.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is unknown, out of range or does not fit the others.
        ImportError: if ``log_images``, ``report`` or ``tune`` needs a package that is not installed.
        OSError: if the folder of the report cannot be made, or the file of the decoder not be read.

    Example:
        >>> from rankseg_plugins import RankSEG
        >>> RankSEGCallback(RankSEG(metric="dice"), num_classes=3, target=1).names("val")[:3]
        ['val/rankseg/dice_dataset', 'val/rankseg/argmax/dice_dataset', 'val/rankseg/gain/dice_dataset']
    """

    def __init__(
        self,
        decoder: torch.nn.Module | str | os.PathLike[str] | None = None,
        *,
        num_classes: int,
        logits: Source = "logits",
        target: Source = "target",
        activation: str = "softmax",
        ignore_index: int | None = None,
        scores: Sequence[str] = ("dice", "iou"),
        levels: Sequence[str] = ("dataset", "image", "class"),
        absent: str = "skip",
        worst: float | Sequence[float] | None = None,
        prefix: str = "rankseg",
        prog_bar: bool = False,
        dataloaders: Dataloaders = None,
        log_images: int = 0,
        image: Source | None = None,
        predict_labels: str | int | None = None,
        report: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        cases: Source | None = None,
        tune: bool | Mapping[str, Any] = False,
    ) -> None:
        super().__init__()
        tunes = tune is not False
        decision = Decision(decoder, num_classes, activation, tunes)
        log, loaders = Log(prefix, prog_bar), Loaders(dataloaders)
        drawing, labels = Drawing(log_images), LabelKey(predict_labels)
        score = MultiLevelScore(num_classes, scores, levels, ignore_index, absent, worst)
        task = Task(num_classes, ignore_index, Scoring(score.scores[0], absent=absent), class_names)
        reader = Reader(
            task, activation, logits=logits, target=target, cases=cases, image=image, pictures=log_images > 0
        )
        self._plan = Plan(
            decision=decision,
            task=task,
            reader=reader,
            loaders=loaders,
            scores=Scores(score),
            log=log,
            drawing=drawing,
            report=None if report is None else Report(report, task),
            tuning=Tuning(tune, task, decision.output_mode) if tunes else None,
            labels=labels,
            warner=Warner(),
        )
        self._run = Run()

    @property
    def decoder(self) -> Any:
        """The decision in force."""
        return self._plan.decision.decoder

    @property
    def baseline(self) -> RankSEG:
        """Argmax, or the threshold 0.5."""
        return self._plan.decision.baseline

    @property
    def prefix(self) -> str:
        """The middle of the names."""
        return self._plan.log.prefix

    @property
    def num_classes(self) -> int:
        """As it was given, like those that follow."""
        return self._plan.task.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Or numbers, where none were given."""
        return tuple(self._plan.task.class_names or ())

    @property
    def prog_bar(self) -> bool:
        """Whether the first score is in the progress bar."""
        return self._plan.log.prog_bar

    @property
    def dataloaders(self) -> dict[int, str] | None:
        """Names of those that are scored, by index; None for all."""
        return self._plan.loaders.names

    @property
    def log_images(self) -> int:
        """Number of pictures."""
        return self._plan.drawing.count

    @property
    def predict_labels(self) -> str | int | None:
        """Where the labels of predictions go."""
        return self._plan.labels.key

    @property
    def report(self) -> Path | None:
        """Folder of the reports."""
        return None if self._plan.report is None else self._plan.report.folder

    @property
    def tuned(self) -> Tuned | None:
        """What the last tuning found."""
        return None if self._plan.tuning is None else self._plan.tuning.found

    @property
    def scores_of_stage(self) -> dict[str, dict[str, float]]:
        """The last scores of each stage by logged name."""
        return self._plan.log.scores_of_stage

    @property
    def state_key(self) -> str:
        """Tells callbacks with different prefixes apart in a checkpoint."""
        return self._generate_state_key(prefix=self.prefix)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: the last scores, and the tuned decoder, or what another has learnt if it learns."""
        return {"scores_of_stage": self.scores_of_stage, **self._plan.decision.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint, as far as it fits the decoder that was given; see the class."""
        self._plan.log.scores_of_stage = state_dict["scores_of_stage"]
        self._plan.decision.load(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse callbacks that overwrite what another gives, and know of no checkpoint yet."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # missing in the stubs
            if isinstance(other, RankSEGCallback) and other is not self:
                self._plan.claims().check(other._plan.claims())
        self._plan.decision.start(self.state_key)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Know that Lightning restores by itself, where the checkpoint knows of this callback."""
        self._plan.decision.on_load_checkpoint(checkpoint)

    def names(self, stage: str, suffix: str = "") -> list[str]:
        """Every name logged for a stage (``"val"`` or ``"test"``), with the suffix of one dataloader.

        Example:
            >>> from rankseg_plugins import RankSEG
            >>> RankSEGCallback(RankSEG(), num_classes=3, scores=["iou"], levels=["image"]).names("test", "/rain")[:2]
            ['test/rankseg/iou_image/rain', 'test/rankseg/argmax/iou_image/rain']
        """
        return self._plan.names(stage, suffix)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero."""
        self._run = self._plan.evaluate(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero."""
        self._run = self._plan.evaluate(trainer, pl_module, "test")

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the decoder where the outputs will be."""
        self._run = self._plan.predict(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Decode and count one batch."""
        self._run.add(trainer, Step("validation_step", outputs, batch, batch_idx, dataloader_idx))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Decode and count one batch."""
        self._run.add(trainer, Step("test_step", outputs, batch, batch_idx, dataloader_idx))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the decided labels into the outputs, if asked to."""
        self._run.add(trainer, Step("predict_step", outputs, batch, batch_idx, dataloader_idx))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of all processes."""
        self._finish(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of all processes."""
        self._finish(trainer, pl_module)

    def _finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run, self._run = self._run, Run()
        run.finish(trainer, pl_module)
