"""A Lightning callback that scores argmax and RankSEG side by side while a model is validated or tested."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.probabilities import ACTIVATIONS, check_choice, check_shape, to_probabilities
from rankseg_plugins.evaluation import Scoring
from rankseg_plugins.evaluation.calibration import Calibration
from rankseg_plugins.evaluation.checks import check_report
from rankseg_plugins.evaluation.measuring import calibrate
from rankseg_plugins.evaluation.recording import check_class_names
from rankseg_plugins.evaluation.temperature import warn_if_softened, warn_if_unsure
from rankseg_plugins.evaluation.tuned import TunedDecoder, as_decoder
from rankseg_plugins.evaluation.tuning import Tuned
from rankseg_plugins.lightning._toolkit import Callback, LightningModule, Trainer, rank_zero_info
from rankseg_plugins.lightning.figures import MostChanged, label_maps, log_examples
from rankseg_plugins.lightning.loaders import (
    Dataloaders,
    LoaderScores,
    check_dataloaders,
    new_images,
    running_loaders,
    suffixes,
)
from rankseg_plugins.lightning.options import check_count, check_key, check_one_channel, output_mode, starting_decoder
from rankseg_plugins.lightning.reporting import BASELINE, LoaderReport
from rankseg_plugins.lightning.sources import Source, check_source, describe, find_cases, find_image, find_tensor
from rankseg_plugins.lightning.tuning import Tuning, learns, saved_state, state_of
from rankseg_plugins.torchmetrics import MultiLevelScore

GAIN = "gain"


class RankSEGCallback(Callback):
    r"""Decode every validation and test batch with argmax and with RankSEG, and log both scores and the difference.

    For the stages ``val`` and ``test`` it logs, for every score and level::

        {stage}/{prefix}/dice_image            RankSEG
        {stage}/{prefix}/argmax/dice_image     argmax (one-channel and multilabel models: threshold 0.5)
        {stage}/{prefix}/gain/dice_image       RankSEG minus argmax

    so that ``ModelCheckpoint(monitor="val/rankseg/dice_image", mode="max")`` works. With several dataloaders each name
    ends in ``/dataloader_idx_0``, ... as Lightning's own. The sanity check is left out. With several processes the
    scores are those of one process: images that Lightning's sampler repeats to even out the processes count once.

    Args:
        decoder: the decision to compare with argmax, e.g. ``RankSEG(metric="dice")``, or the path of the file of a
            :class:`~rankseg_plugins.evaluation.TunedDecoder`. With ``tune`` it decides until the first validation has
            ended, and after loading a checkpoint without a tuned decoder; None is argmax then.
        num_classes: C; 1 for one-channel models.
        logits: where the network's output (B, C, \*spatial) is: a key (or attribute, or tuple index) of what the step
            returned or else of the batch, or a callable ``(outputs, batch) -> tensor``.
        target: where the truth is, likewise: labels (B, \*spatial) or (B, 1, \*spatial), or masks (B, C, \*spatial).
            With one channel the labels are 0 and 1.
        activation: what turns logits into probabilities: ``"softmax"``, ``"sigmoid"``, ``"normalize"`` or
            ``"identity"``.
        ignore_index: label of the truth whose pixels do not count.
        scores: any of ``"dice"``, ``"iou"``, ``"precision"``, ``"recall"``.
        levels: any of ``"dataset"``, ``"image"``, ``"class"``; see
            :class:`~rankseg_plugins.torchmetrics.MultiLevelScore`.
        absent: what a class counts that neither truth nor prediction hold: ``"skip"``, ``"zero"`` or ``"one"``.
        worst: share or shares in (0, 1] of the lowest scores for worst-case levels, such as ``dice_image_worst5``.
        prefix: the middle of the names; two callbacks with different decoders need different prefixes.
        prog_bar: show the scores in the progress bar.
        dataloaders: indices of the dataloaders to score, or a mapping of indices to names that replace
            ``dataloader_idx_...``. None scores all.
        log_images: draw the N images of each dataloader that RankSEG changes most (image, truth, argmax, RankSEG,
            difference) for every logger that takes images or figures; needs matplotlib. 0 draws none.
        image: where the input images (B, K, \*spatial) are, as for ``logits``. None takes the item ``"image"``
            of a dict batch, or the first of a tuple. Looked at only with ``log_images``.
        predict_labels: key under which :meth:`Trainer.predict` outputs get the decided labels or masks. The predict
            step must return a dict or list. None leaves the outputs alone.
        report: folder for reports of the comparison (see :class:`~rankseg_plugins.evaluation.Comparison`): each
            evaluation replaces ``<report>/<stage>``, or ``<report>/<stage>/<dataloader>`` with several dataloaders.
            The first of ``scores`` decides what is better. Images are called by their place in the dataloader
            (``000000``, ...), the same for any number of processes; the repetitions with which PyTorch's and
            Lightning's distributed samplers even out the processes are left out. Two callbacks need two folders.
        class_names: C names of the classes in the report; None numbers them.
        cases: where the cases of the images are, likewise: a sequence of B names, such as the patients of slices.
            What report and tuning call certain is drawn by cases. None: every image is a case of its own.
        tune: True, or a dict of options of :class:`~rankseg_plugins.evaluation.Tuner` (``objective``,
            ``temperatures``, ``pruning_probs``, ``metrics``, ``solvers``, ``folds``, ``min_cases``) and of its
            ``finish`` (``resamples``, ``confidence``, ``seed``): at the end of every validation, a decoder is chosen
            on the images of all scored dataloaders, and decides from then on, also in test and predict. Argmax is
            kept unless the gain is certain. The objective is the first of ``scores`` at image level unless given.
            ``val/{prefix}/tuned/{objective}`` is its score on images that had no part in choosing, and
            ``val/{prefix}/tuned_gain/{objective}`` that minus argmax; the other values of that validation are those of
            the decoder before.

    Attributes:
        decoder: the decision in force.
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
        report: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        cases: Source | None = None,
        tune: bool | Mapping[str, Any] = False,
    ) -> None:
        super().__init__()
        given = starting_decoder(num_classes, activation, tune) if decoder is None else decoder
        self._given: torch.nn.Module = as_decoder(given, num_classes)
        self.decoder = self._given
        for name, source in (("logits", logits), ("target", target), ("image", image), ("cases", cases)):
            if source is not None or name in ("logits", "target"):
                check_source(name, source)
        check_choice("activation", activation, ACTIVATIONS)
        check_one_channel(self.decoder, num_classes, activation)
        if not isinstance(prefix, str) or not prefix.strip("/"):
            raise ValueError(f"prefix must be a name, got {prefix!r}")
        mode = output_mode(self.decoder)
        self.baseline = RankSEG(metric="acc", output_mode=mode)
        self.num_classes, self.activation = num_classes, activation
        self.logits, self.target, self.cases = logits, target, cases
        self.prefix, self.prog_bar = prefix.strip("/"), prog_bar
        self.dataloaders = check_dataloaders(dataloaders)
        self.log_images, self.image = check_count("log_images", log_images), image
        self.predict_labels = check_key("predict_labels", predict_labels)
        # Never updated itself: checks the options now, and is copied for each dataloader and decoder.
        self._score = MultiLevelScore(num_classes, scores, levels, ignore_index, absent, worst)
        self.class_names = check_class_names(class_names, num_classes)
        self.report = None if report is None else check_report(report)
        self._loaders: dict[int, LoaderScores] = {}
        self._scoring = Scoring(self._score.scores[0], absent=self._score.absent)
        self.tuning: Tuning | None = None
        if tune is not False:
            self.tuning = Tuning(tune, num_classes, mode, ignore_index, self._scoring)
        self.tuned: Tuned | None = None
        self._warned = self._checked = self._told = self._restored = False
        self.scores_of_stage: dict[str, dict[str, float]] = {}

    @property
    def state_key(self) -> str:
        """Tells callbacks with different prefixes apart in a checkpoint."""
        return self._generate_state_key(prefix=self.prefix)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: the last scores, and the tuned decoder, or what another has learnt if it learns."""
        learnt = self.decoder.state_dict() if learns(self.decoder) else {}
        tuned = None if self.tuning is None else state_of(self.decoder)
        return {"scores_of_stage": self.scores_of_stage, "decoder": learnt, "tuned": tuned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint; its tuned decoder, or that it has none, only with ``tune``."""
        self.scores_of_stage = state_dict["scores_of_stage"]
        tuned = state_dict.get("tuned")
        self._forget_tuned()
        if tuned is None and learns(self.decoder):
            self.decoder.load_state_dict(state_dict["decoder"])
        elif tuned is not None and self.tuning is not None:
            self.decoder = as_decoder(TunedDecoder.from_dict(tuned), self.num_classes)

    def _forget_tuned(self) -> None:
        """Other weights are loaded: what was tuned is not for them."""
        if self.tuning is not None:
            self.decoder = self._given

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Know of no checkpoint yet."""
        self._restored = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Know that Lightning restores by itself, where the checkpoint knows of this callback."""
        self._restored = True
        self._forget_tuned()

    def _restore(self, trainer: Trainer) -> None:
        # Before 2.6, Lightning restores callbacks for fit alone: test would run with the decoder of other weights.
        if self.tuning is not None and trainer.ckpt_path and not self._restored:
            self._forget_tuned()
            state = saved_state(trainer, self.state_key)
            if state is not None:
                self.load_state_dict(state)
        self._restored = True

    def names(self, stage: str, suffix: str = "") -> list[str]:
        """Every name logged for a stage (``"val"`` or ``"test"``), with the suffix of one dataloader."""
        names = [
            self._name(stage, decision, level) + suffix
            for level in self._score.names
            for decision in ("", BASELINE, GAIN)
        ]
        tuned = [] if self.tuning is None or stage != "val" else self.tuning.names
        return names + [self._name(stage, *name) for name in tuned]

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero."""
        self._start(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start from zero."""
        self._start(trainer, pl_module, "test")

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
        self._add(trainer, outputs, batch, batch_idx, dataloader_idx, "validation_step")

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
        self._add(trainer, outputs, batch, batch_idx, dataloader_idx, "test_step")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of all processes."""
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of all processes."""
        self._finish(trainer, pl_module, "test")

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the decoder where the outputs will be."""
        if self.predict_labels is not None:
            self._prepare(trainer, pl_module, "predict")

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
        if self.predict_labels is None:
            return
        key = self.predict_labels
        at = isinstance(outputs, MutableSequence) and isinstance(key, int) and -len(outputs) <= key < len(outputs)
        if not (at or isinstance(outputs, MutableMapping)):
            raise TypeError(
                f"predict_labels={key!r} needs a dict from predict_step to put the labels into, or a list with that "
                f"index, got {describe(outputs)}"
            )
        outputs[key] = self.decoder(self._probabilities(outputs, batch, "predict_step"))

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore(trainer)
        if isinstance(self.decoder, torch.nn.Module):
            self.decoder.to(pl_module.device)
        self._checked |= not trainer.is_global_zero  # one process warns for all
        untuned = self.tuning is not None and not isinstance(self.decoder, TunedDecoder)
        if untuned and stage != "val" and trainer.is_global_zero:
            warnings.warn(
                f"tune: no decoder was tuned yet, so {stage} decides with {self.decoder}; validate first, or load a "
                "checkpoint that holds a tuned decoder",
                stacklevel=2,
            )

    def _start(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._loaders = {}
        if trainer.sanity_checking:
            return
        self._prepare(trainer, pl_module, stage)
        loaders = running_loaders(trainer, stage)
        for index, suffix in suffixes(self.dataloaders, len(loaders)).items():
            # All of them now, on every process: one that never gets an image must still take part in adding up.
            score = self._score.to(pl_module.device)
            report = None if self.report is None else self._new_report()
            self._loaders[index] = LoaderScores(loaders[index], suffix, score, MostChanged(self.log_images), report)
        if self.tuning is not None and stage == "val":
            self.tuning.start(pl_module.device)

    def _new_report(self) -> LoaderReport:
        return LoaderReport(self.decoder, self.baseline, self.num_classes, self._score.ignore_index, self._scoring)

    def _add(self, trainer: Trainer, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int, step: str) -> None:
        loader = self._loaders.get(dataloader_idx)
        if loader is None:
            return
        probs = self._probabilities(outputs, batch, step)
        target = find_tensor("target", self.target, outputs, batch, step).to(probs.device)
        count = new_images(loader.loader, batch_idx, len(probs))
        cases: Sequence[str | None] = [None] * count
        if self.cases is not None:
            cases = find_cases(self.cases, outputs, batch, step, len(probs))[:count]
        names = loader.names(trainer, count)
        decided, argmax, target = self.decoder(probs)[:count], self.baseline(probs)[:count], target[:count]
        loader.score.update(decided, target)
        loader.baseline.update(argmax, target)
        tuning = self.tuning if step == "validation_step" else None
        measured: list[Calibration] = []
        if loader.report is not None or tuning is not None:
            measured = [calibrate(*each, self._score.ignore_index) for each in zip(probs, target, strict=False)]
        if loader.report is not None:
            loader.report.add(names, cases, measured, target, argmax, decided)
        if tuning is not None:
            own = [f"{loader.suffix}/{name}".strip("/") for name in names]
            tuning.add(own, cases, probs[:count], measured, target, argmax)
        if self.log_images:
            image = find_image(self.image, outputs, batch, step)[:count]
            maps = label_maps(target, argmax, decided, self.num_classes, self._score.ignore_index)
            loader.examples.add(image, *maps)

    def _probabilities(self, outputs: Any, batch: Any, step: str) -> Tensor:
        logits = find_tensor("logits", self.logits, outputs, batch, step)
        check_shape(logits)
        if logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits must have shape (B, {self.num_classes}, *spatial) for num_classes={self.num_classes}, got "
                f"{tuple(logits.shape)}"
            )
        probs = to_probabilities(logits, self.activation)
        if len(probs) and not self._checked:
            self._checked, self._told = True, warn_if_softened(probs[:1])
        return probs

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        values = {}
        for loader in self._loaders.values():
            decided, baseline = loader.score.compute(), loader.baseline.compute()
            for level, value in decided.items():
                trio = (value, baseline[level], value - baseline[level])
                for decision, number in zip(("", BASELINE, GAIN), trio, strict=True):
                    values[self._name(stage, decision, level) + loader.suffix] = number
        if not values:
            return
        values |= self._tune(trainer, pl_module, stage)
        # The values are those of all processes already; max leaves equal values as they are, to the last digit.
        pl_module.log_dict(
            values, prog_bar=self.prog_bar, reduce_fx="max", sync_dist=True, add_dataloader_idx=False, batch_size=1
        )
        self.scores_of_stage[stage] = {name: float(value) for name, value in values.items()}
        for loader in self._loaders.values() if self.log_images else ():
            self._draw(trainer, f"{stage}/{self.prefix}/image{loader.suffix}", loader.examples)
        for loader in self._loaders.values():
            if self.report is not None and loader.report is not None:
                folder = self.report / stage / loader.suffix.strip("/")
                self._told |= loader.report.write(folder, self.class_names, stage, trainer, quiet=self._told)
        self._loaders = {}

    def _tune(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> dict[str, Tensor]:
        """Put the decoder in force that was chosen on this validation; returns what to log of it."""
        found = None if self.tuning is None or stage != "val" else self.tuning.finish(self.class_names)
        if self.tuning is None or found is None:
            return {}
        self.tuned, self.decoder = found, found.decoder.to(pl_module.device)
        measured = found.comparison.calibration
        if measured is not None and trainer.is_global_zero and not self._told:
            self._told = warn_if_unsure(measured, self.num_classes)
        rank_zero_info(f"{stage}/{self.prefix}, tuned on {len(found.comparison.names)} images: {found.verdict}")
        if self.report is not None and trainer.is_global_zero:
            found.decoder.save(self.report / "decoder.json")
        scores = self.tuning.scores(found).to(pl_module.device)
        return {self._name(stage, *name): value for name, value in zip(self.tuning.names, scores, strict=True)}

    def _draw(self, trainer: Trainer, name: str, examples: MostChanged) -> None:
        best = examples.best()
        if trainer.is_global_zero:
            for problem in log_examples(trainer.loggers, name, best, trainer.global_step):
                self._warn(f"log_images={self.log_images}, but {problem}")

    def _warn(self, message: str) -> None:
        """Warn, once for each callback: the next epoch would only say the same."""
        if not self._warned:
            self._warned = True
            warnings.warn(message, stacklevel=2)

    def _name(self, stage: str, decision: str, level: str) -> str:
        return "/".join(part for part in (stage, self.prefix, decision, level) if part)
