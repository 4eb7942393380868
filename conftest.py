"""What cannot be tested everywhere: documentation of some modules, and what needs an extra that is not installed."""

import doctest
from collections.abc import Generator
from importlib.util import find_spec

import pytest

# Triton exists for Linux only; nnU-Net is tested in an environment of its own.
collect_ignore_glob = [] if find_spec("triton") else ["rankseg_plugins/core/kernels/cuda/*"]
collect_ignore_glob += [] if find_spec("nnunetv2") else ["rankseg_plugins/nnunet/*", "tests/nnunet/*"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Where an extra is tested alone, what asks for another one is left out: it says so itself, and names a module."""
    try:
        return (yield)
    except Exception as error:
        cause = error.exc_info[1] if isinstance(error, doctest.UnexpectedException) else error
        missing = isinstance(cause, ImportError) and str(cause).startswith("this part of rankseg_plugins needs")
        if missing and cause.name and not is_there(cause.name):
            pytest.skip(str(cause))
        raise


def is_there(module: str) -> bool:
    """Whether it could be imported."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
