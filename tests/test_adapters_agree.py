"""The same output of a network gives the same labels through every adapter that is installed, those of an oracle."""

import oracles
import pytest
import torch
from label_ways import CLASSES, WAYS, labels_through
from toolkits import is_installed

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder

#: Toolkits warn of their own affairs while they are imported.
TOOLKITS = [
    pytest.param(name, marks=pytest.mark.filterwarnings("ignore")) if name == "nnU-Net" else name for name in WAYS
]


def draw(*size):
    return torch.randn(3, CLASSES, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:the probabilities look as if", "ignore:.*leaves out classes")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "normalize", "identity"])
@pytest.mark.parametrize("toolkit", TOOLKITS)
def test_labels_from_logits(toolkit, activation, dtype, temperature, tmp_path):
    logits = draw(40, 37)
    logits = {"normalize": logits.exp(), "identity": logits.softmax(1)}.get(activation, logits).to(dtype)
    inner = RankSEG("iou", pruning_prob=0.1)
    inner.check_sums = False
    probs = oracles.probabilities(logits.double().numpy(), activation)
    if temperature != 1:
        probs = oracles.at_temperature(probs, temperature, "multiclass")
    expected = inner(torch.from_numpy(probs))
    assert (expected != logits.argmax(1)).any()
    found = labels_through(toolkit, logits, activation, TunedDecoder(inner, CLASSES, temperature), tmp_path)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("toolkit", TOOLKITS)
def test_argmax_is_that_of_the_logits(toolkit, tmp_path):
    """Half precision of logits would round their probabilities to ties."""
    logits = draw(40, 37).bfloat16()
    assert (logits.softmax(1).max(1).indices != logits.max(1).indices).any()
    found = labels_through(toolkit, logits, "softmax", TunedDecoder(RankSEG("acc"), CLASSES), tmp_path)
    assert torch.equal(found, logits.max(1).indices)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("toolkit", TOOLKITS)
def test_logits_that_are_not_finite(toolkit, value, tmp_path):
    """What must decide stops with an error; a segmentor keeps the toolkit's labels, and says so."""
    logits = draw(10, 12)
    logits[1, 2, 3, 4] = value
    decoder = TunedDecoder(RankSEG(), CLASSES)
    if toolkit == "MMSegmentation" and is_installed("mmseg"):
        with pytest.warns(UserWarning, match="the network gives NaN or infinite values"):
            labels = labels_through(toolkit, logits, "softmax", decoder, tmp_path)
        assert torch.equal(labels[1], logits[1].argmax(0))
        return
    with pytest.raises(ValueError, match=r"NaN or infinite values, .* in 000001|must be finite"):
        labels_through(toolkit, logits, "softmax", decoder, tmp_path)
