"""Triton's interpreter, where there is no GPU, at twice its speed; tests of several threads."""

from importlib.metadata import version
from importlib.util import find_spec
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from packaging.version import Version


@pytest.fixture(scope="session", autouse=True)
def _operations_in_place():
    """Those of the interpreter take the place of Triton's once, not again at every call of a function."""
    # Older ones do not undo it.
    if torch.cuda.is_available() or not find_spec("triton") or Version(version("triton")) < Version("3.7"):
        yield
        return
    from triton import language
    from triton.runtime import interpreter

    everywhere = SimpleNamespace(__globals__={"tl": language, "core": language.core})
    replaced = interpreter._patch_lang(everywhere)
    with mock.patch.object(interpreter, "_patch_lang"):
        yield
    replaced.restore()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
