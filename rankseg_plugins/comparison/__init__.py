"""Decoders compared on the same images, with intervals."""

from rankseg_plugins.comparison.comparing import compare
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.recording import Recorder
from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.comparison.scoring import Scoring

__all__ = ["Comparison", "Recorder", "Sample", "Scoring", "compare"]
