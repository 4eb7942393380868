"""RankSEG on volumes: a 3D network in Lightning, a tuned decoder beside it, scored at every level, labels in .npy.

The generated volumes hold an organ and some small lesions in noise. Run it from the checkout, under a minute on a CPU::

    python -m examples.lightning_volume_3d

Nothing about the callback or the decoder is special to volumes: logits are (B, C, D, H, W), labels (B, D, H, W).
"""

# ruff: noqa: D102  # the hooks are Lightning's
from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples.scans import CLASSES, SIZE, Scans
from examples.score_table import print_scores
from rankseg_plugins import RankSEG
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter


class VolumeModel(pl.LightningModule):
    """A few 3D convolutions, trained with cross-entropy."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.net = nn.Sequential(_block(1, 8), _block(8, 8, dilation=2), _block(8, 8), nn.Conv3d(8, len(CLASSES), 1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch["image"]), batch["labels"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.net(batch["image"])

    test_step = predict_step = validation_step

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _block(channels: int, width: int, dilation: int = 1) -> nn.Module:
    convolution = nn.Conv3d(channels, width, 3, padding=dilation, dilation=dilation)
    return nn.Sequential(convolution, nn.BatchNorm3d(width), nn.ReLU())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/volume_3d"), help="folder for the labels")
    parser.add_argument("--steps", type=int, default=150, help="training steps, of two scans each")
    parser.add_argument("--scans", type=int, default=24, help="scans to train on, as many to tune on, half to test on")
    options = parser.parse_args()

    pl.seed_everything(0)
    train = DataLoader(Scans(options.scans, seed=0), batch_size=2, shuffle=True)
    test = DataLoader(Scans(max(1, options.scans // 2), seed=1), batch_size=2)
    val = DataLoader(Scans(options.scans, seed=2), batch_size=2)
    decoder = RankSEG("dice")
    asked = {
        "num_classes": len(CLASSES),
        "logits": lambda outputs, batch: outputs,  # the steps return nothing but the logits
        "target": "labels",
        "scores": ("dice",),
        "worst": 0.1,
    }
    rankseg = RankSEGCallback(decoder, **asked)
    tuned = RankSEGCallback(tune=True, prefix="tuned", **asked)
    writer = RankSEGPredictionWriter(options.out, decoder, names="name")
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=options.steps,
        callbacks=[rankseg, tuned, writer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = VolumeModel(options.steps)
    trainer.fit(model, train)
    trainer.validate(model, val, verbose=False)  # says what it chose
    trainer.test(model, test, verbose=False)
    print(f"\n{len(test.dataset)} test scans of {' x '.join(map(str, SIZE))} voxels:")
    print_scores({"RankSEG": rankseg, "tuned": tuned}, "test")
    trainer.predict(model, test, return_predictions=False)
    first = sorted(options.out.glob("*.npy"))[0]
    counts = np.bincount(np.load(first).ravel(), minlength=len(CLASSES))
    print(f"{first}: " + ", ".join(f"{count} voxels {name}" for name, count in zip(CLASSES, counts, strict=True)))


if __name__ == "__main__":
    main()
