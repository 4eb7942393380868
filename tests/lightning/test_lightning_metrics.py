"""Metrics in a RankSEGWrapper, logged by Lightning's own ``self.log``."""

import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

from lightning_nets import CLASSES, loader
from test_lightning_figures import bare_logger
from torchmetrics import MetricCollection
from torchmetrics.segmentation import MeanIoU

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.torchmetrics import RankSEGWrapper


def test_steps_and_epochs_are_logged(segmenter, make_trainer, package):
    class Scored(segmenter):
        def __init__(self):
            super().__init__()
            self.iou = RankSEGWrapper(MeanIoU(CLASSES), RankSEG("iou"), "softmax")
            self.both = MetricCollection(
                {name: RankSEGWrapper(MeanIoU(CLASSES), RankSEG(name), "softmax") for name in ("iou", "acc")},
                prefix="val/",
            )

        def validation_step(self, batch, batch_idx):
            logits, target = self(batch[0]), batch[1]
            self.iou(logits, target)
            self.log("iou", self.iou, on_step=True, on_epoch=True)
            self.both.update(logits, target)
            self.log_dict(self.both, on_step=False, on_epoch=True)

    logged = []
    logger = bare_logger(package, log_metrics=lambda self, metrics, step=None: logged.append(metrics))
    model, data = Scored(), loader()
    trainer = make_trainer(logger=logger)
    for _ in range(2):  # Lightning resets the metrics in between
        logged.clear()
        trainer.validate(model, data, verbose=False)
        steps = [metrics["iou_step"] for metrics in logged if "iou_step" in metrics]
        ours, argmax = MeanIoU(CLASSES, input_format="index"), MeanIoU(CLASSES, input_format="index")
        with torch.no_grad():
            probs = [(model(image).softmax(1), target) for image, target in data]
        expected = [float(ours(rankseg(each, metric="iou"), target)) for each, target in probs]
        for each, target in probs:
            argmax.update(each.argmax(1), target)
        assert [float(step) for step in steps] == expected
        epoch = {name: float(value) for name, value in trainer.callback_metrics.items()}
        assert epoch["iou_epoch"] == epoch["val/iou"] == float(ours.compute())
        assert epoch["val/acc"] == float(argmax.compute()) != epoch["val/iou"]
