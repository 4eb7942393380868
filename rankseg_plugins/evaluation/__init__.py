"""Truth against decisions: counts of pixels, and the scores that follow from them."""

from rankseg_plugins.evaluation.areas import Areas, areas

__all__ = ["Areas", "areas"]
