"""The switch: off is the stock segmentor bit for bit, on is the plain API on the same probabilities."""

import copy
import pickle
import re

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
import torch
from mmengine.registry import MODELS as ROOT_MODELS
from mmseg.models import EncoderDecoder
from mmseg.models.segmentors import DepthEstimator
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import rankseg_plugins.mmseg as plugin
from rankseg_plugins import rankseg

DOTTED = "rankseg_plugins.mmseg.RankSEGEncoderDecoder"
ON = {"metric": "dice", "pruning_prob": 0.1}


def run(dataset, path, kind=DOTTED, weights=None, batch_size=2, **options):
    return tiny.evaluate(tiny.config(tiny.model(kind, **options), dataset, path, batch_size), weights)


@pytest.fixture(scope="module")
def weights():
    return tiny.build(tiny.model()).state_dict()


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_switched_off_is_stock_bit_for_bit(dataset, tmp_path, weights, mode):
    stock = run(dataset, tmp_path, "EncoderDecoder", weights, mode=mode)
    off = run(dataset, tmp_path, DOTTED, weights, mode=mode)
    assert off[0] == stock[0]
    for ours, theirs in zip(off[1], stock[1], strict=True):
        for field in ("pred_sem_seg", "seg_logits"):
            assert torch.equal(ours[field]["data"], theirs[field]["data"])
        assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize(
    "options",
    [
        ON,
        {"metric": "iou", "smooth": 1.0, "pruning_prob": 0.0},
        {"metric": "dice", "solver": "RMA", "unassigned_policy": "void", "void_index": 200},
    ],
)
def test_switched_on_is_the_plain_api_on_the_same_probabilities(dataset, tmp_path, weights, mode, options):
    stock = run(dataset, tmp_path, "EncoderDecoder", weights, mode=mode)[1]
    ours = run(dataset, tmp_path, DOTTED, weights, mode=mode, rankseg=options)[1]
    changed = 0
    for sample, reference in zip(ours, stock, strict=True):
        logits, label = reference["seg_logits"]["data"], sample["pred_sem_seg"]["data"]
        assert torch.equal(sample["seg_logits"]["data"], logits)
        assert label.shape == reference["pred_sem_seg"]["data"].shape
        assert label.dtype == torch.int64
        assert torch.equal(label, rankseg(logits[None].softmax(1), **options))
        changed += (label != reference["pred_sem_seg"]["data"]).sum().item()
    assert changed > 0


def test_accuracy_is_argmax():
    logits = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    network = MODELS.build(tiny.model(DOTTED, rankseg={"metric": "acc"}))
    for sample, image in zip(network.postprocess_result(logits), logits, strict=True):
        assert torch.equal(sample.pred_sem_seg.data, image.argmax(0, keepdim=True))


def test_state_dict_keys_are_stock(weights):
    ours = MODELS.build(tiny.model(DOTTED, rankseg=ON))
    assert list(ours.state_dict()) == list(weights)
    ours.load_state_dict(weights, strict=True)


def test_dotted_path_and_registered_name_are_one_class():
    assert MODELS.get(DOTTED) is plugin.RankSEGEncoderDecoder is MODELS.get("RankSEGEncoderDecoder")
    assert ROOT_MODELS.get(DOTTED) is plugin.RankSEGEncoderDecoder


def test_toggled_at_run_time(weights):
    network = MODELS.build(tiny.model(DOTTED, rankseg=ON))
    logits = torch.randn(2, 4, 16, 16) * 2
    on = [sample.pred_sem_seg.data for sample in network.postprocess_result(logits)]
    network.test_cfg["rankseg"] = None
    off = [sample.pred_sem_seg.data for sample in network.postprocess_result(logits)]
    network.test_cfg["rankseg"] = dict(ON)
    again = [sample.pred_sem_seg.data for sample in network.postprocess_result(logits)]
    assert all(torch.equal(label, image.argmax(0, keepdim=True)) for label, image in zip(off, logits, strict=True))
    assert all(map(torch.equal, on, again))
    assert not all(map(torch.equal, on, off))


