"""The Lightning packages that are installed."""

import pytest
from toolkits import is_installed

PACKAGES = [name for name in ("lightning.pytorch", "pytorch_lightning") if is_installed(name)]

#: Slow tests of what does not depend on the package: `make test` runs them with one.
mostly_one_package = pytest.mark.parametrize(
    "package", [*PACKAGES[:1], *(pytest.param(name, marks=pytest.mark.exhaustive) for name in PACKAGES[1:])]
)
