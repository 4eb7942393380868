"""Counts of pixels, and every score as a function of them."""

from rankseg_plugins.scores.areas import Areas, areas

__all__ = ["Areas", "areas"]
