"""Run by the tests, once with one process and once with two: everything the adapter does, results as JSON.

python ddp_run.py PACKAGE PROCESSES FOLDER
"""

import importlib
import json
import sys
from pathlib import Path

import lightning_nets
import torch
from lightning_nets import CLASSES, Blobs
from torch.utils.data import DataLoader

from rankseg_plugins import RankSEG
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter


def image_logger(package):
    """A logger that keeps the name and the mean of each image it gets."""

    class Logger(importlib.import_module(f"{package}.loggers").Logger):
        name, version = "images", "0"

        def __init__(self):
            super().__init__()
            self.images = []

        def log_metrics(self, *args, **kwargs):
            pass

        def log_hyperparams(self, *args, **kwargs):
            pass

        def log_image(self, key, images, step):
            self.images.append([key, float(images[0].mean())])

    return Logger()


def main(package, processes, folder):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    callback = RankSEGCallback(
        RankSEG(metric="dice"),
        num_classes=CLASSES,
        ignore_index=255,
        worst=0.4,
        log_images=2,
        levels=("image", "class"),
    )
    writer = RankSEGPredictionWriter(folder / "png", RankSEG(metric="dice"))
    logger = image_logger(package)
    options = dict(strategy="ddp", devices=processes) if processes > 1 else {}
    trainer = lightning_nets.trainer(package, folder, callbacks=[callback, writer], logger=logger, **options)
    model = lightning_nets.module_class(package)()
    # Seven images on two processes: one is shown twice. One image: a process has nothing but a repetition. A sampler
    # of the user's: Lightning deals out what it gives.
    loaders = [
        DataLoader(Blobs(items=7, ignore=255, seed=4), batch_size=2),
        DataLoader(Blobs(items=1), batch_size=2),
        DataLoader(Blobs(items=7, seed=5), batch_size=2, sampler=[5, 2, 6, 0, 1]),
    ]
    trainer.validate(model, loaders, verbose=False)
    result = {name: float(value) for name, value in trainer.callback_metrics.items()}
    trainer.predict(model, loaders[0], return_predictions=False)
    result["rank"], result["images"] = trainer.global_rank, logger.images
    (folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
