"""A Lightning callback that scores argmax and RankSEG side by side while a model is validated or tested."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import torch
from torch import Tensor

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.calibration.temperature import warn_if_softened, warn_if_unsure
from rankseg_plugins.calibration.tuned import as_decoder
from rankseg_plugins.comparison import Scoring
from rankseg_plugins.comparison.measuring import calibrate
from rankseg_plugins.comparison.recording import check_class_names
from rankseg_plugins.comparison.sample import describe_form
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.probabilities import ACTIVATIONS, check_choice
from rankseg_plugins.lightning._toolkit import Callback, LightningModule, Trainer, rank_zero_info, rank_zero_warn
from rankseg_plugins.lightning.deciding import Decision
from rankseg_plugins.lightning.figures import MostChanged, log_examples
from rankseg_plugins.lightning.loaders import (
    Dataloaders,
    LoaderScores,
    check_dataloaders,
    new_images,
    running_loaders,
    suffixes,
)
from rankseg_plugins.lightning.names import DECISIONS, SKIPPED, check_neighbour, join
from rankseg_plugins.lightning.options import check_count, check_key, check_one_channel, output_mode, starting_decoder
from rankseg_plugins.lightning.reading import Images, Reader, are_finite, check_finite
from rankseg_plugins.lightning.reporting import LoaderReport
from rankseg_plugins.lightning.sources import Source, describe
from rankseg_plugins.lightning.tuning import Tuning
from rankseg_plugins.report.writing import check_report
from rankseg_plugins.scores.checks import naming
from rankseg_plugins.torchmetrics import MultiLevelScore
from rankseg_plugins.tuning.tuner import Tuned


class RankSEGCallback(Callback):
    r"""Decode every validation and test batch with argmax and with RankSEG, and log both scores and the difference.

    For the stages ``val`` and ``test`` it logs, for every score and level::

        {stage}/{prefix}/dice_image            RankSEG
        {stage}/{prefix}/argmax/dice_image     argmax (one-channel and multilabel models: threshold 0.5)
        {stage}/{prefix}/gain/dice_image       RankSEG minus argmax

    so that ``ModelCheckpoint(monitor="val/rankseg/dice_image", mode="max")`` works. With several dataloaders each name
    ends in ``/dataloader_idx_0``, ... as Lightning's own. The sanity check is not scored, only checked for logits,
    targets and what else is looked for. With several processes the scores are those of one process: images that
    Lightning's sampler repeats to even out the processes count once.

    Images for which the network gives NaN or infinite probabilities are left out of both decoders' scores, the report
    and the tuning. A warning names them once, ``{stage}/{prefix}/skipped`` is their number.

    A decoder that learns, such as :class:`~rankseg_plugins.GlobalRankSEG`, takes up what a checkpoint holds of it. One
    that is fitted when it is given stays as it is, as every decoder does where the checkpoint is of another; a warning
    says so.

    Args:
        decoder: the decision to compare with argmax, e.g. ``RankSEG(metric="dice")``, or the path of the file of a
            :class:`~rankseg_plugins.calibration.TunedDecoder`. With ``tune`` it decides until the first validation has
            ended, and after loading a checkpoint without a tuned decoder; None is argmax then.
        num_classes: C; 1 for one-channel models.
        logits: where the network's output (B, C, \*spatial) is: a key (or attribute, or tuple index) of what the step
            returned, a pair such as ``("batch", "logits")``, or a callable ``(outputs, batch) -> tensor``.
        target: where the truth is: labels (B, \*spatial) or (B, 1, \*spatial), or masks (B, C, \*spatial). With one
            channel the labels are 0 and 1. A key, attribute or index of what the step returned or else of the batch;
            a pair, ``("outputs", 1)`` or ``("batch", 1)``, that says of which; or a callable. An index that leads to
            different things in both is refused; of a key that does, the step's is taken, with a warning.
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
        image: where the input images (B, K, \*spatial) are. None takes the item ``"image"``
            of a dict batch, or the first of a tuple; otherwise as for ``target``. Looked at only with ``log_images``.
        predict_labels: key under which :meth:`Trainer.predict` outputs get the decided labels or masks: a new one, or
            that of the logits, which they replace. Of a list it is the index of the item to replace. The predict step
            must return a dict or list. None leaves the outputs alone.
        report: folder for reports of the comparison (see :class:`~rankseg_plugins.comparison.Comparison`): each
            evaluation replaces ``<report>/<stage>``, or ``<report>/<stage>/<dataloader>`` with several dataloaders.
            The first of ``scores`` decides what is better. Images are called by their place in the dataloader
            (``000000``, ...), the same for any number of processes; the repetitions with which PyTorch's and
            Lightning's distributed samplers even out the processes are left out. Two callbacks need two folders.
        class_names: C names of the classes in the report; None numbers them.
        cases: where the cases of the images are, as for ``target``: a sequence of B names, such as the patients of
            slices.
            What report and tuning call certain is drawn by cases. None: every image is a case of its own.
        tune: True, or a dict of options of :class:`~rankseg_plugins.tuning.Tuner` (``objective``,
            ``temperatures``, ``pruning_probs``, ``metrics``, ``solvers``, ``folds``, ``min_cases``) and of its
            ``finish`` (``resamples``, ``confidence``, ``seed``): at the end of every validation, a decoder is chosen
            on the images of all scored dataloaders, and decides from then on, also in test and predict. Argmax is
            kept unless the gain is certain. The objective is the first of ``scores`` at image level unless given.
            ``val/{prefix}/tuned/{objective}`` is its score on images that had no part in choosing, and
            ``val/{prefix}/tuned_gain/{objective}`` that minus argmax; the other values of that validation are those of
            the decoder before. Checkpoints hold the decoder of the last validation, and the step of its weights.

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
        self._decision = Decision(as_decoder(given, num_classes), num_classes, tunes=tune is not False)
        check_choice("activation", activation, ACTIVATIONS)
        check_one_channel(self.decoder, num_classes, activation)
        if not isinstance(prefix, str) or not prefix.strip("/"):
            raise ValueError(f"prefix must be a name, got {prefix!r}")
        mode = output_mode(self.decoder)
        self.baseline = RankSEG(metric="acc", output_mode=mode)
        self.num_classes = num_classes
        self.prefix, self.prog_bar = prefix.strip("/"), prog_bar
        self.dataloaders = check_dataloaders(dataloaders)
        self.log_images = check_count("log_images", log_images)
        self.predict_labels = check_key("predict_labels", predict_labels)
        # Never updated itself: checks the options now, and is copied for each dataloader and decoder.
        self._score = MultiLevelScore(num_classes, scores, levels, ignore_index, absent, worst)
        self._reader = Reader(
            num_classes,
            activation,
            ignore_index,
            logits=logits,
            target=target,
            cases=cases,
            image=image,
            pictures=self.log_images > 0,
        )
        self.class_names = check_class_names(class_names, num_classes)
        self.report = None if report is None else check_report(report)
        self._loaders: dict[int, LoaderScores] = {}
        self._scoring = Scoring(self._score.scores[0], absent=self._score.absent)
        self.tuning: Tuning | None = None
        if tune is not False:
            self.tuning = Tuning(tune, num_classes, mode, ignore_index, self._scoring)
        self.tuned: Tuned | None = None
        self._checked = self._told = False
        # What was warned of: the next epoch would only say the same.
        self._said: set[str] = set()
        self.scores_of_stage: dict[str, dict[str, float]] = {}

    @property
    def decoder(self) -> Any:
        """The decision in force."""
        return self._decision.decoder

    @property
    def state_key(self) -> str:
        """Tells callbacks with different prefixes apart in a checkpoint."""
        return self._generate_state_key(prefix=self.prefix)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: the last scores, and the tuned decoder, or what another has learnt if it learns."""
        return {"scores_of_stage": self.scores_of_stage, **self._decision.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint, as far as it fits the decoder that was given; see the class."""
        self.scores_of_stage = state_dict["scores_of_stage"]
        self._decision.load(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse callbacks that overwrite what another gives, and know of no checkpoint yet."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # missing in the stubs
            if isinstance(other, RankSEGCallback) and other is not self:
                check_neighbour(self, other)
        self._decision.start()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Know that Lightning restores by itself, where the checkpoint knows of this callback."""
        self._decision.on_load_checkpoint(checkpoint)

    def names(self, stage: str, suffix: str = "") -> list[str]:
        """Every name logged for a stage (``"val"`` or ``"test"``), with the suffix of one dataloader."""
        names = [(decision, level) for level in self._score.names for decision in DECISIONS]
        tuned = [] if self.tuning is None or stage != "val" else self.tuning.names
        own = [join(stage, self.prefix, *name) + suffix for name in (*names, (SKIPPED,))]
        return own + [join(stage, self.prefix, *name) for name in tuned]

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
        if not at and key in outputs and key != self._reader.logits.key:
            raise KeyError(
                f"predict_labels={key!r} is in what predict_step returned already ({describe(outputs)}), and would be "
                "lost: give another key"
            )
        with naming(self._place("predict_step", batch_idx, dataloader_idx)):
            probs = self._reader.probabilities(outputs, batch, "predict_step")
            self._look_at(probs)
            check_finite(probs, [f"image {index} of the batch" for index in range(len(probs))])
            outputs[key] = self.decoder(probs)

    def _place(self, step: str, batch_idx: int, dataloader_idx: int) -> str:
        return f"RankSEGCallback(prefix={self.prefix!r}), {step}, dataloader {dataloader_idx}, batch {batch_idx}"

    def _prepare(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._decision.restore(trainer, self.state_key)
        if isinstance(self.decoder, torch.nn.Module):
            self.decoder.to(pl_module.device)
        self._checked |= not trainer.is_global_zero  # one process warns for all
        caveat = None if stage == "val" else self._decision.caveat(trainer, stage)
        if caveat is not None:
            rank_zero_warn(caveat)

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
        place = self._place(step, batch_idx, dataloader_idx)
        if trainer.sanity_checking:
            # A step may return nothing here, as there is nothing to score; what it returns is to be what is needed.
            if outputs is not None and (self.dataloaders is None or dataloader_idx in self.dataloaders):
                with naming(place):
                    self._reader.read(outputs, batch, step)
            return
        loader = self._loaders.get(dataloader_idx)
        if loader is None:
            return
        with naming(place):
            images = self._reader.read(outputs, batch, step)
            self._look_at(images.probs)
            count = new_images(loader.loader, batch_idx, len(images.probs))
            names = loader.names(trainer, count)
            kept = [index for index, is_finite in enumerate(are_finite(images.probs)[:count]) if is_finite]
            process = f" of process {trainer.global_rank}" if trainer.world_size > 1 else ""
            why = f"NaN or infinite probabilities ({step}, batch {batch_idx}{process})"
            loader.skipped |= {name: f"{name}: {why}" for i, name in enumerate(names) if i not in kept}
            if kept:
                own = self.tuning if step == "validation_step" else None
                self._count(loader, own, [names[index] for index in kept], images.select(kept))

    def _count(self, loader: LoaderScores, tuning: Tuning | None, names: list[str], images: Images) -> None:
        """Decode images that have not been seen before, and keep what they scored."""
        ignore_index = self._score.ignore_index
        decided, argmax = self.decoder(images.probs), self.baseline(images.probs)
        problem = describe_form(images.probs[:1], images.target, decided)
        if problem is not None:
            self._warn("form", problem)
        measured: list[Calibration] = []
        if self.report is not None or tuning is not None:
            measured = [calibrate(*each, ignore_index) for each in zip(images.probs, images.target, strict=True)]
        loader.add(names, images, measured, argmax, decided)
        if tuning is not None:
            own = [loader.own_name(name) for name in names]
            tuning.add(own, images.cases, images.probs, measured, images.target, argmax)

    def _look_at(self, probs: Tensor) -> None:
        """Warn, by the first image, of probabilities on which RankSEG loses."""
        if len(probs) and not self._checked:
            self._checked, self._told = True, warn_if_softened(probs[:1])

    def _finish(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        values: dict[str, Tensor] = {}
        for loader in self._loaders.values():
            loader.gather()
            decided, baseline = loader.score.compute(), loader.baseline.compute()
            for level, value in decided.items():
                trio = (value, baseline[level], value - baseline[level])
                for decision, number in zip(DECISIONS, trio, strict=True):
                    values[join(stage, self.prefix, decision, level) + loader.suffix] = number
        if not values:
            return
        values |= self._tune(trainer, pl_module, stage)
        # The values are those of all processes already; max leaves equal values as they are, to the last digit.
        alike: dict[str, Any] = dict(reduce_fx="max", sync_dist=True, add_dataloader_idx=False, batch_size=1)
        pl_module.log_dict(values, prog_bar=self.prog_bar, **alike)
        skipped = self._skipped(stage)
        pl_module.log_dict(skipped, **alike)
        self.scores_of_stage[stage] = {name: float(value) for name, value in (values | skipped).items()}
        for loader in self._loaders.values() if self.log_images else ():
            self._draw(trainer, f"{stage}/{self.prefix}/image{loader.suffix}", loader.examples)
        for loader in self._loaders.values():
            if self.report is not None and loader.report is not None:
                folder = self.report / stage / loader.suffix.strip("/")
                quiet = self._told
                self._told |= loader.report.write(folder, self.class_names, stage, trainer, loader.skipped, quiet)
        self._loaders = {}

    def _skipped(self, stage: str) -> dict[str, Tensor]:
        """How many images of each dataloader are left out; warns, once, if there are any."""
        counts = {}
        for loader in self._loaders.values():
            name = join(stage, self.prefix, SKIPPED) + loader.suffix
            counts[name] = torch.tensor(float(len(loader.skipped)), device=loader.score.device)
            if loader.skipped:
                whose = f"RankSEGCallback(prefix={self.prefix!r}), {stage}{loader.suffix}"
                self._warn(SKIPPED, f"{whose}: {loader.left_out()}. Every evaluation logs their number as {name!r}")
        return counts

    def _tune(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> dict[str, Tensor]:
        """Put the decoder in force that was chosen on this validation; returns what to log of it."""
        if self.tuning is None or stage != "val":
            return {}
        skipped = {
            loader.own_name(name): why for loader in self._loaders.values() for name, why in loader.skipped.items()
        }
        found = self.tuning.finish(self.class_names, skipped)
        scores = self.tuning.scores(found).to(pl_module.device)
        if found is not None:
            self._put_in_force(found, trainer, pl_module)
        return {join(stage, self.prefix, *name): value for name, value in zip(self.tuning.names, scores, strict=True)}

    def _put_in_force(self, found: Tuned, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tuned = found
        self._decision.tuned(found.decoder.to(pl_module.device), trainer)
        measured = found.comparison.calibration
        if measured is not None and trainer.is_global_zero and not self._told:
            self._told = warn_if_unsure(measured, self.num_classes)
        rank_zero_info(f"val/{self.prefix}, tuned on {len(found.comparison.names)} images: {found.verdict}")
        if self.report is not None and trainer.is_global_zero:
            found.decoder.save(self.report / "decoder.json")

    def _draw(self, trainer: Trainer, name: str, examples: MostChanged) -> None:
        best = examples.best()
        if trainer.is_global_zero:
            for problem in log_examples(trainer.loggers, name, best, trainer.global_step):
                self._warn("log_images", f"log_images={self.log_images}, but {problem}")

    def _warn(self, topic: str, message: str) -> None:
        """Warn, once for each callback: the next epoch would only say the same."""
        if topic not in self._said:
            self._said.add(topic)
            rank_zero_warn(message)
