"""The Lightning packages that are installed, and a Trainer that leaves nothing behind."""

import os
from pathlib import Path

import pytest
from packages import PACKAGES
from places import ROOT
from toolkits import is_installed

# A program that the tests run, not a module with tests.
collect_ignore = ["ddp_run.py"]

#: Of the environment of a process that Lightning starts.
OWN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT", "MASTER_ADDR"}


@pytest.fixture(params=PACKAGES or [pytest.param(None, marks=pytest.mark.skip("Lightning is not installed"))])
def package(request):
    return request.param


@pytest.fixture
def make_trainer(package, tmp_path):
    import lightning_nets

    return lambda **options: lightning_nets.trainer(package, tmp_path, **options)


@pytest.fixture
def segmenter(package):
    import lightning_nets

    return lightning_nets.module_class(package)


@pytest.fixture
def scaling(package):
    import lightning_nets

    return lightning_nets.scaling_class(package)


@pytest.fixture(scope="session")
def environment():
    """Environment of processes that tests start."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def forks(environment):
    """Starts scripts in processes that find Lightning imported, and nothing of RankSEG."""
    from forks import Forks

    others = ("torchmetrics", "matplotlib.pyplot", "jinja2", "scipy.stats")
    forks = Forks([*PACKAGES, *(name for name in others if is_installed(name))], environment)
    yield forks
    forks.close()
