"""One clear message when an adapter's toolkit is not installed."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which pip extra of this package brings it.

    Args:
        module: dotted name of the toolkit's module.
        extra: name of the extra in this package's ``pyproject.toml``.

    Raises:
        ImportError: if the toolkit is absent. If the toolkit is present and one of *its* imports fails, that
            original error is raised unchanged, so that a broken installation is not reported as a missing one.

    Example:
        >>> require("no_such_toolkit", extra="mmseg")
        Traceback (most recent call last):
            ...
        ImportError: this part of rankseg_plugins needs 'no_such_toolkit': install its extra, rankseg-plugins[mmseg]
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(
            f"this part of rankseg_plugins needs {module!r}: install its extra, rankseg-plugins[{extra}]", name=module
        ) from error
