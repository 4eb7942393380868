"""RankSEG behind a network of segmentation_models_pytorch, in a LightningModule whose ``predict_step`` gives labels.

Train a small U-Net on generated images, choose a decoder on half of the validation images, and score argmax, RankSEG
and the chosen decoder on the other half. Run it from the checkout, under a minute on a CPU, with the extra ``smp``::

    python -m examples.smp_predict_step
    python -m examples.smp_predict_step --binary

The second has one channel: all else against the background. RankSEG's is one line of ``predict_step``.
``--encoder-weights imagenet`` begins with weights that the library downloads.
"""

# ruff: noqa: D102  # the hooks are Lightning's
from __future__ import annotations

import argparse
from pathlib import Path

import lightning.pytorch as pl
import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from examples.cells import CLASSES, Cells
from examples.score_table import print_decisions
from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.tuning import tune


class CellsModel(pl.LightningModule):
    """A network of one channel for each class, or of one.

    Args:
        classes: channels; of one the label 1 is meant.
        steps: of training.
        encoder_weights: see ``smp.Unet``.
    """

    def __init__(self, classes: int, steps: int, encoder_weights: str | None = None) -> None:
        super().__init__()
        self.model = smp.Unet(
            "mobilenet_v2",
            encoder_depth=3,
            encoder_weights=encoder_weights,
            decoder_channels=(64, 32, 16),
            in_channels=1,
            classes=classes,
        )
        self.loss = torch.nn.BCEWithLogitsLoss() if classes == 1 else torch.nn.CrossEntropyLoss()
        self.activation = "sigmoid" if classes == 1 else "softmax"
        self.decoder: RankSEG | TunedDecoder = RankSEG("dice", output_mode=output_mode(classes))
        self.steps = steps

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        image, mask = batch
        return self.loss(self.model(image), mask[:, None].float() if self.activation == "sigmoid" else mask)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits = self.model.predict(batch[0])
        return self.decoder.predict_logits(logits, self.activation)  # was: logits.argmax(1), or logits > 0

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def output_mode(classes: int) -> str:
    """Of the decoders: masks where there is one channel."""
    return "multilabel" if classes == 1 else "multiclass"


def choose(model: CellsModel, loader: DataLoader, path: Path) -> str:
    """Tune on the images of a loader and write the decoder; what became of it, in a sentence."""
    samples = []
    for batch, (image, mask) in enumerate(loader):
        logits = model.model.predict(image)
        probs = logits.sigmoid() if model.activation == "sigmoid" else logits.softmax(1)
        samples += [(f"batch {batch}, image {i}", *each) for i, each in enumerate(zip(probs, mask, strict=True))]
    found = tune(samples, "dice_image", output_mode=model.decoder.output_mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    found.decoder.save(path)
    return found.verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/smp"), help="folder for decoder.json")
    parser.add_argument("--steps", type=int, default=100, help="training steps, of eight images each")
    parser.add_argument("--images", type=int, default=80, help="for validation: half to tune on, half to score")
    parser.add_argument("--binary", action="store_true", help="one channel: all else against the background")
    parser.add_argument("--encoder-weights", help="such as imagenet, which the library downloads")
    options = parser.parse_args()

    pl.seed_everything(0)
    classes, half = 1 if options.binary else len(CLASSES), options.images // 2
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=options.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = CellsModel(classes, options.steps, options.encoder_weights)
    trainer.fit(model, DataLoader(Cells(96, 0, options.binary), batch_size=8, shuffle=True))

    decoder = options.out / "decoder.json"
    validation = DataLoader(Cells(half, 1, options.binary), batch_size=8)
    print(f"\nOn {half} validation images: {choose(model, validation, decoder)}\n")
    test = DataLoader(Cells(options.images - half, 2, options.binary), batch_size=8)
    ways = {
        "argmax": RankSEG("acc", output_mode=output_mode(classes)),  # of one channel the threshold 1/2
        "RankSEG": model.decoder,
        "tuned": TunedDecoder.load(decoder),
    }
    decisions = {}
    for name, chosen in ways.items():
        model.decoder = chosen
        decisions[name] = torch.cat(trainer.predict(model, test))
    truth = torch.cat([mask for _, mask in test])
    print_decisions(decisions, truth[:, None] if options.binary else truth, classes)


if __name__ == "__main__":
    main()
