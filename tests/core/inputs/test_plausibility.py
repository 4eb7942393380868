"""Multiclass probabilities that cannot be such: said once, at every entrance, and nothing said of those that can."""

import warnings

import pytest
import torch

from rankseg_plugins import GlobalRankSEG, RankSEG, rankseg
from rankseg_plugins.calibration import TemperatureScaling, TunedDecoder
from rankseg_plugins.core.inputs.plausibility import describe_sums

SAID = "multiclass probabilities must add up to 1"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def softmax(shape=(2, 5, 24, 31), seed=0):
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).softmax(1)


def scores(shape=(2, 5, 24, 31), seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).sigmoid()


def fitted():
    decoder = GlobalRankSEG(5, min_images=0, min_dice=0, min_gain=0)
    decoder.update(softmax())
    decoder.fit()
    return decoder


def entrances():
    yield "dice", RankSEG("dice")
    yield "iou, exact", RankSEG("iou", solver="exact")
    yield "accuracy", RankSEG("acc")
    yield "pooled", fitted()
    yield "tuned", TunedDecoder(RankSEG(), num_classes=5)
    yield "temperature", TemperatureScaling(5)
    judge = RankSEG("dice")
    yield "expected score", lambda probs: judge.expected_score(probs, probs.argmax(1))


@pytest.mark.parametrize(("name", "decide"), list(entrances()))
def test_every_entrance_says_it_once(name, decide):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decide(softmax())
    with pytest.warns(UserWarning, match=SAID) as said:
        decide(scores())
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decide(scores(seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 21, 1000])
def test_rounding_is_no_fault(dtype, classes):
    assert describe_sums(softmax((2, classes, 9, 11)).to(dtype)) is None
    assert describe_sums(scores((2, classes, 9, 11)).to(dtype)) is not None


@pytest.mark.parametrize("shape", [(1, 3, 40), (2, 3, 40, 50), (1, 3, 9, 40, 50)])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "crop"])
def test_sums_of_every_shape_and_layout(shape, layout):
    def laid(probs):
        if layout == "channels last":
            return probs.movedim(1, -1).contiguous().movedim(-1, 1)
        return probs[..., 1:] if layout == "crop" else probs

    assert describe_sums(laid(softmax(shape))) is None
    found = describe_sums(laid(2 * softmax(shape) / 3))
    assert found is not None
    assert "sums from 0.6667 to 0.6667" in found


def test_pixels_without_any_probability_and_known_invalid_ones_are_no_fault():
    probs = torch.zeros(1, 3, 64, 64)
    probs[..., 8:24, 8:24] = softmax((1, 3, 16, 16))
    assert describe_sums(probs) is None
    probs[..., :32, :] = torch.nan
    assert describe_sums(probs) is None
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[:, 32:] = False
    padded = softmax((1, 3, 64, 64)).masked_fill(~outside, 0.9)
    assert describe_sums(padded) is not None
    assert describe_sums(padded, outside) is None
    RankSEG()(padded, outside)


@pytest.mark.parametrize(
    "probs",
    [
        pytest.param(softmax((1, 3, 16, 16))[0], id="no batch dimension"),
        pytest.param(scores((64, 48)).unsqueeze(0), id="a foreground map without a channel"),
        pytest.param(scores((1, 4, 32, 32)), id="sigmoid channels"),
        pytest.param(3 * softmax((1, 4, 32, 32)).clamp(max=0.33), id="scores"),
    ],
)
def test_the_usual_mistakes_are_seen(probs):
    with pytest.warns(UserWarning, match=r"missing batch.*unsqueeze.*activation='normalize'") as said:
        rankseg(probs)
    assert str(tuple(probs.shape)) in str(said[0].message)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_silence_where_nothing_is_wrong_or_it_was_asked_for():
    decoder = RankSEG()
    decoder.check_sums = False
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        RankSEG(output_mode="multilabel")(scores())
        GlobalRankSEG(5, output_mode="multilabel").update(scores())
        TemperatureScaling(5, activation="softmax")(8 * scores())
        decoder(scores())
        torch.jit.trace(RankSEG(), softmax(), check_trace=False)(scores())


def test_logits_are_refused_as_such():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="turn logits into probabilities first"):
            RankSEG()(8 * scores())
