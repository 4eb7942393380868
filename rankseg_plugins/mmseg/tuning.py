"""``RankSEGTuningHook``: chooses a decoder while a run validates, and writes it beside the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmseg.registry import HOOKS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rankseg_plugins.comparison import Sample, Scoring
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.files.grouping import case_of, read_pattern
from rankseg_plugins.mmseg.activations import head_probabilities, last_head
from rankseg_plugins.mmseg.reporting import distinct
from rankseg_plugins.mmseg.running import model_of, step_of, warn_if_ignored
from rankseg_plugins.mmseg.samples import image_path
from rankseg_plugins.mmseg.segmentors import RankSEGMixin
from rankseg_plugins.tuning import Tuner
from rankseg_plugins.tuning.choosing import check_intervals
from rankseg_plugins.tuning.tuner import options_but

#: The file of the latest validation, under a name that is known in advance.
LATEST = "rankseg.json"
SUFFIX = ".rankseg.json"
#: MMEngine's defaults of the names of checkpoints.
BY_EPOCH, BY_ITERATION = "epoch_{}.pth", "iter_{}.pth"

#: Between a path and the place of its image in the data set.
NUMBER = " (no. "
NO_PROBABILITIES = "the network gives NaN or infinite values"

OPTIONS = options_but("num_classes", "objective", "output_mode", "ignore_index", "scoring", "device", "others")


@HOOKS.register_module()
class RankSEGTuningHook(Hook):
    """Tunes a decoder on the images of every validation and writes it as a JSON file.

    The file has the name of the checkpoint, such as ``iter_1000.rankseg.json`` beside ``iter_1000.pth``, wherever the
    ``CheckpointHook`` puts that on disk, and a copy in ``work_dir`` is called ``rankseg.json``;
    ``model.test_cfg.rankseg = dict(tuned='work_dirs/run/rankseg.json')`` uses it. Without training, ``Runner.val``
    names it after the checkpoint that was loaded.

    The model may be a stock one, or a RankSEG segmentor, whose ``test_cfg.rankseg.activation`` then counts (and belongs
    beside ``tuned``, too). What the validation itself decides and reports stays as it is. Every candidate decodes every
    image, and every process keeps counts alone. Every item of the data set counts once, also where several are windows
    of one file, and where samplers repeat it; images for which the network gives NaN are left out, and logged. With one
    channel, "argmax" is the threshold 1/2, whatever
    ``decode_head.threshold`` says.

    Args:
        objective: score and level that decide, such as ``"dice_image"`` or ``"iou_dataset"``; see
            ``rankseg_plugins.tuning.tune``.
        ignore_index: label of the ground truth whose pixels do not count.
        group_by: regular expression whose match in the path of an image is its case, such as the drive or the patient:
            files count as one in the intervals. None: every file is a case of its own.
        present: a class has a score in an image where prediction or truth hold it (``"union"``), or only where the
            truth does (``"label"``).
        absent: classes without a score are left out (``"skip"``) or count as ``"zero"`` or ``"one"``.
        excluded: classes left out of every score, such as ``[0]`` for the background.
        confidence: of the intervals.
        seed: of the folds.
        **options: ``temperatures``, ``pruning_probs``, ``metrics``, ``solvers``, ``folds``, ``min_cases`` and
            ``keep`` of ``Tuner``.

    Raises:
        TypeError: for ``confidence`` or ``seed`` of the wrong type; when a training or validation
            begins, for another option of the wrong type, or a model that does not say how many channels it has; while
            running, if it gives no class scores.
        ValueError: for an option that is unknown or out of range, some of them when a training or validation begins,
            or when a training begins that never validates, or whose first validation image has no path, no ground
            truth or one that does not fit; while running, for such images; the message names the file.
        ImportError: without SciPy.
        OSError: if the file cannot be written.

    Example:
        In a config: ``custom_hooks = [dict(type='rankseg_plugins.mmseg.RankSEGTuningHook', objective='dice_image')]``
    """

    def __init__(
        self,
        objective: str = "dice_image",
        ignore_index: int | None = 255,
        group_by: str | None = None,
        present: str = "union",
        absent: str = "skip",
        excluded: Sequence[int] = (),
        confidence: float = 0.95,
        seed: int = 0,
        **options: Any,
    ) -> None:
        for name in options:
            check_choice("option of RankSEGTuningHook", name, OPTIONS)
        # The end of the first validation would be too late to refuse them, or to miss SciPy.
        check_intervals(confidence, seed)
        self.group_by = None if group_by is None else read_pattern("group_by", group_by)
        self.finishing: dict[str, Any] = {"confidence": confidence, "seed": seed}
        self.options: dict[str, Any] = {
            "objective": objective,
            "ignore_index": ignore_index,
            "scoring": Scoring(present=present, absent=absent, excluded=tuple(excluded)),
            **options,
        }
        self._tuner: Tuner | None = None
        self._seen = 0

    def before_run(self, runner: Runner) -> None:
        """Warn of options in the config that the model does not know."""
        warn_if_ignored(runner)

    def before_train(self, runner: Runner) -> None:
        """Refuse options that do not fit the model, and a training that never validates, before any work is done.

        Raises:
            TypeError: for an option of the wrong type.
            ValueError: for one that does not fit, or without a validation.
        """
        self._build(runner)
        if runner.val_loop is None:
            raise ValueError("RankSEGTuningHook tunes when a run validates, and the config has no val_dataloader")
        self._check_images(runner.val_dataloader.dataset)

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin anew: the network has changed since the last validation."""
        self._tuner, self._seen = self._build(runner), 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[SegDataSample] | None = None
    ) -> None:
        """Decode the images of a batch with every candidate."""
        assert self._tuner is not None
        for sample in outputs or ():
            # MMEngine deals images out in turns; what comes beyond the data set repeats images of other processes.
            position = self._seen * get_world_size() + get_rank()
            self._seen += 1
            if position < len(runner.val_dataloader.dataset):
                path = _path(sample)
                probs = _probabilities(model_of(runner), sample, path)
                # Windows of one file have one path: their order shall not depend on who measured them.
                name = f"{path}{NUMBER}{position:08d})"
                if probs.isfinite().all():
                    self._tuner.add(Sample(name, probs, _truth(sample, path), self._case(path) or path))
                else:
                    self._tuner.recorder.skipped[name] = f"{path}: {NO_PROBABILITIES}"

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Choose from the images of all processes, log the verdict and write the decoder."""
        assert self._tuner is not None
        self._tuner.gather()
        if is_main_process():
            self._conclude(runner, self._tuner)
        barrier()  # other processes may want to read the file
        self._tuner = None

    def _build(self, runner: Runner) -> Tuner:
        model = model_of(runner)
        channels = getattr(model, "out_channels", None)
        if channels is None:
            raise TypeError(f"RankSEGTuningHook needs a model with out_channels, {type(model).__name__} has none")
        return Tuner(channels, **self.options, device=next(model.parameters(), torch.empty(0)).device)

    def _check_images(self, dataset: Any) -> None:
        """Refuse, before a training of hours, what its first validation would refuse."""
        sample = dataset[0]["data_samples"]
        path = _path(sample)
        given, wanted = tuple(_truth(sample, path).shape), tuple(sample.ori_shape[:2])
        if given != wanted:
            raise ValueError(
                f"{path}: the ground truth must have the size of the image, {wanted}, got {given}: LoadAnnotations "
                "belongs behind Resize in val_dataloader.dataset.pipeline"
            )
        if self.group_by is not None and hasattr(dataset, "get_data_info"):
            for index in range(len(dataset)):
                listed = image_path(dataset.get_data_info(index))
                if listed is not None:
                    self._case(listed)

    def _case(self, path: str) -> str | None:
        if self.group_by is None:
            return None
        return case_of(path, self.group_by, "RankSEGTuningHook: group_by")

    def _conclude(self, runner: Runner, tuner: Tuner) -> None:
        recorder = tuner.recorder
        if recorder.skipped:
            some = "; ".join(list(recorder.skipped.values())[:3])
            runner.logger.warning(f"RankSEG leaves {len(recorder.skipped)} images out of the tuning: {some}")
        if not recorder.measurements:
            runner.logger.warning("RankSEG has no image to tune on, and writes no decoder")
            return
        names = distinct([measurement.name.rpartition(NUMBER)[0] for measurement in recorder.measurements])
        named = zip(recorder.measurements, names, strict=True)
        recorder.measurements = [replace(measurement, name=name) for measurement, name in named]
        found = tuner.finish(**self.finishing)
        paths = [Path(runner.work_dir) / LATEST, *_beside_checkpoints(runner)]
        for path in paths:
            found.decoder.save(path)
        runner.logger.info(f"RankSEG tuned on {len(recorder.measurements)} images: {found.verdict}")
        runner.logger.info(f"decoder written; to test with it: model.test_cfg.rankseg.tuned={paths[-1]}")
        evidence = found.decoder.evidence
        if evidence["gain"] is not None and evidence["interval"] is not None:
            scalars = zip(("gain", "gain_low", "gain_high"), (evidence["gain"], *evidence["interval"]), strict=True)
            runner.visualizer.add_scalars({f"rankseg/{name}": value for name, value in scalars}, step=step_of(runner))


def _path(sample: SegDataSample) -> str:
    path = image_path(sample)
    if path is None:
        raise ValueError(
            "RankSEGTuningHook names images and cases by img_path, got a data sample without one: add it to meta_keys "
            "of PackSegInputs in val_dataloader.dataset.pipeline"
        )
    return path


def _probabilities(model: nn.Module, sample: SegDataSample, path: str) -> Tensor:
    """(C, H, W) at the original image size."""
    if "seg_logits" not in sample:
        raise TypeError(f"RankSEGTuningHook needs seg_logits, {type(model).__name__} gives none for {path}")
    logits = sample.seg_logits.data
    options = model.rankseg_options() if isinstance(model, RankSEGMixin) else None
    activation = "auto" if options is None else options.activation
    if len(logits) == 1:
        activation = "identity"  # of one channel segmentors hand over probabilities
    return head_probabilities(logits[None], last_head(model), activation)[0]


def _truth(sample: SegDataSample, path: str) -> Tensor:
    if "gt_sem_seg" not in sample:
        raise ValueError(
            f"no ground truth for {path}: RankSEGTuningHook needs LoadAnnotations in val_dataloader.dataset.pipeline"
        )
    found: Tensor = sample.gt_sem_seg.data.squeeze(0)
    return found


def _beside_checkpoints(runner: Runner) -> list[Path]:
    """Where the checkpoint of these weights is, under its name with our suffix, if there is one."""
    if not isinstance(runner._train_loop, BaseLoop):
        return [Path(runner.work_dir) / (Path(runner._load_from).stem + SUFFIX)] if runner._load_from else []
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    return [_folder(hook, runner) / (Path(_checkpoint(hook, runner)).stem + SUFFIX) for hook in hooks]


def _folder(hook: CheckpointHook, runner: Runner) -> Path:
    # In a storage beyond the file system we cannot write.
    return Path(runner.work_dir if "://" in str(hook.out_dir) else hook.out_dir)


def _checkpoint(hook: CheckpointHook, runner: Runner) -> str:
    template = str(hook.filename_tmpl)
    if hook.by_epoch and not isinstance(runner._train_loop, IterBasedTrainLoop):
        return template.format(runner.epoch)
    # Such a loop has one epoch: what MMEngine's default for epochs gives would be the same at every validation.
    return (BY_ITERATION if template == BY_EPOCH else template).format(runner.iter)
