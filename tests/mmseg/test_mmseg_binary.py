"""Heads other than the ordinary: one channel, two channels, cascades, text encoders, and scores instead of logits."""

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
import torch
from mmengine.model import BaseModule
from mmseg.models.decode_heads import MaskFormerHead
from mmseg.registry import MODELS

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.mmseg.activations import automatic_activation

PATH = "rankseg_plugins.mmseg."
BINARY = ("background", "vessel")
ON = {"metric": "dice", "pruning_prob": 0.1}


@pytest.fixture(scope="module")
def binary_dataset(tmp_path_factory):
    return tiny.write_dataset(tmp_path_factory.mktemp("binary"), classes=2)


def run(dataset, path, kind, channels, rankseg=None, **options):
    network = tiny.model(kind, classes=2, channels=channels, rankseg=rankseg, **options)
    reference = {**network, "type": kind.replace(PATH + "RankSEG", "")}
    weights = tiny.build(reference).state_dict()
    return tiny.evaluate(tiny.config(network, dataset, path, classes=BINARY), weights)


@pytest.mark.parametrize("kind", ["EncoderDecoder", "CascadeEncoderDecoder"])
def test_one_channel_takes_the_place_of_the_threshold(binary_dataset, tmp_path, kind):
    metrics, samples = run(binary_dataset, tmp_path, f"{PATH}RankSEG{kind}", 1, {**ON, "compare": True})
    changed = 0
    for sample in samples:
        probs, mask = sample["seg_logits"]["data"], sample["pred_sem_seg"]["data"]
        assert mask.dtype == probs.dtype
        assert mask.shape == probs.shape == (1, *sample["ori_shape"])
        assert torch.equal(mask.bool(), rankseg(probs[None], output_mode="multilabel", **ON)[0])
        assert torch.equal(sample["pred_sem_seg_argmax"]["data"], (probs > 0.5).to(probs))
        changed += (mask != (probs > 0.5)).sum()
    assert changed > 0
    assert 0 <= metrics["mIoU"] <= 100


def test_what_one_channel_is_expected_to_score(binary_dataset, tmp_path):
    """With the background, whose probability is the rest, as the score counts it."""
    asked = {**ON, "compare": True, "expected_score": "dice"}
    _, samples = run(binary_dataset, tmp_path, PATH + "RankSEGEncoderDecoder", 1, asked)
    for sample in samples:
        probs = sample["seg_logits"]["data"]
        score, found = sample["pred_sem_seg"]["rankseg_expected"]
        whole, exact = torch.cat([1 - probs, probs]), RankSEG("dice", output_mode="multilabel")
        decisions = [sample[name]["data"].bool() for name in ("pred_sem_seg_argmax", "pred_sem_seg")]
        assert (score, found.shape) == ("dice", (2, 2, 2))
        for (expected, likely), decision in zip(found, decisions, strict=True):
            masks = torch.cat([~decision, decision])
            shown = masks.flatten(1).any(1)
            by_hand = exact.expected_score(whole[None], masks[None])[0]
            torch.testing.assert_close(expected, by_hand.where(shown, 0), atol=1e-5, rtol=0)
            torch.testing.assert_close(likely, whole.flatten(1).amax(1).double().where(~shown, 1.0), atol=1e-6, rtol=0)


def test_one_channel_probabilities_are_stock(binary_dataset, tmp_path):
    stock = run(binary_dataset, tmp_path, "EncoderDecoder", 1)
    off = run(binary_dataset, tmp_path, PATH + "RankSEGEncoderDecoder", 1)
    on = run(binary_dataset, tmp_path, PATH + "RankSEGEncoderDecoder", 1, {**ON, "compare": True})
    assert off[0] == stock[0]
    for theirs, ours, decided in zip(stock[1], off[1], on[1], strict=True):
        assert torch.equal(theirs["pred_sem_seg"]["data"], ours["pred_sem_seg"]["data"])
        assert torch.equal(theirs["seg_logits"]["data"], decided["seg_logits"]["data"])
        assert torch.equal(theirs["pred_sem_seg"]["data"], decided["pred_sem_seg_argmax"]["data"])


