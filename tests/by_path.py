"""Decisions by an implementation that would not be chosen."""

from unittest import mock

from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.volumes import Classes


def decide(path, decoder, pixels, valid=None, classes=None):
    """What a decoder decides on probabilities or ``Pixels`` by ``"cpu"``, ``"cuda"`` or ``"graph"``."""
    pixels = pixels if isinstance(pixels, Pixels) else Pixels(pixels, valid)
    with mock.patch("rankseg_plugins.core.paths.choose_path", return_value=path):
        return decoder._decide(pixels, classes or Classes(getattr(decoder, "pruning_prob", 0.5)))
