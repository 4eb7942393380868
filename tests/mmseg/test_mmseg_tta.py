"""Test-time augmentation: average the probabilities of the views once, decide once."""

import warnings

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import numpy as np
import tiny
import torch
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

import rankseg_plugins.core
from rankseg_plugins import rankseg
from rankseg_plugins.mmseg import RankSEGTTAModel
from rankseg_plugins.mmseg.visualization import draw_panels

PATH = "rankseg_plugins.mmseg."
ON = {"metric": "dice", "pruning_prob": 0.1}
META = {"img_path": "a.png", "ori_shape": (8, 8)}
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


def run(dataset, path, network, tta_type, **options):
    full = tiny.config({"type": tta_type, "module": network}, dataset, path, **{"batch_size": 1, **options})
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


def test_figures_of_a_comparison_are_those_of_one_decision(dataset, tmp_path):
    """Argmax and RankSEG over the same averaged probabilities, scored by the toolkit's own metric."""
    network = tiny.model(PATH + "RankSEGEncoderDecoder", rankseg={**ON, "compare": True})
    evaluator = {"type": PATH + "MultiLevelIoUMetric"}
    scores, kept = run(dataset, tmp_path, network, PATH + "RankSEGTTAModel", evaluator=evaluator)
    expected = {}
    for start, decide in {
        "": lambda probs: rankseg(probs[None], **ON),
        "argmax_": lambda probs: probs.argmax(0),
    }.items():
        stock = IoUMetric(iou_metrics=["mIoU", "mDice"])
        stock.dataset_meta = {"classes": tiny.CLASSES}
        stock.process({}, [{**each, "pred_sem_seg": {"data": decide(each["seg_logits"]["data"])}} for each in kept])
        expected |= {f"{start}{name}": value for name, value in stock.evaluate(len(kept)).items()}
    assert {name: scores[name] for name in expected} == expected
    assert scores["mIoU"] != scores["argmax_mIoU"]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_comparison_under_the_stock_wrapper_is_refused(dataset, tmp_path, batch_size):
    """It puts argmax over all views beside the labels of one view."""
    network = tiny.model(PATH + "RankSEGEncoderDecoder", rankseg={**ON, "compare": True})
    evaluator = {"type": PATH + "MultiLevelIoUMetric"}
    words = (
        r"00\.png: pred_sem_seg is not what RankSEG decided.*tta_model\.type='rankseg_plugins\.mmseg\.RankSEGTTAModel'"
    )
    with pytest.raises(ValueError, match=words), pytest.warns(UserWarning, match="may have no effect"):
        run(dataset, tmp_path, network, "SegTTAModel", evaluator=evaluator, batch_size=batch_size)


def test_panels_of_a_comparison_under_the_stock_wrapper_are_refused(dataset, tmp_path):
    network = tiny.model(PATH + "RankSEGEncoderDecoder", rankseg={**ON, "compare": True})
    hooks = [{"type": PATH + "RankSEGVisualizationHook"}]
    with pytest.raises(ValueError, match=r"SegTTAModel decides by argmax alone: set tta_model\.type="):
        run(dataset, tmp_path, network, "SegTTAModel", custom_hooks=hooks)
    module = MODELS.build(network)
    views = module.postprocess_result(torch.randn(2, 4, 8, 8), [SegDataSample(metainfo=META) for _ in range(2)])
    (merged,) = SegTTAModel(module).merge_preds([views])
    with pytest.raises(ValueError, match=r"a\.png: pred_sem_seg is not what RankSEG decided"):
        draw_panels(SegLocalVisualizer(), np.zeros((8, 8, 3), np.uint8), merged)


def test_a_switch_that_the_stock_wrapper_drops_is_told(dataset, tmp_path):
    network = tiny.model(PATH + "RankSEGEncoderDecoder", rankseg=ON)
    with pytest.warns(
        UserWarning, match=r"model\.test_cfg\.rankseg may have no effect: .*00\.png.*RankSEGTTAModel"
    ) as told:
        run(dataset, tmp_path, network, "SegTTAModel")
    assert sum("may have no effect" in str(each.message) for each in told) == 1


def test_nothing_is_told_where_nothing_is_dropped(dataset, tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        network = tiny.model(PATH + "RankSEGEncoderDecoder", rankseg=ON)
        run(dataset, tmp_path / "augmented", network, PATH + "RankSEGTTAModel")
        tiny.evaluate(tiny.config(network, dataset, tmp_path / "plain"))
        module = MODELS.build(network)
        for _ in range(2):  # the same image once more, in the same form
            module.postprocess_result(torch.randn(1, 4, 8, 8), [SegDataSample(metainfo=META)])
        for width in (8, 5):  # windows of one file, resized to one size
            window = {"img_path": "b.png", "ori_shape": (8, width), "scale_factor": (8 / width, 1.0)}
            module.postprocess_result(torch.randn(1, 4, 8, 8), [SegDataSample(metainfo=window)])
        module.test_cfg["rankseg"] = None
        run(dataset, tmp_path / "off", tiny.model(PATH + "RankSEGEncoderDecoder"), "SegTTAModel")
    assert not [each for each in told if "no effect" in str(each.message)]


def test_no_labels_of_an_earlier_decision_stay():
    """One data sample, decided with `compare`, without it, and by plain argmax."""
    module = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", rankseg={**ON, "compare": True}))
    sample, logits = SegDataSample(metainfo=META), torch.randn(1, 4, 8, 8)
    assert "pred_sem_seg_argmax" in module.postprocess_result(logits, [sample])[0]
    for changed in (ON, None):
        module.test_cfg["rankseg"] = {**ON, "compare": True}
        module.postprocess_result(logits, [sample])
        module.test_cfg["rankseg"] = changed
        assert "pred_sem_seg_argmax" not in module.postprocess_result(logits, [sample])[0]


def test_half_precision_of_probabilities_is_averaged_in_single():
    module = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", rankseg={**ON, "activation": "identity"}))
    probs = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).softmax(1).bfloat16()
    with module.probabilities_only():
        views = [module.postprocess_result(each[None], [SegDataSample(metainfo=META)])[0] for each in probs]
    (merged,) = RankSEGTTAModel(module).merge_preds([views])
    torch.testing.assert_close(merged.seg_logits.data, probs.float().mean(0), atol=1e-6, rtol=0)


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


def test_windows_of_one_file_that_differ_in_size_are_no_views():
    module = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", rankseg=ON))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for width in (20, 11):  # the last window of a row is narrower
            shapes = {"ori_shape": (16, width), "img_shape": (16, 16), "scale_factor": (16 / width, 1.0)}
            sample = SegDataSample(metainfo={"img_path": "scan.tif", **shapes})
            module.postprocess_result(torch.randn(1, 4, 16, 16), [sample])
    assert not [each for each in told if "no effect" in str(each.message)]
