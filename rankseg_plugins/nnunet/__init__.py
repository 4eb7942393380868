"""nnU-Net adapter: a predictor that decides by RankSEG, with the rest of nnU-Net as it is."""

from rankseg_plugins._imports import require

require("nnunetv2", extra="nnunet")

from rankseg_plugins.nnunet.predictor import RankSEGPredictor  # noqa: E402

__all__ = ["RankSEGPredictor"]
