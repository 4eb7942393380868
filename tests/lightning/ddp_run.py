"""Run by the tests with one process and with two: everything the adapter does, results as JSON.

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


def make_callback(**options):
    return RankSEGCallback(RankSEG(metric="dice"), num_classes=CLASSES, ignore_index=255, **options)


def make_loaders():
    """Seven images on two processes: one is shown twice. One image: a process has nothing but a repetition. A sampler
    of the user's: Lightning deals out what it gives.
    """
    return [
        DataLoader(Blobs(items=7, ignore=255, seed=4), batch_size=2),
        DataLoader(Blobs(items=1), batch_size=2),
        DataLoader(Blobs(items=7, seed=5), batch_size=2, sampler=[5, 2, 6, 0, 1]),
    ]


def logged(trainer):
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def evaluate(package, folder, options):
    """Validate, test and predict with an untrained network."""
    callback = make_callback(worst=0.4, log_images=2, levels=("image", "class"))
    writer = RankSEGPredictionWriter(folder / "png", RankSEG(metric="dice"))
    logger = image_logger(package)
    trainer = lightning_nets.trainer(package, folder, callbacks=[callback, writer], logger=logger, **options)
    model, loaders = lightning_nets.module_class(package)(), make_loaders()
    trainer.validate(model, loaders, verbose=False)
    result = logged(trainer)
    trainer.test(model, loaders[0], verbose=False)
    result |= logged(trainer)
    trainer.predict(model, loaders[0], return_predictions=False)
    return {"evaluated": result, "images": logger.images, "rank": trainer.global_rank}


def fit(package, folder, options):
    """Train for one epoch, and resume for another: gradients add up over two batches."""
    own = dict(accumulate_grad_batches=2, num_sanity_val_steps=1, **options)
    for epochs, start in ((1, None), (2, folder / "one.ckpt")):
        callback = make_callback()
        trainer = lightning_nets.trainer(package, folder, callbacks=[callback], max_epochs=epochs, **own)
        torch.manual_seed(0)
        model = lightning_nets.module_class(package)()
        resumed_from = {}
        callback.on_train_start = lambda *_, here=callback, kept=resumed_from: kept.update(here.scores_of_stage)
        train = DataLoader(Blobs(items=9, ignore=255, seed=1), batch_size=2, shuffle=True)
        trainer.fit(model, train, make_loaders(), ckpt_path=start)
        trainer.save_checkpoint(folder / "one.ckpt")
    torch.save(model.state_dict(), folder / f"weights{trainer.global_rank}.pt")
    return {"fitted": callback.scores_of_stage["val"], "steps": trainer.global_step, "resumed_from": resumed_from}


def main(package, processes, folder):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    options = dict(strategy="ddp", devices=processes) if processes > 1 else {}
    result = evaluate(package, folder, options) | fit(package, folder, options)
    (folder / f"rank{result['rank']}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
