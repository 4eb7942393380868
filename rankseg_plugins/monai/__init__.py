"""MONAI adapter: RankSEG as the transform that turns the output of a network into labels, and compared in an engine."""

from rankseg_plugins._imports import require

require("monai", extra="monai")

from rankseg_plugins.monai.handler import RankSEGCompareHandler  # noqa: E402
from rankseg_plugins.monai.transforms import RankSEG, RankSEGD, RankSEGd, RankSEGDict  # noqa: E402

__all__ = ["RankSEG", "RankSEGCompareHandler", "RankSEGD", "RankSEGDict", "RankSEGd"]
