"""TorchMetrics adapter: decode with RankSEG, then score with the metrics you already have.

``docs/torchmetrics.md`` lists which metric fits which decoder, and who leaves out the pixels of ``ignore_index``.
"""

from rankseg_plugins._imports import require

require("torchmetrics", extra="torchmetrics")

from rankseg_plugins.torchmetrics.extra import ExtraScores  # noqa: E402
from rankseg_plugins.torchmetrics.multi_level import MultiLevelScore, multi_level_score  # noqa: E402
from rankseg_plugins.torchmetrics.wrapper import RankSEGWrapper  # noqa: E402

__all__ = ["ExtraScores", "MultiLevelScore", "RankSEGWrapper", "multi_level_score"]
