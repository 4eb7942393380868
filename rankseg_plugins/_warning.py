"""Warnings that point at the user's own line, however many calls of this package and of toolkits lie between."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

#: Who calls this package on behalf of somebody else, and what lies between its own functions.
BETWEEN = frozenset(
    (
        *(__name__.partition(".")[0], "concurrent", "contextlib", "functools", "threading", "torch", "torchmetrics"),
        *("lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning"),
        *("ignite", "mmcv", "mmengine", "mmseg", "monai", "nnunetv2", "transformers"),
    )
)


def warn(message: str) -> None:
    """Give a ``UserWarning`` at the innermost line that belongs to none of ``BETWEEN``.

    Python shows a warning once for each such line: two that look at the same probabilities in one call say it once.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and _module(frame).partition(".")[0] in BETWEEN:
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, UserWarning, frame.f_code.co_filename, frame.f_lineno, _module(frame), registry)


def _module(frame: FrameType) -> str:
    """Code that somebody executes may know none."""
    return frame.f_globals.get("__name__") or "<string>"