@pytest.mark.parametrize(
    ("rankseg", "error", "words"),
    [
        ({"metrc": "dice"}, ValueError, "unknown key 'metrc' in model.test_cfg.rankseg, did you mean 'metric'"),
        ({"prune_prob": 0.1}, ValueError, "'pruning_prob'"),
        ({"metric": "f1"}, ValueError, "model.test_cfg.rankseg: metric must be one of 'dice', 'iou', 'acc', got 'f1'"),
        ({"smooth": -1.0}, ValueError, "model.test_cfg.rankseg: smooth"),
        ({"activation": "softmx"}, ValueError, "model.test_cfg.rankseg.activation must be one of 'auto'"),
        ({"output_mode": "multilabel"}, ValueError, "output_mode='multilabel' does not fit a model with 4"),
        ({"compare": 1}, TypeError, "model.test_cfg.rankseg.compare must be True or False"),
        ("dice", TypeError, "model.test_cfg.rankseg must be a dict"),
        (True, TypeError, "model.test_cfg.rankseg must be a dict"),
    ],
)
def test_bad_options_are_refused_at_construction(rankseg, error, words):
    with pytest.raises(error) as caught:
        MODELS.build(tiny.model(DOTTED, rankseg=rankseg))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("channels", "rankseg", "words"),
    [
        (None, {"void_index": 2}, "model.test_cfg.rankseg: void_index must lie outside the class range 0 to 3, got 2"),
        (1, {"metric": "acc", "solver": "argmax"}, "model.test_cfg.rankseg: a single channel cannot compete"),
    ],
)
def test_options_that_do_not_fit_the_channels(channels, rankseg, words):
    """At construction, also of a class that make_rankseg made; of options that change later, at the next image."""
    for kind in (DOTTED, RankSEGThirdParty):
        with pytest.raises(ValueError, match=re.escape(words)):
            MODELS.build(tiny.model(kind, 2 if channels else 4, channels, rankseg))
    network = MODELS.build(tiny.model(DOTTED, 2 if channels else 4, channels, ON))
    network.test_cfg["rankseg"] = rankseg
    with pytest.raises(ValueError, match=re.escape(words)):
        network.postprocess_result(torch.randn(1, channels or 4, 8, 8))


def test_depth_estimators_are_refused():
    with pytest.raises(TypeError, match="DepthEstimator predicts depth"):
        plugin.make_rankseg(DepthEstimator)
    with pytest.raises(TypeError, match="DepthEstimator predicts depth"):
        type("Mine", (plugin.RankSEGMixin, DepthEstimator), {})
    with pytest.raises(TypeError, match="BaseSegmentor"):
        plugin.make_rankseg(torch.nn.Linear)


class ThirdParty(EncoderDecoder):
    """A segmentor as another project would write it: it halves the logits before it decides."""

    def postprocess_result(self, seg_logits, data_samples=None):
        return super().postprocess_result(seg_logits / 2, data_samples)


RankSEGThirdParty = plugin.make_rankseg(ThirdParty)


def test_a_third_party_class_is_reached_by_its_dotted_path():
    assert MODELS.get(f"{__name__}.RankSEGThirdParty") is RankSEGThirdParty


@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_make_rankseg_of_a_third_party_class_is_picklable(copied):
    made = plugin.make_rankseg(ThirdParty)
    assert made is plugin.make_rankseg(ThirdParty)
    assert made.__name__ == "RankSEGThirdParty"
    assert copied(made) is made
    network = MODELS.build(tiny.model(made, rankseg=ON))
    twin = copied(network)
    assert type(twin) is made
    logits = torch.randn(1, 4, 12, 12) * 3
    ours = twin.postprocess_result(logits)[0]
    assert torch.equal(ours.seg_logits.data, logits[0] / 2)
    assert torch.equal(ours.pred_sem_seg.data, rankseg((logits / 2).softmax(1), **ON))


class OnlyLabels(EncoderDecoder):
    """A segmentor that keeps its probabilities to itself."""

    def postprocess_result(self, seg_logits, data_samples=None):
        results = super().postprocess_result(seg_logits, data_samples)
        for sample in results:
            del sample.seg_logits
        return results


def test_a_segmentor_that_keeps_no_logits_is_refused():
    network = MODELS.build(tiny.model(plugin.make_rankseg(OnlyLabels), rankseg=ON))
    with pytest.raises(TypeError, match=r"model\.test_cfg\.rankseg: RankSEGOnlyLabels gives no seg_logits"):
        network.postprocess_result(torch.randn(1, 4, 8, 8))


def test_make_rankseg_of_a_stock_class_is_the_ready_one():
    assert plugin.make_rankseg(EncoderDecoder) is plugin.RankSEGEncoderDecoder
    assert plugin.make_rankseg(plugin.RankSEGEncoderDecoder) is plugin.RankSEGEncoderDecoder


def test_padding_flips_and_sizes_are_the_toolkits(weights):
    logits = torch.randn(3, 4, 32, 40) * 2
    metas = [
        {"ori_shape": (20, 31), "padding_size": [0, 4, 0, 8], "flip": True, "flip_direction": "horizontal"},
        {"ori_shape": (32, 40), "img_padding_size": [1, 2, 3, 4], "flip": True, "flip_direction": "vertical"},
        {"ori_shape": (50, 33)},
    ]
    results = {}
    for kind in ("EncoderDecoder", DOTTED):
        network = MODELS.build(tiny.model(kind, rankseg=ON))
        results[kind] = network.postprocess_result(logits, [SegDataSample(metainfo=meta) for meta in metas])
    for stock, ours, meta in zip(*results.values(), metas, strict=True):
        assert torch.equal(stock.seg_logits.data, ours.seg_logits.data)
        assert ours.pred_sem_seg.shape == meta["ori_shape"]
        assert torch.equal(ours.pred_sem_seg.data, rankseg(stock.seg_logits.data[None].softmax(1), **ON))


def test_a_missing_toolkit_names_the_extra(tmp_path):
    script = "import sys; sys.modules['mmseg'] = None; import rankseg_plugins.mmseg"
    done = tiny.process(["-c", script], tmp_path)
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "install its extra, rankseg-plugins[mmseg]" in done.stderr
