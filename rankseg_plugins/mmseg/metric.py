"""``MultiLevelIoUMetric``: scores at dataset, image and class level, of one decision or of two side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import Tensor

from rankseg_plugins._warning import warn
from rankseg_plugins.comparison import Scoring
from rankseg_plugins.comparison.telling.trust import describe_trust
from rankseg_plugins.core.inputs.options import ABSENT, PRESENT, read_index, read_real
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.files.label_files import LabelFiles, encode_png
from rankseg_plugins.mmseg.reporting import RunReport
from rankseg_plugins.mmseg.samples import argmax_field, expected_in, image_path, options_in, presence_in
from rankseg_plugins.mmseg.tables import class_table, level_table, percent
from rankseg_plugins.report.words import describe_left_out
from rankseg_plugins.report.writing import check_report
from rankseg_plugins.scores import Areas, areas, levels
from rankseg_plugins.scores.shown import left_out

#: Scores that each entry of ``iou_metrics`` brings, in ``IoUMetric``'s order.
SCORES = {"mIoU": ("IoU", "Acc"), "mDice": ("Dice", "Acc")}
FUNCTIONS = {"IoU": levels.iou, "Dice": levels.dice, "Acc": levels.recall}
#: What ``IoUMetric.total_area_to_metrics`` is told to put in place of absent classes.
FILLS = {"skip": None, "zero": 0, "one": 1}


@METRICS.register_module()
class MultiLevelIoUMetric(BaseMetric):
    """IoU, Dice and accuracy at dataset, image and class level, and of the worst images.

    A drop-in for ``IoUMetric``: it computes the dataset level (``aAcc``, ``mIoU``, ``mAcc``, ``mDice``; percent, two
    digits), so that names and digits are the same. The other levels are those of
    ``rankseg_plugins.scores.levels``, in float64 until they are rounded:

    * ``image_mIoU``, ...: mean over the classes of an image, then over images;
    * ``class_mIoU``, ...: mean over the images of a class, then over classes;
    * ``worst_mIoU``, ...: mean of the lowest image scores.

    Where the data samples carry argmax's labels beside RankSEG's (``model.test_cfg.rankseg.compare=True``), both are
    scored in the same run: ``argmax_<name>`` and ``difference_<name>`` (RankSEG minus argmax) join the results, and
    the tables show them side by side, with the number of images on which either is better.

    Every process keeps counts alone, C integers per image, and merging loses nothing; for a report also the labels of
    the ten images that RankSEG changes most, and, of a decoder that knows which classes are there, C numbers per image.

    Args:
        ignore_index: label of the ground truth whose pixels do not count.
        iou_metrics: ``"mIoU"``, ``"mDice"`` or both, one name or a list.
        present: at image and class level a class has a score where prediction or truth hold it (``"union"``), or
            only where the truth does (``"label"``). Accuracy is always taken where the truth holds the class.
        absent: classes without a score are left out (``"skip"``) or count as ``"zero"`` or ``"one"``.
        worst_share: share of the images in the ``worst_`` scores, in (0, 1].
        output_dir: folder for the predicted labels as PNG files, one per image under the name of its file, created if
            absent; 8 bit grey, 16 bit for labels above 255. With ``reduce_zero_label`` classes begin at 1, as in the
            files of the ground truth; void labels stay.
        format_only: True only writes files and needs no ground truth; needs ``output_dir``.
        keep_results: accepted because ``tools/test.py --out`` sets it; files in ``output_dir`` are always kept.
        collect_device: ``"cpu"`` or ``"gpu"``, where results of several processes meet.
        prefix: put before every name of the results.
        collect_dir: folder through which processes exchange results when ``collect_device="cpu"``.
        report: folder for the report of argmax against RankSEG (see
            ``Comparison``), written anew by every evaluation, whose verdict the log shows; needs ``compare``. Image
            Dice (image IoU without ``mDice``) decides what is better. It names options, config and checkpoint; pictures
            have the data set's palette, and the photographs beside them. With ``model.test_cfg.rankseg.expected_score``
            it says which images can be trusted. It says nothing about calibration: data samples hold logits, and which
            activation makes probabilities of them only the model knows.

    Raises:
        TypeError: if ``report`` is not a path.
        ValueError: for an unknown or unfitting option. While running: if an image has no ground truth, a true or
            predicted label outside the class range, or a size other than its prediction; the message names the file.
            If two images would be written to one file. If labels of argmax are of another decision than the
            prediction, which a foreign wrapper for test-time augmentation replaces. With ``report``, if there are none;
            in a validation that is a warning, and no report is written.
        ImportError: if ``report`` needs a package that is not installed.
        OSError: if a folder or file cannot be written.

    Example:
        In a config: ``test_evaluator = dict(type='rankseg_plugins.mmseg.MultiLevelIoUMetric')``
    """

    def __init__(
        self,
        ignore_index: int = 255,
        iou_metrics: str | Sequence[str] = ("mIoU", "mDice"),
        present: str = "union",
        absent: str = "skip",
        worst_share: float = 0.1,
        output_dir: str | None = None,
        format_only: bool = False,
        keep_results: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
        report: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        asked = [iou_metrics] if isinstance(iou_metrics, str) else list(iou_metrics)
        if not asked:
            raise ValueError(f"iou_metrics must name at least one of {', '.join(SCORES)}")
        for name in asked:
            check_choice("iou_metrics", name, tuple(SCORES))
        check_choice("present", present, PRESENT)
        check_choice("absent", absent, tuple(ABSENT))
        if not read_real("worst_share", worst_share, 0.0, 1.0) > 0:
            raise ValueError(f"worst_share must lie in (0, 1], got {worst_share!r}")
        if format_only and not output_dir:
            raise ValueError("format_only=True writes predictions to files and needs output_dir")
        if format_only and report is not None:
            raise ValueError("format_only=True scores nothing, report needs scores: give one of them")
        self.iou_metrics = asked
        self.scores = list(dict.fromkeys(score for name in asked for score in SCORES[name]))
        self.ignore_index = read_index("ignore_index", ignore_index)
        self.present, self.absent = present, absent
        self.worst_share, self.format_only, self.keep_results = worst_share, format_only, keep_results
        self.output_dir = Path(output_dir) if output_dir else None
        self._files = None if self.output_dir is None else LabelFiles(self.output_dir)
        if self.output_dir is not None and is_main_process():
            self.output_dir.mkdir(parents=True, exist_ok=True)
        self._seen, self._warned = 0, False
        self.report = None
        if report is not None:
            scoring = Scoring("dice" if "mDice" in asked else "iou", present, absent)
            self.report = RunReport(check_report(report), self.ignore_index, scoring)

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """What the data set says about itself; it must name its classes, which is checked before any image."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict[str, Any] | None) -> None:
        self._dataset_meta = dataset_meta
        if dataset_meta is not None:
            self._classes()

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Count the areas of a batch of images.

        Args:
            data_batch: not used.
            data_samples: data samples as dicts with ``pred_sem_seg``, unless ``format_only`` with ``gt_sem_seg``, and
                optionally with ``pred_sem_seg_argmax``; each ``data`` is (1, H, W).
        """
        for sample in data_samples:
            label = sample["pred_sem_seg"]["data"]
            if not self.format_only:
                self.results.append(self._count(sample, label))
            if self._files is not None:
                self._write(self._files, sample, label)
            self._seen += 1

    def evaluate(self, size: int) -> dict[str, float]:
        """Score the images of all processes; see ``BaseMetric``.

        Args:
            size: number of images of the data set: what samplers repeat beyond it is dropped.

        Raises:
            ValueError: if labels of two images would have been written to one file by two processes.
        """
        seen, self._seen = self._seen, 0
        if self.report is not None:
            self.report.gather()
        if self._files is not None:
            repeated = sum(_position(index) >= size for index in range(seen))
            self._files.finish(seen - repeated)
        found: dict[str, float] = super().evaluate(size)
        return found

    def _count(self, sample: dict[str, Any], label: Tensor) -> dict[str, Any]:
        where = _where(sample)
        if "gt_sem_seg" not in sample:
            raise ValueError(
                f"no ground truth for {where}: MultiLevelIoUMetric needs LoadAnnotations in "
                "test_dataloader.dataset.pipeline, or format_only=True to write predictions without scores"
            )
        truth = sample["gt_sem_seg"]["data"].to(label.device).long()
        classes = len(self._classes())
        _check_classes(sample, label, classes, where)
        argmax = argmax_field(sample)
        both = [label] if argmax is None else [label, argmax["data"]]
        if self.report is not None and argmax is None:
            self._miss_argmax(where)
        try:
            counts = [areas(each.long(), truth, classes, self.ignore_index) for each in both]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        # Plain tensors, because mmengine takes named tuples apart on the way to compute_metrics.
        found: dict[str, Any] = {
            name: torch.cat(each).cpu() for name, each in zip(("decided", "argmax"), counts, strict=False)
        }
        if self.report is not None:
            found["path"] = image_path(sample) or "image"
        if self.report is not None and argmax is not None:
            maps = [each.squeeze(0) for each in (truth, both[1], label)]
            self.report.consider(_position(self._seen), (found["argmax"], found["decided"]), maps)
            found["presence"] = self.report.judge(presence_in(sample), maps[0], classes)
            found["options"] = options_in(sample)
            found["same"] = torch.equal(*maps[1:])
            found["expected"] = self.report.expected(expected_in(sample), classes)
        return found

    def _miss_argmax(self, where: str) -> None:
        """Refuse a report without anything to compare; a training goes on without the report."""
        problem = (
            f"{where}: report needs argmax's labels beside RankSEG's: set model.test_cfg.rankseg.compare=True, and "
            "model.type to a RankSEG segmentor such as 'rankseg_plugins.mmseg.RankSEGEncoderDecoder'"
        )
        # A metric does not see the model before the first validation, when a training may have run for hours.
        if MessageHub.get_current_instance().get_info("loop_stage", None) != "val":
            raise ValueError(problem)
        if not self._warned and is_main_process():
            warn(f"{problem}. No report is written")
        self._warned = True

    def _classes(self) -> Sequence[str]:
        classes: Sequence[str] = (self.dataset_meta or {}).get("classes", ())
        if not classes:
            raise ValueError("the dataset names no classes; set metainfo=dict(classes=...) in the dataset's config")
        return classes

    def _write(self, files: LabelFiles, sample: dict[str, Any], label: Tensor) -> None:
        path = image_path(sample)
        if path is None:
            raise ValueError(
                "output_dir names files after images, got a data sample without img_path: add it to meta_keys of "
                "PackSegInputs in test_dataloader.dataset.pipeline"
            )
        classes, shifted = len(self._classes()), bool(sample.get("reduce_zero_label", False))
        mask = label.squeeze(0).long().cpu().numpy()
        # As IoUMetric: with reduce_zero_label, files hold the labels of the ground truth files. Void is no class.
        mask = mask + (mask < classes) if shifted else mask
        try:
            data = encode_png(mask, wide=classes + shifted > 256)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        files.write(f"{PurePath(path).stem}.png", data, f"{path} (no. {_position(self._seen)})")

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Score the counts of all images, print the tables and write the report.

        Args:
            results: for each image (3, C) counts of ``decided`` and, when comparing, of ``argmax``; for a report also
                its ``path``, whether both decisions are the ``same``, (C,) ``presence``, ``options`` in words and what
                is ``expected``, of which the last three may be None.

        Returns:
            Percentages by name, rounded to two digits; empty with ``format_only``.

        Raises:
            ValueError: if there are no results, or only some images carry argmax's labels.
        """
        logger = MMLogger.get_current_instance()
        if self.format_only:
            print_log(f"predictions are saved to {self.output_dir}", logger)
            return {}
        if not results:
            raise ValueError("MultiLevelIoUMetric has no images to score")
        both = [image["argmax"] for image in results if "argmax" in image]
        if len(both) not in (0, len(results)):
            raise ValueError("only some images carry argmax's labels: model.test_cfg.rankseg changed during the run")
        decided = _joined([image["decided"] for image in results])
        columns = {"argmax": _joined(both), "RankSEG": decided} if both else {"score": decided}
        pooled = {title: self._pooled_scores(counts) for title, counts in columns.items()}
        images = {title: self._image_scores(counts) for title, counts in columns.items()}
        summaries = {title: self._summary(counts, pooled[title], images[title]) for title, counts in columns.items()}
        print_log("per class results:", logger)
        print_log("\n" + class_table(self._classes(), self.scores, pooled), logger)
        print_log("results by level:", logger)
        print_log("\n" + level_table(summaries, images), logger)
        if both:
            self._warn_if_left_out(columns["argmax"], decided, logger)
        if self.report is not None and both:
            stacked = np.stack([torch.stack(list(counts)).numpy() for counts in columns.values()])
            comparison = self.report.write(results, stacked, self.dataset_meta or {})
            print_log(comparison.verdict().sentence, logger)
            trust = describe_trust(comparison, comparison.candidates[0])
            if trust is not None:
                print_log(trust, logger)
            print_log(f"report of argmax against RankSEG: {self.report.folder / 'report.html'}", logger)
        return _named(list(summaries.values()))

    def _warn_if_left_out(self, argmax: Areas, decided: Areas, logger: MMLogger) -> None:
        said = describe_left_out(left_out(argmax, decided), self._classes(), "RankSEG")
        if said is not None:
            print_log(said, logger, level=logging.WARNING)

    def _pooled_scores(self, counts: Areas) -> dict[str, np.ndarray]:
        """Scores of every class over the dataset, by IoUMetric itself, whose float32 sums decide the last digit."""
        pixels = (counts.intersection, counts.union, counts.prediction, counts.label)
        totals = [sum(count.float()) for count in pixels]
        found: dict[str, np.ndarray] = IoUMetric.total_area_to_metrics(
            *totals, metrics=self.iou_metrics, nan_to_num=FILLS[self.absent]
        )
        return found

    def _image_scores(self, counts: Areas) -> dict[str, Tensor]:
        return {score: levels.image_scores(counts, *self._counting(score)) for score in self.scores}

    def _counting(self, score: str) -> tuple[levels.Score, str, str]:
        """What the functions of ``levels`` take after the counts."""
        return FUNCTIONS[score], "label" if score == "Acc" else self.present, self.absent

    def _summary(self, counts: Areas, pooled: dict[str, np.ndarray], images: dict[str, Tensor]) -> dict[str, float]:
        classes = {score: levels.class_scores(counts, *self._counting(score)) for score in self.scores}
        worst = {score: levels.worst(images[score], self.worst_share) for score in self.scores}
        summary = {"aAcc": percent(pooled["aAcc"])}
        for prefix, by_score in (("", pooled), ("image_", images), ("class_", classes), ("worst_", worst)):
            summary.update({f"{prefix}m{score}": percent(by_score[score]) for score in self.scores})
        return summary


