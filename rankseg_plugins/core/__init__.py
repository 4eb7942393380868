"""Decisions: probabilities in, labels out. Depends on torch alone."""

from rankseg_plugins.core.decoder import RankSEG, rankseg

__all__ = ["RankSEG", "rankseg"]
