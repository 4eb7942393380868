"""RankSEG in a LightningModule in the style of segmentation_models_pytorch's examples.

Train a small U-Net on generated images, choose the checkpoint by RankSEG's Dice, score argmax, RankSEG and a decoder
that was tuned on the validation images on others, and write the labels of that checkpoint as PNGs. Run it from the
checkout, under a minute on a CPU::

    python -m examples.lightning_smp_style

For your own training, replace ``SmallUnet(CLASSES)`` by ``smp.Unet("resnet34", classes=CLASSES)``, as
``smp_predict_step.py`` has it. Two things are RankSEG's: the step returns its logits, and the Trainer gets the
callback. A network with one channel takes
``RankSEGCallback(RankSEG("dice", output_mode="multilabel"), num_classes=1, activation="sigmoid", target=1)``.
"""

# ruff: noqa: D102  # the hooks are Lightning's
from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples import cells
from examples.score_table import print_scores
from examples.small_unet import SmallUnet
from rankseg_plugins import RankSEG
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter

CLASSES = len(cells.CLASSES)


class CellsModel(pl.LightningModule):
    """A shared step for training and validation, as in segmentation_models_pytorch's examples."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs
        self.model = SmallUnet(CLASSES)
        self.loss_fn = nn.CrossEntropyLoss()

    def shared_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        image, mask = batch
        logits = self.model(image)
        return {"loss": self.loss_fn(logits, mask), "logits": logits}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.shared_step(batch)["loss"]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return self.shared_step(batch)  # with "logits"; the mask is the second item of the batch

    test_step = validation_step

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.model(batch[0])

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/smp_style"), help="folder for what is written")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--images", type=int, default=96, help="training images; a third as many for validation and test"
    )
    options = parser.parse_args()

    pl.seed_everything(0)
    train = DataLoader(cells.Cells(options.images, seed=0), batch_size=8, shuffle=True)
    val, test = (DataLoader(cells.Cells(max(1, options.images // 3), seed=seed), batch_size=8) for seed in (1, 2))
    rankseg = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, target=1, prog_bar=True)
    tuned = RankSEGCallback(num_classes=CLASSES, target=1, tune=True, prefix="tuned")  # the checkpoint holds its choice
    best = ModelCheckpoint(options.out, filename="best", monitor="val/rankseg/dice_image", mode="max")
    writer = RankSEGPredictionWriter(options.out / "labels", RankSEG("dice"))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=options.epochs,
        callbacks=[rankseg, tuned, best, writer],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = CellsModel(options.epochs)
    trainer.fit(model, train, val)
    trainer.test(model, test, ckpt_path="best", verbose=False)
    print(f"\nThe best of {options.epochs} epochs by RankSEG's image Dice, on {len(test.dataset)} other images:")
    print_scores({"RankSEG": rankseg, "tuned": tuned}, "test")
    trainer.predict(model, test, ckpt_path="best", return_predictions=False)
    print(f"labels in {writer.output_dir}, checkpoint {best.best_model_path}")


if __name__ == "__main__":
    main()
