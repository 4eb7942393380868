"""The example programs run, and what they print and write is true."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from places import ROOT

pytest.importorskip("lightning", reason="Lightning is not installed")


def run(name, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", f"examples.{name}", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def scores(text):
    """The printed table: name to (argmax, RankSEG, gain)."""
    rows = re.findall(r"^(\w+) +([\d.]+) +([\d.]+) +([+-][\d.]+)$", text, re.MULTILINE)
    return {name: tuple(map(float, values)) for name, *values in rows}


def check_gains(table):
    for argmax, rankseg, gain in table.values():
        assert gain == pytest.approx(rankseg - argmax, abs=0.011)


def test_smp_style(tmp_path):
    image = pytest.importorskip("PIL.Image")
    printed = run("lightning_smp_style", "--out", tmp_path, "--epochs", 2, "--images", 12)
    table = scores(printed)
    assert list(table) == [f"{score}_{level}" for score in ("dice", "iou") for level in ("dataset", "image", "class")]
    check_gains(table)
    assert (tmp_path / "best.ckpt").is_file()
    for index in range(4):
        with image.open(tmp_path / "labels" / f"{index:06d}.png") as labels:
            assert labels.size == (128, 128)
            assert np.array(labels).max() < 4


def test_volume_3d(tmp_path):
    printed = run("lightning_volume_3d", "--out", tmp_path, "--steps", 4, "--scans", 4)
    table = scores(printed)
    assert list(table) == ["dice_dataset", "dice_image", "dice_image_worst10", "dice_class", "dice_class_worst10"]
    check_gains(table)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["scan000.npy", "scan001.npy"]
    labels = np.load(tmp_path / "scan000.npy")
    assert labels.shape == (20, 40, 40)
    voxels = re.search(r"scan000\.npy: (\d+) voxels background, (\d+) voxels organ, (\d+) voxels lesion", printed)
    assert [int(count) for count in voxels.groups()] == np.bincount(labels.ravel(), minlength=3).tolist()
