"""The example of nnU-Net runs, and what it prints and writes is true."""

import nibabel
import numpy as np
import pytest
from toolkits import is_installed

if not is_installed("nnunetv2"):
    pytest.skip("nnU-Net is not installed", allow_module_level=True)

from programs import run, table

from examples.scans import Scans
from rankseg_plugins.calibration import TunedDecoder


@pytest.mark.filterwarnings("ignore")
def test_nnunet_folder(monkeypatch, capsys, tmp_path):
    printed = run(monkeypatch, capsys, "nnunet_folder", "--out", tmp_path, "--steps", "10", "--scans", "4")
    assert "On 4 validation scans: keep argmax: too few cases" in printed
    assert TunedDecoder.load(tmp_path / "decoder.json").is_argmax
    heads, rows = table(printed)
    assert heads == ["argmax", "RankSEG", "tuned"]
    assert all(argmax == tuned for argmax, _, tuned in rows.values())
    assert any(argmax != rankseg for argmax, rankseg, _ in rows.values())
    truth = np.stack([scan["labels"].numpy() for scan in Scans(4, seed=2)])
    for index, name in enumerate(heads):
        files = [tmp_path / name / f"scan{number:03d}.nii.gz" for number in range(4)]
        decided = np.stack([np.asarray(nibabel.load(file).dataobj).T for file in files])
        classes = [(decided == label, truth == label) for label in range(3)]
        dice = [2 * (ours & true).sum() / (ours.sum() + true.sum()) for ours, true in classes]
        assert rows["dice_dataset"][index] == pytest.approx(100 * np.mean(dice), abs=0.006)
