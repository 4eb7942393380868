"""Evaluation through MMSegmentation: ``Runner.test`` with the switch off and on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS
from rich.progress import Progress

from examples.demo.decisions import DECISIONS, Decision, LabelMaps, Outcome, score_areas
from examples.demo.folder import IGNORE_INDEX, Folder
from examples.demo.network import build_runner, make_config
from rankseg_plugins.scores import Areas, areas

#: Name under which the table keeps the dataset IoU of MMSegmentation's own metric, in percent.
OWN_IOU = "IoUMetric mIoU"


@METRICS.register_module()
class KeepLabels(BaseMetric):
    """Keeps the label maps that reach MMSegmentation's evaluator, and counts their areas."""

    def __init__(self) -> None:
        super().__init__(prefix="demo")
        self.labels = LabelMaps()
        self.areas: Areas | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Add a batch."""
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            label, truth = (sample[key]["data"].cpu().long() for key in ("pred_sem_seg", "gt_sem_seg"))
            self.labels.extend(label)
            self.results.append(areas(label, truth, num_classes, IGNORE_INDEX))

    def compute_metrics(self, results: list[Areas]) -> dict[str, float]:
        """Join the counts of all images."""
        self.areas = Areas(*(torch.cat(counts) for counts in zip(*results, strict=True)))
        return {}


def evaluate(folder: Folder, checkpoint: Path, work_dir: Path, progress: Progress) -> dict[Decision, Outcome]:
    """Test the checkpoint once for each decision.

    Args:
        folder: the data.
        checkpoint: of a plain ``EncoderDecoder``.
        work_dir: where the toolkit keeps its log files.
        progress: where the progress bar appears.
    """
    task = progress.add_task("MMSegmentation", total=len(DECISIONS), status="")
    outcomes = {}
    for decision in DECISIONS:
        outcomes[decision] = _test(folder, checkpoint, work_dir, decision)
        progress.update(task, advance=1)
    return outcomes


def _test(folder: Folder, checkpoint: Path, work_dir: Path, decision: Decision) -> Outcome:
    config = make_config(folder, work_dir, type="rankseg_plugins.mmseg.RankSEGEncoderDecoder")
    if decision.options is not None:
        config.model.test_cfg.rankseg = decision.options
    config.load_from = str(checkpoint)
    config.test_evaluator.append({"type": "KeepLabels"})
    runner = build_runner(config)
    own = runner.test()
    kept = runner.test_loop.evaluator.metrics[-1]
    return Outcome(kept.labels, {**score_areas(kept.areas), OWN_IOU: float(own["mIoU"])}, kept.areas)