def _where(sample: dict[str, Any]) -> str:
    """The file to name in messages: that of the truth, or else of the image."""
    return str(sample.get("seg_map_path") or image_path(sample) or "an image without a path")


def _position(index: int) -> int:
    """Place in the data set of this process's image, which it sees as number ``index``.

    MMEngine deals images out in turns, so that positions tell images apart where paths do not (windows of one file);
    those beyond the data set repeat others.
    """
    found: int = index * get_world_size() + get_rank()
    return found


def _check_classes(sample: dict[str, Any], label: Tensor, classes: int, where: str) -> None:
    """Refuse classes that the dataset does not name; void, which is no channel of the model either, may be there."""
    channels = sample["seg_logits"]["data"].shape[0] if "seg_logits" in sample else 0
    if channels > classes and ((label >= classes) & (label < channels)).any():
        raise ValueError(
            f"{where}: prediction holds labels above {classes - 1}, because model.decode_head.num_classes gives "
            f"{channels} classes and the dataset's metainfo names {classes}"
        )


def _joined(images: list[Tensor]) -> Areas:
    return Areas(*torch.stack(images, dim=1))


def _named(summaries: list[dict[str, float]]) -> dict[str, float]:
    """One summary, or argmax's and RankSEG's: then with their names and difference added."""
    results = dict(summaries[-1])
    if len(summaries) > 1:
        argmax, decided = summaries
        results.update({f"argmax_{name}": value for name, value in argmax.items()})
        results.update({f"difference_{name}": round(decided[name] - argmax[name], 2) for name in decided})
    return results
