"""RankSEG in MMSegmentation: segmentors, test-time augmentation, a metric, tuning, visualisation and configs.

Everything is reachable from a config by its dotted path, such as
``type='rankseg_plugins.mmseg.RankSEGEncoderDecoder'``. After ``custom_imports=dict(imports=['rankseg_plugins.mmseg'])``
the class name alone is enough.
"""

from rankseg_plugins._imports import require

require("mmseg", extra="mmseg")

from rankseg_plugins.mmseg.configs import config_path  # noqa: E402
from rankseg_plugins.mmseg.metric import MultiLevelIoUMetric  # noqa: E402
from rankseg_plugins.mmseg.segmentors import (  # noqa: E402
    RankSEGCascadeEncoderDecoder,
    RankSEGEncoderDecoder,
    RankSEGMixin,
    RankSEGMultimodalEncoderDecoder,
    make_rankseg,
)
from rankseg_plugins.mmseg.tta import RankSEGTTAModel  # noqa: E402
from rankseg_plugins.mmseg.tuning import RankSEGTuningHook  # noqa: E402
from rankseg_plugins.mmseg.visualization import RankSEGVisualizationHook, RankSEGVisualizer  # noqa: E402

__all__ = [
    "MultiLevelIoUMetric",
    "RankSEGCascadeEncoderDecoder",
    "RankSEGEncoderDecoder",
    "RankSEGMixin",
    "RankSEGMultimodalEncoderDecoder",
    "RankSEGTTAModel",
    "RankSEGTuningHook",
    "RankSEGVisualizationHook",
    "RankSEGVisualizer",
    "config_path",
    "make_rankseg",
]
