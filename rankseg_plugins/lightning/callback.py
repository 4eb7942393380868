"""A Lightning callback that scores argmax and RankSEG side by side while a model is validated or tested."""

from __future__ import annotations

import os
import warnings
from collections.abc import MutableMapping, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rankseg_plugins._imports import require
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.probabilities import ACTIVATIONS, check_choice, check_shape, to_probabilities
from rankseg_plugins.evaluation import Scoring
from rankseg_plugins.evaluation.checks import check_decoder, check_report
from rankseg_plugins.evaluation.recording import check_class_names
from rankseg_plugins.evaluation.truth import to_truth
from rankseg_plugins.lightning._toolkit import Callback, LightningModule, Trainer
from rankseg_plugins.lightning.figures import Example, MostChanged, draw, log_figure
from rankseg_plugins.lightning.loaders import Dataloaders, check_dataloaders, new_images, running_loaders, suffixes
from rankseg_plugins.lightning.reporting import BASELINE, LoaderReport
from rankseg_plugins.lightning.sources import Source, check_source, describe, find_image, find_tensor
from rankseg_plugins.torchmetrics import MultiLevelScore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        decoder: the decision to compare with argmax, e.g. ``RankSEG(metric="dice")``.
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

    Attributes:
        scores_of_stage: the last scores of each stage by logged name, as floats; part of checkpoints.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is unknown, out of range or does not fit the others.
        ImportError: if ``log_images`` or ``report`` needs a package that is not installed.
        OSError: if the folder of the report cannot be made.

    Example:
        >>> from rankseg_plugins import RankSEG
        >>> RankSEGCallback(RankSEG(metric="dice"), num_classes=3, target=1).names("val")[:3]
        ['val/rankseg/dice_dataset', 'val/rankseg/argmax/dice_dataset', 'val/rankseg/gain/dice_dataset']
    """

    def __init__(
        self,
        decoder: torch.nn.Module,
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
    ) -> None:
        super().__init__()
        check_decoder(decoder)
        check_source("logits", logits)
        check_source("target", target)
        if image is not None:
            check_source("image", image)
        check_choice("activation", activation, ACTIVATIONS)
        _check_one_channel(decoder, num_classes, activation)
        if not isinstance(prefix, str) or not prefix.strip("/"):
            raise ValueError(f"prefix must be a name, got {prefix!r}")
        self.decoder = decoder
        self.baseline = RankSEG(metric="acc", output_mode=_output_mode(decoder))
        self.num_classes, self.activation = num_classes, activation
        self.logits, self.target = logits, target
        self.prefix, self.prog_bar = prefix.strip("/"), prog_bar
        self.dataloaders = check_dataloaders(dataloaders)
        self.log_images, self.image = _check_count("log_images", log_images), image
        self.predict_labels = _check_key("predict_labels", predict_labels)
        # Never updated itself: checks the options now, and is copied for each dataloader and decoder.
        self._score = MultiLevelScore(num_classes, scores, levels, ignore_index, absent, worst)
        self.class_names = check_class_names(class_names, num_classes)
        self.report = None if report is None else check_report(report)
        self._loaders: dict[int, _Loader] = {}
        self._warned = False
        self.scores_of_stage: dict[str, dict[str, float]] = {}

    @property
    def state_key(self) -> str:
        """Tells callbacks with different prefixes apart in a checkpoint."""
        return self._generate_state_key(prefix=self.prefix)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run takes up: the last scores, and what the decoder has learnt if it learns."""
        learnt = self.decoder.state_dict() if isinstance(self.decoder, torch.nn.Module) else {}
        return {"scores_of_stage": self.scores_of_stage, "decoder": learnt}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        self.scores_of_stage = state_dict["scores_of_stage"]
        if isinstance(self.decoder, torch.nn.Module):
            self.decoder.load_state_dict(state_dict["decoder"])

    def names(self, stage: str, suffix: str = "") -> list[str]:
        """Every name logged for a stage (``"val"`` or ``"test"``), with the suffix of one dataloader."""
        return [
            self._name(stage, decision, level) + suffix
            for level in self._score.names
            for decision in ("", BASELINE, GAIN)
        ]

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
        self._add(outputs, batch, batch_idx, dataloader_idx, "validation_step")

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
        self._add(outputs, batch, batch_idx, dataloader_idx, "test_step")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of all processes."""
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores of all processes."""
        self._finish(trainer, pl_module, "test")

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the decoder where the outputs will be."""
        self._move_decoder(pl_module)

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

    def _move_decoder(self, pl_module: LightningModule) -> None:
        if isinstance(self.decoder, torch.nn.Module):
            self.decoder.to(pl_module.device)

    def _start(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._loaders = {}
        if trainer.sanity_checking:
            return
        self._move_decoder(pl_module)
        loaders = running_loaders(trainer, stage)
        for index, suffix in suffixes(self.dataloaders, len(loaders)).items():
            # All of them now, on every process: one that never gets an image must still take part in adding up.
            score = self._score.to(pl_module.device)
            report = None if self.report is None else self._new_report(trainer)
            self._loaders[index] = _Loader(loaders[index], suffix, score, MostChanged(self.log_images), report)

    def _new_report(self, trainer: Trainer) -> LoaderReport:
        scoring = Scoring(self._score.scores[0], absent=self._score.absent)
        return LoaderReport(self.decoder, self.baseline, self.num_classes, self._score.ignore_index, scoring, trainer)

    def _add(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int, step: str) -> None:
        loader = self._loaders.get(dataloader_idx)
        if loader is None:
            return
        probs = self._probabilities(outputs, batch, step)
        target = find_tensor("target", self.target, outputs, batch, step).to(probs.device)
        count = new_images(loader.loader, batch_idx, len(probs))
        decided, argmax, target = self.decoder(probs)[:count], self.baseline(probs)[:count], target[:count]
        loader.score.update(decided, target)
        loader.baseline.update(argmax, target)
        if loader.report is not None:
            loader.report.add(probs[:count], target, argmax, decided)
        if self.log_images:
            image = find_image(self.image, outputs, batch, step)[:count]
            self._consider(loader.examples, image, decided, argmax, target)

    def _consider(self, examples: MostChanged, image: Tensor, decided: Tensor, argmax: Tensor, target: Tensor) -> None:
        spatial = tuple(decided.shape[2 if decided.dtype == torch.bool else 1 :])
        truth = to_truth(target, self.num_classes, spatial, self._score.ignore_index)
        if truth.dtype != torch.bool and self._score.ignore_index is not None:
            truth = truth.masked_fill(truth == self._score.ignore_index, -1)
        maps = (truth, argmax, decided)
        as_bits = any(each.dtype == torch.bool for each in maps)
        examples.add(image, *(self._one_map(each, as_bits) for each in maps))

    def _one_map(self, decided: Tensor, as_bits: bool) -> Tensor:
        """One number per pixel to draw, -1 for void: the label, or in its bits all classes that hold the pixel."""
        # Beyond 62 classes some share a bit of the int64.
        if decided.dtype == torch.bool:
            bits = 2 ** (torch.arange(decided.shape[1], device=decided.device) % 62)
            return (decided * bits.view(1, -1, *[1] * (decided.ndim - 2))).sum(1)
        # The labels of one channel are 0 and 1, and its bits the same.
        void = (decided < 0) | (decided >= max(self.num_classes, 2))
        numbers = 2 ** (decided.clamp(min=0) % 62) if as_bits and self.num_classes > 1 else decided
        return numbers.masked_fill(void, -1)

    def _probabilities(self, outputs: Any, batch: Any, step: str) -> Tensor:
        logits = find_tensor("logits", self.logits, outputs, batch, step)
        check_shape(logits)
        if logits.shape[1] != self.num_classes:
            raise ValueError(
                f"logits must have shape (B, {self.num_classes}, *spatial) for num_classes={self.num_classes}, got "
                f"{tuple(logits.shape)}"
            )
        return to_probabilities(logits, self.activation)

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
        # The values are those of all processes already; max leaves equal values as they are, to the last digit.
        pl_module.log_dict(
            values, prog_bar=self.prog_bar, reduce_fx="max", sync_dist=True, add_dataloader_idx=False, batch_size=1
        )
        self.scores_of_stage[stage] = {name: float(value) for name, value in values.items()}
        for loader in self._loaders.values() if self.log_images else ():
            self._draw(trainer, f"{stage}/{self.prefix}/image{loader.suffix}", loader.examples.best())
        for loader in self._loaders.values():
            if self.report is not None and loader.report is not None:
                loader.report.write(self.report / stage / loader.suffix.strip("/"), self.class_names, stage)
        self._loaders = {}

    def _draw(self, trainer: Trainer, name: str, examples: list[Example]) -> None:
        if not trainer.is_global_zero:
            return
        for index, example in enumerate(examples):
            figure = draw(example)
            taken = [self._log(logger, f"{name}/{index}", figure, trainer.global_step) for logger in trainer.loggers]
            if not any(taken):
                kinds = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "none"
                self._warn(f"log_images={self.log_images}, but no logger takes images (loggers: {kinds})")

    def _log(self, logger: Any, name: str, figure: Figure, step: int) -> bool:
        try:
            return log_figure(logger, name, figure, step)
        except Exception as error:  # whatever a logger stumbles over: no picture is worth a training run
            self._warn(f"{type(logger).__name__} did not take an image: {type(error).__name__}: {error}")
            return True

    def _warn(self, message: str) -> None:
        """Warn, once for each callback: the next epoch would only say the same."""
        if not self._warned:
            self._warned = True
            warnings.warn(message, stacklevel=2)

    def _name(self, stage: str, decision: str, level: str) -> str:
        return "/".join(part for part in (stage, self.prefix, decision, level) if part)


class _Loader:
    """What is kept of one dataloader during an evaluation."""

    def __init__(
        self, loader: Any, suffix: str, score: MultiLevelScore, examples: MostChanged, report: LoaderReport | None
    ) -> None:
        self.loader, self.suffix, self.examples, self.report = loader, suffix, examples, report
        self.score, self.baseline = score.clone(), score.clone()


def _check_key(name: str, value: object) -> Any:
    if isinstance(value, bool) or not (value is None or isinstance(value, (str, int))):
        raise TypeError(f"{name} must be a key, a list index or None, got {value!r}")
    return value


def _check_count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    if value:
        require("matplotlib", extra="report")
    return value


def _output_mode(decoder: torch.nn.Module) -> str:
    return getattr(decoder, "output_mode", "multiclass")


def _check_one_channel(decoder: torch.nn.Module, num_classes: int, activation: str) -> None:
    if num_classes != 1:
        return
    if _output_mode(decoder) != "multilabel":
        raise ValueError("num_classes=1 needs a decoder with output_mode='multilabel', got 'multiclass'")
    if activation in ("softmax", "normalize"):
        raise ValueError(f"num_classes=1 needs activation='sigmoid' or 'identity', got {activation!r}")
