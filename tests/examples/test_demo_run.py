"""The whole program, with few steps on few images."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image
from places import ROOT


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


# As ``python -m examples.demo`` twice; the toolkits, whose import takes seconds, are imported once. In the second
# training a second passes whenever it looks at the clock, so that it ends after the same step on every machine.
TWICE = """
import itertools, json, runpy, sys, types

def demo(arguments):
    sys.argv = ["demo", *arguments]
    try:
        runpy.run_module("examples.demo", run_name="__main__", alter_sys=True)
    except SystemExit as stopped:
        print("status", stopped.code)

generated, own = json.loads(sys.argv[1])
demo(generated)
sys.modules["examples.demo.training"].time = types.SimpleNamespace(monotonic=itertools.count().__next__)
demo(own)
"""


def check_output(printed, out, images):
    *_, last = printed.splitlines()
    assert last == "status 0", printed
    agreed = f"agree: the same labels in every pixel of {images} images"
    assert agreed in " ".join(printed.split())
    for noise in ("Warning", "OneDL", "checkpoint by", "GPU"):
        assert noise not in printed
    assert f"table    {out}/table.md" in printed
    assert f"picture  {out}/picture.png" in printed
    table = (out / "table.md").read_text(encoding="utf-8")
    head = "| score, % | argmax | RankSEG dice | RankSEG iou | RankSEG dice (pruning_prob=0.1) |"
    assert head in table
    for row in ("dataset IoU", "image IoU", "image Dice", "pixel accuracy"):
        assert f"\n| {row} | " in table
    assert agreed in table
    with Image.open(out / "picture.png") as picture:
        assert min(picture.size) > 500


def test_generated_data_and_an_own_folder_of_images_of_different_sizes(folder, tmp_path):
    """Large and small images, of which the network sees large ones resized, and a time limit."""
    for number, size in (("000", (128, 90)), ("001", (530, 300))):
        for kind, how in (("img_dir", Image.Resampling.BILINEAR), ("ann_dir", Image.Resampling.NEAREST)):
            path = folder / kind / "val" / f"{number}.png"
            Image.open(path).resize(size, how).save(path)
    generated = ["--out", tmp_path / "generated", "--iterations", 12, "--train-images", 8, "--val-images", 6]
    own = ["--data", folder, "--num-classes", 5, "--out", tmp_path / "own", "--iterations", 500, "--seconds", 24]
    arguments = json.dumps([list(map(str, each)) for each in (generated, own)])
    result = start("-c", TWICE, arguments)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    first, second = result.stdout.split("status 0\n", 1)
    check_output(f"{first}status 0", tmp_path / "generated", images=6)
    assert "6 validation images, 4 classes" in first
    check_output(second, tmp_path / "own", images=2)
    assert "Note: no mask holds the label 4." in second
    assert "resized to fit 512 pixels" in second
    assert "of 500 steps: a weaker network." in second


@pytest.mark.parametrize("arguments", [["--data", "nowhere"], ["--num-classes", "3"], ["--out", __file__]])
def test_wrong_input_ends_with_status_2(arguments, tmp_path):
    result = start("-m", "examples.demo", "--out", tmp_path / "out", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
