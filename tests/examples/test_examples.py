"""The example programs run, and what they print and write is true."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from places import ROOT
from toolkits import is_installed

from rankseg_plugins.calibration import TunedDecoder

pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
pytest.importorskip("ignite", reason="Ignite is not installed")


# As ``python -m examples.NAME`` for each; Lightning, whose import takes seconds, is imported once.
ALL = """
import json, runpy, sys
for name, arguments in json.loads(sys.argv[1]).items():
    print("EXAMPLE")
    sys.argv = [name, *arguments]
    runpy.run_module(f"examples.{name}", run_name="__main__", alter_sys=True)
"""
ARGUMENTS = {
    "lightning_smp_style": ["--epochs", "2", "--images", "12"],
    "lightning_volume_3d": ["--steps", "4", "--scans", "4"],
    "monai_volume_3d": ["--steps", "4", "--scans", "4"],
}
if is_installed("transformers"):
    ARGUMENTS["transformers_segformer"] = ["--steps", "3", "--images", "12"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """What each of them printed, and the folder that it wrote to."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ARGUMENTS}
    asked = {name: ["--out", str(folders[name]), *options] for name, options in ARGUMENTS.items()}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", ALL, json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(ARGUMENTS, zip(done.stdout.split("EXAMPLE\n")[1:], folders.values(), strict=True), strict=True))


def scores(text):
    """The printed table: name to (argmax, RankSEG, gain, tuned, gain)."""
    rows = re.findall(r"^(\w+) +([\d.]+) +([\d.]+) +([+-][\d.]+) +([\d.]+) +([+-][\d.]+)$", text, re.MULTILINE)
    return {name: tuple(map(float, values)) for name, *values in rows}


def check_gains(table):
    """Of few images, tuning keeps argmax."""
    for argmax, rankseg, gain, tuned, tuned_gain in table.values():
        assert gain == pytest.approx(rankseg - argmax, abs=0.011)
        assert (tuned, tuned_gain) == (argmax, 0)


def test_smp_style(examples):
    image = pytest.importorskip("PIL.Image")
    printed, out = examples["lightning_smp_style"]
    table = scores(printed)
    assert list(table) == [f"{score}_{level}" for score in ("dice", "iou") for level in ("dataset", "image", "class")]
    check_gains(table)
    assert (out / "best.ckpt").is_file()
    for index in range(4):
        with image.open(out / "labels" / f"{index:06d}.png") as labels:
            assert labels.size == (128, 128)
            assert np.array(labels).max() < 4


def test_volume_3d(examples):
    printed, out = examples["lightning_volume_3d"]
    table = scores(printed)
    assert list(table) == ["dice_dataset", "dice_image", "dice_image_worst10", "dice_class", "dice_class_worst10"]
    check_gains(table)
    files = sorted(path.name for path in out.iterdir())
    assert files == ["scan000.npy", "scan001.npy"]
    labels = np.load(out / "scan000.npy")
    assert labels.shape == (20, 40, 40)
    voxels = re.search(r"scan000\.npy: (\d+) voxels background, (\d+) voxels organ, (\d+) voxels lesion", printed)
    assert [int(count) for count in voxels.groups()] == np.bincount(labels.ravel(), minlength=3).tolist()


def test_monai_volume_3d(examples):
    nibabel = pytest.importorskip("nibabel")
    printed, out = examples["monai_volume_3d"]
    assert re.search(r"^argmax +[\d.]+$", printed, re.MULTILINE)
    assert "rankseg(metric=dice)" in printed
    assert (out / "decoder.json").is_file()
    (written,) = out.glob("labels/**/*.nii.gz")
    labels = np.asarray(nibabel.load(written).dataobj)
    assert labels.shape == (20, 40, 40)
    assert set(np.unique(labels)) <= {0, 1, 2}


@pytest.mark.skipif("transformers_segformer" not in ARGUMENTS, reason="Transformers is not installed")
def test_transformers_segformer(examples):
    printed, out = examples["transformers_segformer"]
    assert "On 6 validation images: keep argmax: too few cases" in printed
    assert TunedDecoder.load(out / "decoder.json").is_argmax
    rows = re.findall(r"^(\w+) +([\d.]+) +([\d.]+) +([\d.]+)$", printed, re.MULTILINE)
    assert [name for name, *_ in rows] == [
        f"{score}_{level}" for score in ("dice", "iou") for level in ("dataset", "image", "class")
    ]
    assert all(argmax == tuned for _, argmax, _, tuned in rows)
    assert any(argmax != rankseg for _, argmax, rankseg, _ in rows)
