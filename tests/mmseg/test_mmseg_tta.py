"""Test-time augmentation: average the probabilities of the views once, decide once."""

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
import torch
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import rankseg_plugins.core
from rankseg_plugins import rankseg
from rankseg_plugins.mmseg import RankSEGTTAModel

PATH = "rankseg_plugins.mmseg."
ON = {"metric": "dice", "pruning_prob": 0.1}
PIPELINE = [
    {"type": "LoadImageFromFile"},
    {
        "type": "TestTimeAug",
        "transforms": [
            [{"type": "Resize", "scale": (size, size), "keep_ratio": False} for size in (64, 96)],
            [{"type": "RandomFlip", "prob": prob, "direction": "horizontal"} for prob in (0.0, 1.0)],
            [{"type": "LoadAnnotations"}],
            [{"type": "PackSegInputs"}],
        ],
    },
]


def run(dataset, path, network, tta_type):
    full = tiny.config({"type": tta_type, "module": network}, dataset, path, batch_size=1)
    full.test_dataloader.dataset.pipeline = PIPELINE
    weights = {f"module.{key}": value for key, value in tiny.build(network).state_dict().items()}
    return tiny.evaluate(full, weights)


def test_off_is_stock(dataset, tmp_path):
    stock = run(dataset, tmp_path, tiny.model(), "SegTTAModel")
    ours = run(dataset, tmp_path, tiny.model(PATH + "RankSEGEncoderDecoder"), PATH + "RankSEGTTAModel")
    assert ours[0] == stock[0]
    for left, right in zip(stock[1], ours[1], strict=True):
        assert torch.equal(left["pred_sem_seg"]["data"], right["pred_sem_seg"]["data"])


def test_on_averages_and_decides_once(dataset, tmp_path, monkeypatch):
    decisions = []
    forward = rankseg_plugins.core.RankSEG.forward
    monkeypatch.setattr(rankseg_plugins.core.RankSEG, "forward", lambda *each: decisions.append(1) or forward(*each))
    options = {**ON, "compare": True}
    network = tiny.model(PATH + "RankSEGEncoderDecoder", rankseg=options)
    _, ours = run(dataset, tmp_path, network, PATH + "RankSEGTTAModel")
    _, stock = run(dataset, tmp_path, tiny.model(), "SegTTAModel")
    assert len(decisions) == len(ours) == 7
    changed = 0
    for sample, argmax in zip(ours, stock, strict=True):
        probs, label = sample["seg_logits"]["data"], sample["pred_sem_seg"]["data"]
        assert torch.allclose(probs.sum(0), torch.ones(()))
        assert torch.equal(label, rankseg(probs[None], **ON))
        assert torch.equal(sample["pred_sem_seg_argmax"]["data"], argmax["pred_sem_seg"]["data"])
        assert "gt_sem_seg" in sample
        assert not sample["flip"]
        changed += (label != argmax["pred_sem_seg"]["data"]).sum()
    assert changed > 0


@pytest.mark.parametrize("kind", ["EncoderDecoder", "CascadeEncoderDecoder"])
@pytest.mark.parametrize("options", [None, ON])
def test_unlikely_foreground_of_one_channel_stays_background(kind, options):
    """SegTTAModel applies the sigmoid twice and makes everything foreground."""
    module = MODELS.build(tiny.model(f"{PATH}RankSEG{kind}", 2, 1, options))
    module.inference = lambda inputs, metas: torch.full((1, 1, *inputs.shape[2:]), -5.0)
    model = RankSEGTTAModel(module)
    views = {
        "inputs": [[torch.zeros(3, 8, 8, dtype=torch.uint8)]] * 2,
        "data_samples": [[SegDataSample(metainfo={"ori_shape": (8, 8), "img_path": "a.png"})] for _ in range(2)],
    }
    (merged,) = model.test_step(views)
    assert merged.pred_sem_seg.data.sum() == 0
    assert torch.allclose(merged.seg_logits.data, torch.tensor(-5.0).sigmoid())

    stock = MODELS.build(tiny.model("EncoderDecoder", 2, 1))
    view = SegDataSample(metainfo={"img_path": "a.png"})
    view.seg_logits = PixelData(data=torch.full((1, 8, 8), -5.0).sigmoid())
    (theirs,) = SegTTAModel(stock).merge_preds([[view]])
    assert theirs.pred_sem_seg.data.sum() == 64


def test_views_leave_the_segmentor_as_it_was():
    module = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", rankseg=ON))
    logits = torch.randn(1, 4, 8, 8) * 2
    before = module.postprocess_result(logits)[0].pred_sem_seg.data
    with pytest.raises(RuntimeError, match="stop"), module.probabilities_only():
        raise RuntimeError("stop")
    assert torch.equal(module.postprocess_result(logits)[0].pred_sem_seg.data, before)


def test_a_stock_segmentor_is_refused():
    with pytest.raises(TypeError, match=r"set model\.type"):
        RankSEGTTAModel(tiny.model())
