"""Importing the package costs next to nothing beside ``import torch``: all that is heavy waits until it is used."""

import json
import subprocess
import sys

import pytest
from places import ROOT

#: Packages that take from a tenth of a second to several, and that most users of a decoder never need.
HEAVY = {
    *("numba", "triton", "scipy", "matplotlib", "pandas", "PIL", "nibabel", "jinja2", "rich", "typer", "onnx"),
    *("torchmetrics", "lightning", "pytorch_lightning", "mmengine", "mmseg", "monai", "ignite", "nnunetv2"),
    *("transformers", "torchvision", "sklearn", "skimage", "rankseg"),
}
PROGRAM = """
import json, sys, torch
before = set(sys.modules)
{statement}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(new - sys.stdlib_module_names)))
"""


def brought_by(statement):
    """Packages that a statement imports beside torch and what that imports itself."""
    program = PROGRAM.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_package_brings_nothing_but_itself():
    assert brought_by("import rankseg_plugins") == {"rankseg_plugins"}


@pytest.mark.parametrize("room", ["scores", "calibration", "comparison", "tuning"])
def test_rooms_bring_nothing_heavy(room):
    found = brought_by(f"import rankseg_plugins.{room}")
    assert "rankseg_plugins" in found
    assert found & HEAVY == set()


def test_what_is_heavy_is_seen():
    """That of the kernels, once a CPU decides."""
    decide = "from rankseg_plugins import RankSEG; RankSEG(output_mode='multilabel')(torch.ones(1, 1, 4) / 2)"
    assert "numba" in brought_by(decide)
