"""The Lightning base classes, from whichever package the user has.

Lightning comes as ``lightning`` and as ``pytorch_lightning``. They hold the same code, but each Trainer takes only
callbacks derived from its own classes. Where both are installed, the bases here derive from both, so that one callback
serves either Trainer.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from rankseg_plugins._imports import require
from rankseg_plugins._warning import warn

__all__ = ["BasePredictionWriter", "Callback", "LightningModule", "Trainer", "rank_zero_info", "rank_zero_warn"]

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def installed() -> list[ModuleType]:
    """Import and return each Lightning package there is.

    Raises:
        ImportError: if there is none, naming the pip extra.
    """
    found = []
    for name in PACKAGES:
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
    return found or [require("pytorch_lightning", extra="lightning")]


def base_class(name: str) -> type:
    """The class ``name`` of Lightning's callbacks, or one that derives from both packages' class of that name."""
    found = [getattr(importlib.import_module(f"{package.__name__}.callbacks"), name) for package in installed()]
    return found[0] if len(found) == 1 else type(name, tuple(found), {"__doc__": found[0].__doc__})


def rank_zero_info(message: str) -> None:
    """Lightning's own line in the log, of the first process."""
    _rank_zero().rank_zero_info(message)


def rank_zero_warn(message: str) -> None:
    """A ``UserWarning`` of the first process, at the line that called the Trainer."""
    _rank_zero().rank_zero_only(warn)(message)


def _rank_zero() -> ModuleType:
    return importlib.import_module(f"{installed()[0].__name__}.utilities.rank_zero")


if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import BasePredictionWriter, Callback
else:
    Callback = base_class("Callback")
    BasePredictionWriter = base_class("BasePredictionWriter")
    LightningModule = Trainer = object
