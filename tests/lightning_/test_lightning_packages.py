"""Either Lightning package alone, both together, and neither: each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torchmetrics")
PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
INSTALLED = [name for name in PACKAGES if importlib.util.find_spec(name)]
HERE = Path(__file__).parent

HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""

USE = """
import tempfile
import lightning_nets
from rankseg_plugins import RankSEG
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter

for package in {packages!r}:
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [RankSEGCallback(RankSEG(), num_classes=3), RankSEGPredictionWriter(folder)]
        trainer = lightning_nets.trainer(package, folder, callbacks=callbacks, max_epochs=1)
        model, data = lightning_nets.module_class(package)(), lightning_nets.loader(items=2)
        trainer.fit(model, data, data)
        trainer.predict(model, data)
        print(package, len(callbacks[0].scores_of_stage['val']), sorted(__import__("os").listdir(folder)))
print(sorted(name for name in ("lightning", "pytorch_lightning") if name in __import__("sys").modules))
"""


def run(hidden, code):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", "-c", HIDE.format(hidden=set(hidden)) + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("name", INSTALLED)
def test_one_package_alone(name):
    hidden = [other for other in PACKAGES if other != name]
    done = run(hidden, USE.format(packages=[PACKAGES[name]]))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [f"{PACKAGES[name]} 18 ['000000.png', '000001.png']", f"['{name}']"]


@pytest.mark.skipif(len(INSTALLED) < 2, reason="only one Lightning package is installed")
def test_both_packages_in_one_process():
    done = run([], USE.format(packages=list(PACKAGES.values())))
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == list(PACKAGES.values())


def test_neither_package():
    done = run(PACKAGES, "import rankseg_plugins, rankseg_plugins.torchmetrics\nimport rankseg_plugins.lightning\n")
    assert done.returncode == 1
    message = "this part of rankseg_plugins needs 'pytorch_lightning': pip install \"rankseg-plugins[lightning]\""
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"


def test_torchmetrics_is_named_when_it_is_missing():
    done = run(["torchmetrics"], "import rankseg_plugins\nimport rankseg_plugins.torchmetrics\n")
    assert done.returncode == 1
    message = "this part of rankseg_plugins needs 'torchmetrics': pip install \"rankseg-plugins[torchmetrics]\""
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"


def test_the_package_itself_imports_no_toolkit():
    code = (
        "import rankseg_plugins\nprint(sorted({'torchmetrics', 'lightning', 'pytorch_lightning'} & set(sys.modules)))\n"
    )
    assert run([], code).stdout.strip() == "[]"
