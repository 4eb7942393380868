"""The page and the example of TorchGeo."""

import shlex

import numpy as np
import pytest
import torch
import torchvision_stub  # noqa: F401
from pages import commands, read_blocks, run_blocks
from programs import run, table
from toolkits import is_installed

if not is_installed("torchgeo"):
    pytest.skip("TorchGeo is not installed", allow_module_level=True)

import rasterio
from torchgeo.trainers import SemanticSegmentationTask

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.files.decoding.deciding import decide
from rankseg_plugins.files.decoding.images import find_images
from rankseg_plugins.files.decoding.scratch import Scratch

PAGE = "docs/torchgeo.md"
COMMAND = 'rankseg-plugins decode --probs probs/ --activation normalize --decoder "rankseg(metric=dice)" --out labels/'

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = read_blocks(PAGE, "python")
    found = run_blocks(PAGE, [first])
    image = torch.rand(2, 4, 64, 64)
    with torch.no_grad():
        theirs = SemanticSegmentationTask.predict_step(found["task"], {"image": image}, 0)
        assert torch.equal(found["task"].predict_step({"image": image}, 0), rankseg(theirs))
    run_blocks(PAGE, [second], found)
    sums = torch.from_numpy(np.load("probs/scene.npy")).double()
    assert torch.allclose(sums.sum(0)[32:64, 32:64], torch.tensor(4.0).double(), atol=1e-5)
    assert torch.equal(found["labels"], rankseg((sums / sums.sum(0))[None])[0])

    # As the command of the page does it, of which its own tests make sure.
    assert commands(PAGE) == [shlex.split(COMMAND)]
    (scene,) = find_images(tmp_path / "probs")
    scratch = Scratch(tmp_path)
    values, _ = scene.open(scratch.empty)
    decided = decide(RankSEG("dice"), values, "normalize", scratch, torch.device("cpu"))
    assert torch.equal(decided.long(), found["labels"])


def test_the_example(monkeypatch, capsys, tmp_path):
    """The sums are those of the tiles, and the labels lie as the scene does."""
    printed = run(monkeypatch, capsys, "torchgeo_tiles", "--out", tmp_path, "--epochs", "1", "--scenes", "3")
    assert "On 3 scenes: keep argmax: too few cases" in printed
    heads, rows = table(printed)
    assert heads == ["argmax", "RankSEG by tile", "RankSEG", "tuned"]
    assert all(argmax == tuned for argmax, _, _, tuned in rows.values())
    assert TunedDecoder.load(tmp_path / "decoder.json").is_argmax
    sums = np.load(tmp_path / "test_probs/scene001.npy")
    assert sums.shape == (3, 150, 150)
    covered = np.ones(150)
    covered[48:64] = covered[96:112] = 2  # by tiles of 64, one every 48, of which the last reach beyond the rim
    np.testing.assert_allclose(sums.sum(0), covered[::-1, None] * covered, rtol=1e-5)  # from the south-west
    with (
        rasterio.open(tmp_path / "test/scene001.tif") as scene,
        rasterio.open(tmp_path / "scene001_labels.tif") as labels,
    ):
        assert (labels.crs, labels.transform, labels.shape) == (scene.crs, scene.transform, scene.shape)
        np.testing.assert_array_equal(labels.read(1), sums.argmax(0))
