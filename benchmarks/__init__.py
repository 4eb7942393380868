"""Measures the decoders: ``make benchmark``."""
