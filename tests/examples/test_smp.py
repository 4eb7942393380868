"""The page and the example of segmentation_models_pytorch."""

import pytest
import torch
import torchvision_stub  # noqa: F401
from pages import read_blocks, run_blocks
from programs import run, table
from toolkits import is_installed

if not (is_installed("segmentation_models_pytorch") and is_installed("lightning")):
    pytest.skip("segmentation_models_pytorch, or Lightning, is not installed", allow_module_level=True)

import segmentation_models_pytorch as smp

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.calibration import TunedDecoder

PAGE = "docs/segmentation_models_pytorch.md"

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_code_of_the_page_runs():
    first, second = read_blocks(PAGE, "python")
    found = run_blocks(PAGE, [first])
    probs = found["model"].predict(found["images"]).double().softmax(1)
    assert torch.equal(found["labels"], rankseg(probs))
    run_blocks(PAGE, [second], found)
    assert found["masks"].shape == (2, 1, 64, 96)
    assert found["masks"].dtype == torch.bool


@pytest.mark.parametrize("activation", ["sigmoid", "softmax2d"])
def test_a_network_that_gives_probabilities(activation):
    """What the page says of ``activation``, and of logits."""
    torch.manual_seed(0)
    network = smp.Unet("resnet18", encoder_depth=3, encoder_weights=None, decoder_channels=(8, 8, 8), classes=3)
    images = torch.rand(2, 3, 32, 40)
    logits = network.predict(images)
    network.segmentation_head[-1] = smp.base.modules.Activation(activation)
    decoder = RankSEG(output_mode="multilabel" if activation == "sigmoid" else "multiclass")
    expected = decoder.predict_logits(logits, activation.removesuffix("2d"))
    assert torch.equal(decoder(network.predict(images)), expected)


@pytest.mark.parametrize("binary", [False, True])
def test_the_example(monkeypatch, capsys, tmp_path, binary):
    arguments = ["--out", tmp_path, "--steps", "2", "--images", "12", *["--binary"] * binary]
    printed = run(monkeypatch, capsys, "smp_predict_step", *arguments)
    assert "On 6 validation images: keep argmax: too few cases" in printed
    heads, rows = table(printed)
    assert heads == ["argmax", "RankSEG", "tuned"]
    assert list(rows) == [f"{score}_{level}" for score in ("dice", "iou") for level in ("dataset", "image", "class")]
    assert all(argmax == tuned for argmax, _, tuned in rows.values())
    chosen = TunedDecoder.load(tmp_path / "decoder.json")
    assert chosen.is_argmax
    assert chosen.num_classes == (1 if binary else 4)
