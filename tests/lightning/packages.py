"""The Lightning packages that are installed."""

import importlib.util

import pytest

PACKAGES = [name for name in ("lightning.pytorch", "pytorch_lightning") if importlib.util.find_spec(name.split(".")[0])]

#: Slow tests of what does not depend on the package: `make test` runs them with one.
mostly_one_package = pytest.mark.parametrize(
    "package", [*PACKAGES[:1], *(pytest.param(name, marks=pytest.mark.exhaustive) for name in PACKAGES[1:])]
)
