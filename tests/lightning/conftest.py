"""The Lightning packages that are installed, and a Trainer that leaves nothing behind."""

import importlib.util

import pytest

# A program that the tests run, not a module with tests.
collect_ignore = ["ddp_run.py"]

PACKAGES = [name for name in ("lightning.pytorch", "pytorch_lightning") if importlib.util.find_spec(name.split(".")[0])]


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
