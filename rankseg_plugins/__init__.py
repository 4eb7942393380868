"""Dice- and IoU-optimal decoding for segmentation toolkits, without retraining.

The toolkit adapters are imported by name (``rankseg_plugins.mmseg``, ``.lightning``, ``.torchmetrics``,
``.transformers``, ``.monai``, ``.nnunet``); this package itself imports none of them.
"""

from rankseg_plugins._version import __version__
from rankseg_plugins.core import GlobalRankSEG, PresenceRankSEG, RankSEG, rankseg

__all__ = ["GlobalRankSEG", "PresenceRankSEG", "RankSEG", "__version__", "rankseg"]
