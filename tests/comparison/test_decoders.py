"""Decoders by name."""

import pytest
import torch

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.comparison.decoders import named_decoders, parse_decoder
from rankseg_plugins.comparison.recording import Recorder


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("argmax", "argmax", {"metric": "acc"}),
        (" ArgMax() ", "argmax", {"metric": "acc"}),
        ("rankseg", "rankseg", {}),
        ("rankseg(metric='iou')", "rankseg(metric='iou')", {"metric": "iou"}),
        ("RankSEG(smooth=1, solver=RMA)", "rankseg(smooth=1,solver=rma)", {"smooth": 1, "solver": "RMA"}),
        ("rankseg(pruning_prob=1e-3,)", "rankseg(pruning_prob=1e-3,)", {"pruning_prob": 0.001}),
        (
            "presence(metric=iou, excluded=[0, 2], frequencies=[1, 0.5, 0.25, 0.5])",
            "presence(metric=iou,excluded=[0,2],frequencies=[1,0.5,0.25,0.5])",
            {"metric": "iou", "excluded": [0, 2], "frequencies": [1, 0.5, 0.25, 0.5]},
        ),
    ],
)
def test_read(text, name, options):
    found = parse_decoder(text)
    assert (found.name, found.options) == (name, options)


def test_built_as_by_hand():
    probs = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    built = parse_decoder("rankseg(metric=iou, pruning_prob=0.2)").build(3)
    assert torch.equal(built(probs), RankSEG(metric="iou", pruning_prob=0.2)(probs))
    assert torch.equal(parse_decoder("argmax").build(3)(probs), probs.argmax(1))
    assert torch.equal(parse_decoder("argmax").build(1)(probs[:, :1]), probs[:, :1] > 0.5)
    assert torch.equal(parse_decoder("rankseg").build(1)(probs[:, :1]), RankSEG(output_mode="multilabel")(probs[:, :1]))
    probs, often = (8 * probs).softmax(1), [0.9, 0.5, 0.02]
    by_hand = PresenceRankSEG(3, "iou", frequencies=often)(probs)
    assert torch.equal(parse_decoder(f"presence(metric=iou, frequencies={often})").build(3)(probs), by_hand)
    assert not torch.equal(by_hand, RankSEG("iou")(probs))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "decoder must be 'argmax', "),
        ("rankseg(metric=dice", "decoder must be 'argmax', "),
        ("otsu", "decoder must be 'argmax', 'rankseg"),
        ("argmax(metric=dice)", "argmax has no options"),
        ("rankseg(metrc=dice)", "unknown option 'metrc', did you mean 'metric'"),
        ("rankseg(dice)", "written option=value, got 'dice'"),
        ("rankseg(metric=)", "written option=value"),
        ("rankseg(metric=dice, metric=iou)", "'metric' is given twice"),
        ("rankseg(metric=dise)", "'rankseg.metric=dise.': metric must be one of"),
        ("rankseg(pruning_prob=half)", "pruning_prob must be a real number"),
        ("rankseg(pruning_prob=2)", r"pruning_prob must be in \[0, 1\]"),
        ("presence(metric=dice,rule=score)", "learnt from other images with labels: tune does so, .* decoder.json"),
        ("presence(frequencies=[0.5,2])", r"frequencies must .*\[0, 1\]"),
        ("presence(frequencies=often)", "frequencies must be a list of numbers"),
        ("presence(frequencies=[0.5, 0.5], pruning_prob=0.1)", "unknown option 'pruning_prob'"),
        ("presence(frequencies=[0.5])", "frequencies are not enough here"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_decoder(text)


@pytest.mark.parametrize(
    ("text", "channels", "message"),
    [
        ("rankseg(void_index=2)", 4, r"'rankseg\(void_index=2\)': void_index must lie outside the class range 0 to 3"),
        ("rankseg(output_mode=multiclass)", 1, "a single channel cannot compete with itself"),
        ("rankseg(metric=acc, solver=argmax)", 1, "a single channel cannot compete with itself"),
        ("presence(frequencies=[0.5,0.5])", 3, "frequencies must hold a number for each of 3 classes"),
    ],
)
def test_a_number_of_channels_that_does_not_fit(text, channels, message):
    found = parse_decoder(text)
    with pytest.raises(ValueError, match=message):
        found.build(channels)
    with pytest.raises(ValueError, match=message):
        Recorder(["argmax", text], num_classes=channels)


def test_a_decoder_object_that_does_not_fit_is_refused_before_the_first_image():
    with pytest.raises(ValueError, match="void_index must lie outside the class range 0 to 3, got 2"):
        Recorder({"argmax": RankSEG("acc"), "mine": RankSEG(void_index=2)}, num_classes=4)


def test_mapping_of_callables():
    assert list(named_decoders({"a": RankSEG(), "b": RankSEG("iou")})) == ["a", "b"]
    with pytest.raises(TypeError, match="decoder 'b' must be a callable"):
        named_decoders({"a": RankSEG(), "b": "rankseg"})
    with pytest.raises(TypeError, match="must be a list of decoders"):
        named_decoders("argmax")


def test_one_alone_is_compared_with_argmax():
    assert list(named_decoders(["rankseg(metric=iou)"])) == ["argmax", "rankseg(metric=iou)"]
    recorder = Recorder({"mine": RankSEG(output_mode="multilabel")}, num_classes=3)
    probs = torch.rand(1, 3, 8, generator=torch.Generator().manual_seed(0))
    assert list(recorder.decoders) == ["argmax", "mine"]
    assert torch.equal(recorder.decoders["argmax"](probs), probs > 0.5)
    for alone in (["argmax"], ["argmax(output_mode=multilabel)"], [], {}):
        with pytest.raises(ValueError, match="decoders must hold another one than argmax"):
            named_decoders(alone)
