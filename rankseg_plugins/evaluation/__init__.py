"""Truth against decisions: counts of pixels, the scores that follow from them, and comparisons of decoders."""

from rankseg_plugins.evaluation.areas import Areas, areas
from rankseg_plugins.evaluation.comparison import Comparison
from rankseg_plugins.evaluation.measuring import Sample, Scoring
from rankseg_plugins.evaluation.recording import Recorder, compare
from rankseg_plugins.evaluation.temperature import TemperatureScaling
from rankseg_plugins.evaluation.tuned import TunedDecoder
from rankseg_plugins.evaluation.tuning import Tuner, tune

__all__ = [
    "Areas",
    "Comparison",
    "Recorder",
    "Sample",
    "Scoring",
    "TemperatureScaling",
    "TunedDecoder",
    "Tuner",
    "areas",
    "compare",
    "tune",
]
