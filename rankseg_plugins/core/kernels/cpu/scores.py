"""Formulas of ``rankseg_plugins.core.objectives``, for the kernels."""

from __future__ import annotations

import numpy as np

from rankseg_plugins.core.kernels.cpu.ground.compiling import exact


@exact
def threshold_of(s, n, mu, dice, smooth):
    """``Objective.threshold``."""
    if dice:
        return (s + smooth / 2) / (n + mu + 1 + smooth)
    size = n + mu + 2 * smooth
    return (s + smooth) / size if size != 0 else 0.0


@exact
def score_of(s, n, mu, dice, smooth):
    """``Objective.score``."""
    if dice:
        return smooth_score(s, n, mu, smooth) if smooth > 0 else 2 * s / (n + mu + 1)
    size = n + mu - s + smooth
    return (s + smooth) / size if size != 0 else 0.0


@exact
def smooth_score(s, n, mu, smooth):
    """``Dice.score`` for ``smooth > 0``."""
    size = n + mu
    return 2 * s / (size + (1 + smooth)) + smooth / (size + smooth)


@exact
def margin(size, smooth):
    """How far above the threshold of its ratio Dice may leave out a pixel of a mask of this size: ``Dice._margin``."""
    return smooth * (1 + 1e-9) / (size + smooth) / (size + (1 + smooth)) + 1e-15


@exact
def ceiling_of(mu, dice, smooth):
    """``Objective.ceiling``."""
    if dice and smooth > 0:
        return (mu + smooth / 2) / (2 * mu + 1 + smooth) + margin(mu, smooth)
    return 0.5


@exact
def round_down(threshold, like):
    """Largest number of the precision of the array ``like`` not above ``threshold``."""
    rounded = like.dtype.type(threshold)
    return rounded if rounded <= threshold else np.nextafter(rounded, like.dtype.type(-np.inf))
