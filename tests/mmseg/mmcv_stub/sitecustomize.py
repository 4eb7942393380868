"""Stands in for the compiled operators of mmcv, so that the original mmsegmentation imports beside mmcv-lite.

For tests only: none of the networks here calls one of these operators, and a call raises. Processes that tests start
find this file through PYTHONPATH; the tests' own process imports it.
"""

import importlib.util
import sys
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType


def install():
    try:
        metadata.version("mmsegmentation")
    except metadata.PackageNotFoundError:
        return  # the maintained fork needs no operators
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None or list(Path(mmcv.origin).parent.glob("_ext*")):
        return
    stub = ModuleType("mmcv._ext")
    stub.__spec__ = ModuleSpec("mmcv._ext", loader=None)
    stub.__getattr__ = _operator
    sys.modules["mmcv._ext"] = stub


def _operator(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f"mmcv was built without its operators: {name}")

    return missing


install()
