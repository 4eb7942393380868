"""Evaluation through TorchMetrics: a plain loop over batches, and one wrapper for each decision."""

from __future__ import annotations

from typing import Any

from mmengine.runner import Runner
from rich.progress import Progress
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from examples.demo.decisions import DECISIONS, LEVELS, SCORES, Decision, LabelMaps, Outcome
from examples.demo.folder import IGNORE_INDEX, Folder
from examples.demo.network import logits_and_truth, make_config
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper


class KeepLabels(Metric):
    """Keeps the label maps that a wrapped metric is handed."""

    full_state_update = False

    def __init__(self, ignore_index: int) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.labels = LabelMaps()

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        self.labels.extend(preds)

    def compute(self) -> dict[str, Any]:
        """Labels are no score."""
        return {}


def evaluate(folder: Folder, network: nn.Module, progress: Progress) -> dict[Decision, Outcome]:
    """Score every decision on the same logits.

    Args:
        folder: the data.
        network: the trained network.
        progress: where the progress bar appears.
    """
    kept = {decision: KeepLabels(IGNORE_INDEX) for decision in DECISIONS}
    metrics = {
        decision: RankSEGWrapper(
            MetricCollection(
                [MultiLevelScore(len(folder.classes), SCORES, LEVELS, ignore_index=IGNORE_INDEX), kept[decision]],
                compute_groups=False,
            ),
            decision.decoder(),
            activation="softmax",
            ignore_index=IGNORE_INDEX,
        )
        for decision in DECISIONS
    }
    loader = Runner.build_dataloader(make_config(folder).test_dataloader, seed=0)
    task = progress.add_task("TorchMetrics", total=len(loader), status="")
    for batch in loader:
        logits, target = logits_and_truth(network, batch)
        for metric in metrics.values():
            metric.update(logits, target)
        progress.update(task, advance=1)
    return {
        decision: Outcome(kept[decision].labels, {name: float(value) for name, value in metric.compute().items()})
        for decision, metric in metrics.items()
    }
