"""The example of TorchMetrics: the table that it prints, and the decoder that it writes."""

import pytest
from programs import run, table
from toolkits import is_installed

if not is_installed("torchmetrics"):
    pytest.skip("TorchMetrics is not installed", allow_module_level=True)

from rankseg_plugins.calibration import TunedDecoder


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
def test_the_example(monkeypatch, capsys, tmp_path):
    """Of few images, tuning keeps argmax."""
    printed = run(monkeypatch, capsys, "torchmetrics_scores", "--out", tmp_path, "--epochs", "1", "--images", "12")
    assert "On 6 validation images: keep argmax: too few cases" in printed
    heads, rows = table(printed)
    assert heads == ["argmax", "RankSEG", "tuned"]
    ours = [f"dice_{level}{part}" for level in ("image", "class") for part in ("", "_worst10")]
    assert list(rows) == ["DiceScore", "JaccardIndex", "MeanIoU", *ours]
    assert all(argmax == tuned for argmax, _, tuned in rows.values())
    assert any(argmax != rankseg for argmax, rankseg, _ in rows.values())
    assert TunedDecoder.load(tmp_path / "decoder.json").is_argmax
