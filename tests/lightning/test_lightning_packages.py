"""Either Lightning package alone, both together, and neither: each in a process of its own."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from places import ROOT
from toolkits import is_installed

pytest.importorskip("torchmetrics.segmentation")
PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
INSTALLED = [name for name in PACKAGES if is_installed(name)]
HERE = Path(__file__).parent

USE = """
import importlib.metadata, os, sys, tempfile
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
        print(package, len(callbacks[0].scores_of_stage['val']), sorted(os.listdir(folder)))
both = ("lightning", "pytorch_lightning")
print("imported:", sorted(name for name in both if name in sys.modules))
print("installed:", sorted(name for name in both if importlib.metadata.packages_distributions().get(name)))
"""


@pytest.fixture
def run(tmp_path):
    """Run code in an environment of links to everything that is installed here, but for some distributions."""

    def run(hidden, code):
        folder = tmp_path / "site-packages"
        folder.mkdir()
        for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for path in Path(place).iterdir():
                if _name(path) not in hidden and path.suffix != ".pth":
                    (folder / path.name).symlink_to(path)
        paths = [ROOT, HERE, folder]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
        # -S: without the folder of packages that belongs to this Python.
        command = [sys.executable, "-S", "-W", "ignore", "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)

    return run


def _name(path):
    """Import name of a package, also of its metadata: lightning-2.6.6.dist-info belongs to lightning."""
    return path.name.split("-")[0] if path.suffix == ".dist-info" else path.name


@pytest.mark.parametrize("name", INSTALLED)
def test_one_package_alone(run, name):
    hidden = [other for other in PACKAGES if other != name] + ["lightning_fabric"] * (name == "lightning")
    done = run(hidden, USE.format(packages=[PACKAGES[name]]))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        f"{PACKAGES[name]} 19 ['000000.png', '000001.png']",
        f"imported: ['{name}']",
        f"installed: ['{name}']",
    ]


@pytest.mark.skipif(len(INSTALLED) < 2, reason="only one Lightning package is installed")
@pytest.mark.filterwarnings("ignore")
def test_both_packages_in_one_process(capsys):
    exec(USE.format(packages=list(PACKAGES.values())), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:2]] == list(PACKAGES.values())


MISSING = """
import sys, rankseg_plugins
print(sorted({'torchmetrics', 'lightning', 'pytorch_lightning', 'mmengine', 'mmseg'} & set(sys.modules)))
sys.modules["torchmetrics"] = None
try:
    import rankseg_plugins.torchmetrics
except ImportError as error:
    print(error)
del sys.modules["torchmetrics"]
import rankseg_plugins.torchmetrics
import rankseg_plugins.lightning
"""


def test_what_is_missing_is_named_and_the_package_itself_imports_no_toolkit(run):
    done = run(PACKAGES, MISSING)
    assert done.returncode == 1
    needs = "this part of rankseg_plugins needs {!r}: install its extra, rankseg-plugins[{}]"
    assert done.stdout.splitlines() == ["[]", needs.format("torchmetrics", "torchmetrics")], done.stderr
    assert done.stderr.splitlines()[-1] == "ImportError: " + needs.format("pytorch_lightning", "lightning")
