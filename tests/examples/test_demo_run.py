"""The whole program, with few steps on few images."""

import os
import subprocess
import sys

import pytest
from PIL import Image
from places import ROOT

from examples.demo import microscopy
from examples.demo.__main__ import parse, prepare


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


# As ``python -m examples.demo``, but in its training a second passes whenever it looks at the clock: the time is up
# after the same step on every machine.
BY_THE_CLOCK = """
import itertools, runpy, types, warnings
with warnings.catch_warnings(action="ignore"):
    from examples.demo import training
training.time = types.SimpleNamespace(monotonic=itertools.count().__next__)
runpy.run_module("examples.demo", run_name="__main__", alter_sys=True)
"""


def check_output(result, out, images):
    assert result.returncode == 0, result.stdout + result.stderr
    agreed = f"agree: the same labels in every pixel of {images} images"
    assert agreed in " ".join(result.stdout.split())
    assert result.stderr == ""
    for noise in ("Warning", "OneDL", "checkpoint by", "GPU"):
        assert noise not in result.stdout
    assert f"table    {out}/table.md" in result.stdout
    assert f"picture  {out}/picture.png" in result.stdout
    table = (out / "table.md").read_text(encoding="utf-8")
    head = "| score, % | argmax | RankSEG dice | RankSEG iou | RankSEG dice (pruning_prob=0.1) |"
    assert head in table
    for row in ("dataset IoU", "image IoU", "image Dice", "pixel accuracy"):
        assert f"\n| {row} | " in table
    assert agreed in table
    with Image.open(out / "picture.png") as picture:
        assert min(picture.size) > 500


@pytest.mark.exhaustive
def test_generated_data(tmp_path):
    out = tmp_path / "out"
    result = start("-m", "examples.demo", "--out", out, "--iterations", 12, "--train-images", 8, "--val-images", 6)
    check_output(result, out, images=6)
    assert "6 validation images, 4 classes" in result.stdout


def test_what_is_generated(tmp_path):
    found = prepare(parse(["--out", str(tmp_path), "--train-images", "3", "--val-images", "2"]))
    assert (len(found.train), len(found.val), found.classes) == (3, 2, microscopy.CLASSES)
    assert found.val[0].image.is_relative_to(tmp_path / "generated_data")


def test_own_folder_of_images_of_different_sizes(folder, tmp_path):
    """Large and small images, of which the network sees large ones resized, and a time limit."""
    for number, size in (("000", (128, 90)), ("001", (530, 300))):
        for kind, how in (("img_dir", Image.Resampling.BILINEAR), ("ann_dir", Image.Resampling.NEAREST)):
            path = folder / kind / "val" / f"{number}.png"
            Image.open(path).resize(size, how).save(path)
    out = tmp_path / "out"
    options = ("--data", folder, "--num-classes", 5, "--out", out, "--iterations", 500, "--seconds", 6)
    result = start("-c", BY_THE_CLOCK, *options)
    check_output(result, out, images=2)
    assert "Note: no mask holds the label 4." in result.stdout
    assert "resized to fit 512 pixels" in result.stdout
    assert "of 500 steps: a weaker network." in result.stdout


@pytest.mark.parametrize("arguments", [["--data", "nowhere"], ["--num-classes", "3"], ["--out", __file__]])
def test_wrong_input_ends_with_status_2(arguments, tmp_path):
    result = start("-m", "examples.demo", "--out", tmp_path / "out", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