@pytest.mark.parametrize("kind", ["EncoderDecoder", "CascadeEncoderDecoder"])
def test_one_channel_in_slide_mode(binary_dataset, tmp_path, kind):
    stock = run(binary_dataset, tmp_path, "EncoderDecoder", 1, mode="slide") if kind == "EncoderDecoder" else None
    _, samples = run(binary_dataset, tmp_path, f"{PATH}RankSEG{kind}", 1, {**ON, "compare": True}, mode="slide")
    for index, sample in enumerate(samples):
        probs = sample["seg_logits"]["data"]
        assert torch.equal(
            sample["pred_sem_seg"]["data"].bool(), rankseg(probs[None], output_mode="multilabel", **ON)[0]
        )
        if stock is not None:
            assert torch.equal(sample["pred_sem_seg_argmax"]["data"], stock[1][index]["pred_sem_seg"]["data"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_one_channel_in_half_precision(dtype):
    """The decision is taken in float32, before anything is rounded; the results keep the toolkit's dtypes."""
    logits = (torch.randn(2, 1, 19, 23, generator=torch.Generator().manual_seed(0)) * 3 - 1).to(dtype)
    network = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", 2, 1, {**ON, "compare": True}))
    stock = MODELS.build(tiny.model("EncoderDecoder", 2, 1))
    for image, ours, theirs in zip(
        logits, network.postprocess_result(logits), stock.postprocess_result(logits), strict=True
    ):
        expected = rankseg(image[None].float().sigmoid(), output_mode="multilabel", **ON)[0]
        assert torch.equal(ours.pred_sem_seg.data.bool(), expected)
        assert ours.pred_sem_seg.data.dtype == theirs.pred_sem_seg.data.dtype == dtype
        assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)
        assert torch.equal(ours.pred_sem_seg_argmax.data, theirs.pred_sem_seg.data)


def test_two_channels(binary_dataset, tmp_path):
    _, samples = run(binary_dataset, tmp_path, PATH + "RankSEGEncoderDecoder", None, ON)
    for sample in samples:
        logits = sample["seg_logits"]["data"]
        assert logits.shape[0] == 2
        assert torch.equal(sample["pred_sem_seg"]["data"], rankseg(logits[None].softmax(1), **ON))


@pytest.mark.filterwarnings("ignore:the probabilities look as if")
@pytest.mark.parametrize("activation", ["sigmoid", "identity"])
def test_activation_of_one_channel(activation):
    network = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", 2, 1, {**ON, "activation": activation}))
    values = torch.rand(2, 1, 9, 11)
    # Image by image, as the segmentor does: the last digit of a vectorised sigmoid depends on the layout.
    probs = [value.sigmoid() if activation == "sigmoid" else value for value in values]
    for sample, each in zip(network.postprocess_result(values), probs, strict=True):
        assert torch.equal(sample.seg_logits.data, each)
        assert torch.equal(sample.pred_sem_seg.data.bool(), rankseg(each[None], output_mode="multilabel", **ON)[0])


def decode(values, **options):
    network = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", rankseg={**ON, **options}))
    return torch.cat([sample.pred_sem_seg.data for sample in network.postprocess_result(values)])


@pytest.mark.parametrize("temperature", [None, 0.7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_several_channels_in_half_precision(dtype, temperature, tmp_path):
    """The probabilities that the logits mean decide, not those that half precision holds."""
    logits = torch.randn(4, 4, 60, 60, generator=torch.Generator().manual_seed(0)).to(dtype)
    options = ON
    if temperature is not None:
        options = {"tuned": str(tmp_path / "decoder.json")}
        TunedDecoder(RankSEG(**ON), 4, temperature).save(options["tuned"])
    network = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", rankseg=options))
    samples = network.postprocess_result(logits)
    labels = torch.cat([sample.pred_sem_seg.data for sample in samples])
    divisor = temperature or 1
    assert torch.equal(labels, rankseg((logits.double() / divisor).softmax(1), **ON))
    assert (labels != rankseg((logits / divisor).softmax(1), **ON)).any()
    for sample, image in zip(samples, logits, strict=True):
        assert torch.equal(sample.seg_logits.data, image)


@pytest.mark.filterwarnings("ignore:the probabilities look as if")
def test_activations_of_several_channels():
    values = torch.rand(2, 4, 9, 11) ** 3
    for activation, probs in {
        "softmax": values.softmax(1),
        "auto": values.softmax(1),
        "sigmoid": values.sigmoid(),
        "normalize": values / values.sum(1, keepdim=True),
        "identity": values,
    }.items():
        assert torch.equal(decode(values, activation=activation), rankseg(probs, **ON)), activation


@pytest.mark.parametrize(
    ("values", "activation", "words"),
    [
        (torch.randn(1, 4, 5, 5) * 4, "identity", r"test_cfg.rankseg \(activation='identity'\).*probs must lie in"),
        (torch.randn(1, 4, 5, 5) * 4, "normalize", r"test_cfg.rankseg \(activation='normalize'\).*negative"),
    ],
)
def test_outputs_that_are_no_probabilities_are_refused(values, activation, words):
    with pytest.raises(ValueError, match=words):
        decode(values, activation=activation)


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_without_probabilities_keep_the_labels_of_the_toolkit(channels, value):
    values = torch.randn(4, channels, 9, 11, generator=torch.Generator().manual_seed(0)) * 2
    values[1:3, 0, 2, 3] = value
    if channels == 1:
        values[1:3, 0, 2, 3] = torch.nan  # the sigmoid of infinity is 1
    sizes = {"classes": max(channels, 2), "channels": 1 if channels == 1 else None}
    network = MODELS.build(tiny.model(PATH + "RankSEGEncoderDecoder", rankseg={**ON, "compare": True}, **sizes))
    stock = MODELS.build(tiny.model("EncoderDecoder", **sizes)).postprocess_result(values)
    words = "test_cfg.rankseg: the network gives NaN .* an image given as an array"
    with pytest.warns(UserWarning, match=words) as said:
        decided = network.postprocess_result(values)
    assert len([each for each in said if "NaN" in str(each.message)]) == 1
    alone = [network.postprocess_result(values[index : index + 1])[0].pred_sem_seg.data for index in (0, 3)]
    expected = [alone[0], stock[1].pred_sem_seg.data, stock[2].pred_sem_seg.data, alone[1]]
    for ours, theirs, labels in zip(decided, stock, expected, strict=True):
        assert torch.equal(ours.pred_sem_seg.data, labels)
        assert torch.equal(ours.pred_sem_seg_argmax.data, theirs.pred_sem_seg.data)
    assert not torch.equal(alone[0], stock[0].pred_sem_seg.data)


def test_labels_instead_of_probabilities_are_refused():
    with pytest.raises(TypeError, match=r"test_cfg.rankseg \(activation='auto'\), .*int64"):
        decode(torch.ones(1, 4, 5, 5).long())


@pytest.mark.parametrize("activation", ["auto", "sigmoid", "identity"])
def test_a_depth_head_is_refused(activation):
    depth = {"type": "VPDDepthHead", "in_channels": [16, 16], "embed_dim": 8, "feature_dim": 64}
    network = tiny.model(PATH + "RankSEGEncoderDecoder", decode_head=depth)
    refused = pytest.raises(TypeError, match=r"rankseg cannot be used .*VPDDepthHead: it predicts depth")
    built = MODELS.build(network)
    built.test_cfg["rankseg"] = {**ON, "activation": activation}
    with refused:
        built.postprocess_result(torch.rand(1, 1, 8, 8))
    network["test_cfg"]["rankseg"] = {**ON, "activation": activation}
    with refused:
        MODELS.build(network)


def losses(*sigmoid):
    each = [{"type": "CrossEntropyLoss", "use_sigmoid": use, "loss_name": f"loss_{i}"} for i, use in enumerate(sigmoid)]
    return MODELS.build(tiny.fcn_head(4, loss_decode=each if len(each) > 1 else each[0]))


def test_automatic_activation_follows_the_head():
    scores = MaskFormerHead.__new__(MaskFormerHead)  # building one takes mmdet
    assert automatic_activation(scores, 150) == "normalize"
    assert automatic_activation(losses(False), 4) == "softmax"
    assert automatic_activation(losses(True), 4) == "sigmoid"
    assert automatic_activation(losses(True, False), 4) == "softmax"
    assert automatic_activation(losses(True, True), 4) == "sigmoid"
    assert automatic_activation(losses(False), 1) == "sigmoid"
    assert automatic_activation(BaseModule(), 4) == "softmax"


@MODELS.register_module()
class ScoreHead(MaskFormerHead):
    """A mask-classification head without its networks, which take mmdet: it hands over non-negative class scores."""

    align_corners, num_classes, out_channels = False, 4, 4

    def __init__(self):
        BaseModule.__init__(self)

    def predict(self, inputs, batch_img_metas, test_cfg):
        images = inputs[0]
        return torch.stack([images[:, i % 3].abs() * (i + 1) + 0.1 for i in range(4)], dim=1)


@MODELS.register_module()
class NoEncoder(BaseModule):
    """Stands for an image encoder, or for a text encoder."""

    def forward(self, inputs=None):
        return [inputs]


def softmaxed(sample):
    return sample["seg_logits"]["data"][None].softmax(1)


@pytest.mark.parametrize("activation", ["auto", "normalize"])
def test_multimodal_and_scores(dataset, tmp_path, activation):
    network = {
        "type": PATH + "RankSEGMultimodalEncoderDecoder",
        "data_preprocessor": tiny.model()["data_preprocessor"],
        "image_encoder": {"type": "NoEncoder"},
        "text_encoder": {"type": "NoEncoder"},
        "decode_head": {"type": "ScoreHead"},
        "asymetric_input": False,
        "test_cfg": {"mode": "whole", "rankseg": {**ON, "activation": activation}},
    }
    _, samples = tiny.evaluate(tiny.config(network, dataset, tmp_path, batch_size=1))
    assert len(samples) == 7
    assert not torch.equal(samples[0]["pred_sem_seg"]["data"], rankseg(softmaxed(samples[0]), **ON))
    for sample in samples:
        scores = sample["seg_logits"]["data"]
        probs = scores / scores.sum(0)
        assert torch.equal(sample["pred_sem_seg"]["data"], rankseg(probs[None], **ON))
