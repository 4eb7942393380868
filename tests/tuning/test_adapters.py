"""A tuned decoder, read from its file, stands wherever a RankSEG stands."""

import pytest
import torch

from rankseg_plugins import GlobalRankSEG, RankSEG
from rankseg_plugins.calibration.tuned import TunedDecoder


@pytest.fixture(params=["samplewise", "global"])
def decoder(request, tmp_path):
    inner = RankSEG("iou", pruning_prob=0.1)
    if request.param == "global":
        inner = GlobalRankSEG(3, min_gain=0)
        inner.update((2 * torch.randn(8, 3, 20, 20, generator=torch.Generator().manual_seed(0))).softmax(1))
        inner.fit()
    TunedDecoder(inner, 3, 0.7).save(tmp_path / "decoder.json")
    return TunedDecoder.load(tmp_path / "decoder.json")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(4, 3, 16, 16, generator=generator), torch.randint(0, 3, (4, 16, 16), generator=generator)


def test_torchmetrics(decoder, batch):
    pytest.importorskip("torchmetrics.segmentation")
    from torchmetrics.classification import MulticlassJaccardIndex

    from rankseg_plugins.torchmetrics import RankSEGWrapper

    logits, target = batch
    wrapped, plain = RankSEGWrapper(MulticlassJaccardIndex(3), decoder), MulticlassJaccardIndex(3)
    probs = logits.softmax(1)
    wrapped.update(probs, target)
    plain.update(decoder(probs), target)
    assert wrapped.compute() == plain.compute()


def test_lightning(decoder, batch, tmp_path):
    pytest.importorskip("pytorch_lightning")
    from pytorch_lightning import LightningModule, Trainer
    from torch.utils.data import DataLoader, TensorDataset

    from rankseg_plugins.lightning import RankSEGCallback
    from rankseg_plugins.scores.areas import areas
    from rankseg_plugins.scores.levels import dice, image_level

    class Identity(LightningModule):
        def validation_step(self, batch, batch_idx):
            return {"logits": batch[0]}

    callback = RankSEGCallback(decoder, num_classes=3, target=1)
    trainer = Trainer(
        callbacks=[callback], logger=False, accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False
    )
    trainer.validate(Identity(), DataLoader(TensorDataset(*batch), batch_size=2), verbose=False)
    logits, target = batch
    expected = image_level(areas(decoder(logits.softmax(1)), target, 3), dice)
    assert callback.scores_of_stage["val"]["val/rankseg/dice_image"] == pytest.approx(float(expected), abs=1e-6)
