"""The decoder that scores best on validation data, with argmax in the race."""

from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.tuning.racing import tune
from rankseg_plugins.tuning.tuner import Tuned, Tuner

__all__ = ["Sample", "Scoring", "Tuned", "TunedDecoder", "Tuner", "tune"]
