"""Truth against decisions: counts of pixels, the scores that follow from them, and comparisons of decoders."""

from rankseg_plugins.evaluation.areas import Areas, areas
from rankseg_plugins.evaluation.comparison import Comparison, Recorder, compare
from rankseg_plugins.evaluation.measuring import Sample, Scoring

__all__ = ["Areas", "Comparison", "Recorder", "Sample", "Scoring", "areas", "compare"]
