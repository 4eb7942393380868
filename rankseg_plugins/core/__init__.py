"""Decisions: logits or probabilities in, labels out. Depends on torch and numpy, and on numba once a CPU decides."""

from rankseg_plugins.core.decoder import RankSEG
from rankseg_plugins.core.functional import rankseg
from rankseg_plugins.core.pooled.decoder import GlobalRankSEG
from rankseg_plugins.core.presence.decoder import PresenceRankSEG

__all__ = ["GlobalRankSEG", "PresenceRankSEG", "RankSEG", "rankseg"]
