"""How sure a network is against how often it is right, and decoders that correct it."""

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.calibration.scaling import TemperatureScaling
from rankseg_plugins.calibration.tuned import TunedDecoder

__all__ = ["Calibration", "TemperatureScaling", "TunedDecoder"]
