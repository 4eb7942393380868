"""Lightning adapter: argmax against RankSEG during validation and test, and predictions on disk.

Works with ``lightning`` and with ``pytorch_lightning``, whichever is installed.
"""

from rankseg_plugins.lightning.callback import RankSEGCallback
from rankseg_plugins.lightning.writer import RankSEGPredictionWriter

__all__ = ["RankSEGCallback", "RankSEGPredictionWriter"]
