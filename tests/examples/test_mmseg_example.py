"""The example of MMSegmentation: the table that it prints, and the decoder that its hook writes."""

import pytest
from programs import run, table
from toolkits import is_installed

if not is_installed("mmengine"):
    pytest.skip("MMSegmentation is not installed", allow_module_level=True)

from rankseg_plugins.calibration import TunedDecoder


@pytest.mark.filterwarnings("ignore")  # MMSegmentation's, and ours of a network that was trained for four steps
def test_the_example(monkeypatch, capsys, tmp_path):
    """Of few images, tuning keeps argmax; those that are scored had no part in it."""
    printed = run(monkeypatch, capsys, "mmseg_tuned", "--out", tmp_path, "--iterations", "4", "--images", "12")
    assert "On 6 validation images: keep argmax: too few cases" in printed
    heads, rows = table(printed)
    assert heads == ["argmax", "RankSEG", "tuned"]
    assert {f"{level}mDice" for level in ("", "image_", "class_", "worst_")} < set(rows)
    assert all(argmax == tuned for argmax, _, tuned in rows.values())
    assert any(argmax != rankseg for argmax, rankseg, _ in rows.values())
    chosen = TunedDecoder.load(tmp_path / "iter_4.rankseg.json")
    assert chosen.is_argmax
    assert chosen.evidence["images"] == 6
    tuned_on, scored = (
        {path.read_bytes() for path in (tmp_path / folder / "img_dir/val").iterdir()} for folder in ("data", "others")
    )
    assert len(tuned_on) == len(scored) == 6
    assert not tuned_on & scored
