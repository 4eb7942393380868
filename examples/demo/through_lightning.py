"""Evaluation through Lightning: ``Trainer.validate`` with one callback for each decision."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from mmengine.runner import Runner
from rich.progress import Progress
from torch import Tensor, nn

from examples.demo.decisions import ARGMAX, DECISIONS, LEVELS, SCORES, Decision, LabelMaps, Outcome
from examples.demo.folder import IGNORE_INDEX, Folder
from examples.demo.network import logits_and_truth, make_config
from rankseg_plugins.lightning import RankSEGCallback


class Segmentation(pl.LightningModule):
    """A LightningModule around a network, as users write it.

    Args:
        network: an MMSegmentation network, with the switch off.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Return what the callback decodes and scores."""
        logits, target = logits_and_truth(self.network, batch)
        return {"logits": logits, "target": target}


class ProgressCallback(pl.Callback):
    """Moves a progress bar with every validation batch."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the bar."""
        self.task = self.progress.add_task("Lightning", total=sum(trainer.num_val_batches), status="")

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Advance by one batch."""
        self.progress.update(self.task, advance=1)


def evaluate(folder: Folder, network: nn.Module, progress: Progress) -> dict[Decision, Outcome]:
    """Validate once, with every decision at the same time.

    Args:
        folder: the data.
        network: the trained network.
        progress: where the progress bar appears.
    """
    callbacks = {
        decision: RankSEGCallback(
            decision.decoder(),
            num_classes=len(folder.classes),
            ignore_index=IGNORE_INDEX,
            scores=SCORES,
            levels=LEVELS,
            prefix=f"decision{number}",
        )
        for number, decision in enumerate(DECISIONS)
        if decision != ARGMAX
    }
    # Each callback decodes with argmax, too; the first one's stands for all.
    first = next(iter(callbacks.values()))
    labels = {ARGMAX: _keep(first.baseline), **{decision: _keep(each.decoder) for decision, each in callbacks.items()}}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[*callbacks.values(), ProgressCallback(progress)],
    )
    loader = Runner.build_dataloader(make_config(folder).test_dataloader, seed=0)
    trainer.validate(Segmentation(network), loader, verbose=False)
    scores = {ARGMAX: _scores(first, "argmax"), **{decision: _scores(each) for decision, each in callbacks.items()}}
    return {decision: Outcome(labels[decision], scores[decision]) for decision in DECISIONS}


def _keep(decoder: nn.Module) -> LabelMaps:
    """Collect all labels that ``decoder`` decides on from now on."""
    labels = LabelMaps()
    decoder.register_forward_hook(lambda module, inputs, decided: labels.extend(decided))
    return labels


def _scores(callback: RankSEGCallback, baseline: str = "") -> dict[str, float]:
    """The logged scores of RankSEG, or of its baseline."""
    logged = callback.scores_of_stage["val"]
    start = "/".join(part for part in ("val", callback.prefix, baseline) if part)
    return {f"{score}_{level}": logged[f"{start}/{score}_{level}"] for score in SCORES for level in LEVELS}
