"""A warning names the line of the user that gave rise to it, however many calls of toolkits lie between."""

import inspect
import warnings

import pytest
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import compare

#: Softmax of probabilities.
TWICE = (4 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).softmax(1).softmax(1)
TRUTH = TWICE.argmax(1)


def by_comparing():
    samples = [("a", TWICE[0], TRUTH[0]), ("b", TWICE[1], TRUTH[1])]
    return lambda: compare(samples, panels=0)


def by_torchmetrics():
    classification = pytest.importorskip("torchmetrics.classification")
    from rankseg_plugins.torchmetrics import RankSEGWrapper

    wrapper = RankSEGWrapper(classification.MulticlassJaccardIndex(3), RankSEG())
    return lambda: wrapper.update(TWICE, TRUTH)


def by_lightning():
    pl = pytest.importorskip("lightning.pytorch")
    from rankseg_plugins.lightning import RankSEGCallback

    class Model(pl.LightningModule):
        def validation_step(self, batch, batch_idx):
            return {"logits": TWICE, "target": TRUTH}

    callback = RankSEGCallback(RankSEG(), num_classes=3, activation="identity")
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", callbacks=[callback], enable_checkpointing=False, **quiet)
    data, model = torch.utils.data.DataLoader(torch.zeros(2, 1), batch_size=2), Model()
    return lambda: trainer.validate(model, data, verbose=False)


@pytest.mark.filterwarnings("ignore:The 'val_dataloader' does not have many workers")
@pytest.mark.parametrize("way", [by_comparing, by_torchmetrics, by_lightning])
def test_softmax_twice_points_at_the_call(way):
    call = way()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    (found,) = [each for each in caught if "softmax was applied twice" in str(each.message)]
    assert (found.filename, found.lineno) == (__file__, inspect.getsourcelines(call)[1])
