"""RankSEG in front of the metrics of TorchMetrics, which score argmax, RankSEG and a tuned decoder on the same logits.

Train a small U-Net on generated images, choose a decoder on half of the validation images, and score all three on the
other half. Run it from the checkout, under a minute on a CPU::

    python -m examples.torchmetrics_scores

RankSEG's is ``RankSEGWrapper`` around the metrics that you have: it decides, and they get labels or masks. Everything
else is a loop as usual. ``DiceScore`` and ``MeanIoU`` average over images; ``JaccardIndex`` pools the pixels of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import JaccardIndex, Metric, MetricCollection
from torchmetrics.segmentation import DiceScore, MeanIoU

from examples import cells
from examples.score_table import print_columns
from examples.small_unet import SmallUnet
from rankseg_plugins import RankSEG
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper
from rankseg_plugins.tuning import tune

CLASSES = len(cells.CLASSES)


def train(network: nn.Module, images: cells.Cells, epochs: int) -> None:
    loader = DataLoader(images, batch_size=8, shuffle=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for image, mask in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(image), mask).backward()
            optimizer.step()
            schedule.step()
    network.eval()


def choose(network: nn.Module, images: cells.Cells, path: Path) -> str:
    """Tune on some images and write the decoder; what became of it, in a sentence."""
    samples = [
        (f"image{index}", network(image[None])[0].softmax(0), mask) for index, (image, mask) in enumerate(images)
    ]
    found = tune(samples, "dice_image")
    path.parent.mkdir(parents=True, exist_ok=True)
    found.decoder.save(path)
    return found.verdict


def make_metrics() -> MetricCollection:
    """What is scored: metrics of TorchMetrics, and one that also says how the worst tenth of the images does."""
    return MetricCollection(
        {
            "DiceScore": DiceScore(CLASSES, average="macro"),
            "MeanIoU": MeanIoU(CLASSES),
            "JaccardIndex": JaccardIndex("multiclass", num_classes=CLASSES),
            "MultiLevelScore": MultiLevelScore(CLASSES, "dice", ("image", "class"), worst=0.1),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/torchmetrics"), help="folder for decoder.json")
    parser.add_argument("--epochs", type=int, default=8, help="of training, on 96 images")
    parser.add_argument("--images", type=int, default=80, help="for validation: half to tune on, half to score")
    options = parser.parse_args()

    torch.manual_seed(0)
    network, half = SmallUnet(CLASSES), options.images // 2
    train(network, cells.Cells(96, seed=0), options.epochs)
    path = options.out / "decoder.json"
    with torch.no_grad():
        print(f"On {half} validation images: {choose(network, cells.Cells(half, seed=1), path)}\n")

    metrics: dict[str, Metric] = {
        "argmax": RankSEGWrapper(make_metrics(), RankSEG("acc"), "softmax"),
        "RankSEG": RankSEGWrapper(make_metrics(), RankSEG("dice"), "softmax"),
        "tuned": RankSEGWrapper(make_metrics(), path, "softmax"),
    }
    with torch.no_grad():
        for image, mask in DataLoader(cells.Cells(options.images - half, seed=2), batch_size=8):
            logits: Tensor = network(image)
            for metric in metrics.values():
                metric.update(logits, mask)
    print_columns(
        {name: {score: 100 * float(value) for score, value in each.compute().items()} for name, each in metrics.items()}
    )


if __name__ == "__main__":
    main()
