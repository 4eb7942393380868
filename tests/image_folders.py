"""Made images on disk, and the command line in a process of its own."""

import os
import sys
from types import SimpleNamespace

import numpy as np
from typer.testing import CliRunner

from rankseg_plugins.cli import app

DECODERS = ("argmax", "rankseg(metric=dice,pruning_prob=0.1)")


def make_image(seed, classes=3, size=(16, 20)):
    """Probabilities (C, H, W) float32 and labels (H, W) uint8 with some 255."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.repeat(rng.integers(0, classes, (size[0] // 4, size[1] // 4)), 4, 0), 4, 1).astype(np.uint8)
    logits = 1.5 * (labels == np.arange(classes)[:, None, None]) + rng.normal(size=(classes, *size))
    probs = np.exp(logits) / np.exp(logits).sum(0)
    labels[rng.random(size) < 0.05] = 255
    return probs.astype(np.float32), labels


#: As ``python -m rankseg_plugins``, but charts are not made into pictures, which takes longer than all else.
UNPAINTED = """
from rankseg_plugins.__main__ import main
from rankseg_plugins.report import charts
charts.to_png = lambda figure: b""
main()
"""


def command(folder, *extra, out="out"):
    decoders = [part for decoder in DECODERS for part in ("--decoder", decoder)]
    paths = ["--probs", str(folder / "probs"), "--labels", str(folder / "labels"), "--out", str(folder / out)]
    return [sys.executable, "-c", UNPAINTED, "compare", *paths, *decoders, *map(str, extra)]


def run_cli(folder, *extra, out="out"):
    """In this process, for speed; tests of what a whole process does start one themselves."""
    found = CliRunner().invoke(app, command(folder, *extra, out=out)[3:], env=environment())
    return SimpleNamespace(returncode=found.exit_code, stdout=found.stdout, stderr=found.stderr)


def environment():
    return {**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "ignore"}
