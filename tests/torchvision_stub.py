"""Stands in for operators that torchvision's compiled part brings, where that was built for another kind of torch.

For tests only: the operators of a torchvision for CUDA do not load beside a torch for CPUs, and its import then fails,
though none of the networks here calls one. A call raises.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

#: Kept, as operators go with it.
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def install():
    """Define the operators that the import of torchvision asks for, if they are missing."""
    found = find_spec("torchvision")
    if found is None or hasattr(torch.ops.torchvision, "nms"):
        return
    try:
        for path in Path(found.origin).parent.glob("_C*"):
            torch.ops.load_library(path)
    except OSError:
        _LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


install()
