"""Which images can be trusted: risk against coverage, where images are accepted in the order of what is expected.

The *risk* of an image is 1 minus its score. Accept the images one by one, those with the largest expected score first:
the *coverage* is the share that is accepted, the risk at a coverage the mean over what is accepted so far. The mean of
that over all coverages is the area under the risk-coverage curve, AURC.

Source: Geifman & El-Yaniv, "Selective classification for deep neural networks" (NeurIPS 2017), the curve; Geifman,
Uziel & El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers" (ICLR 2019), its area and the excess
over the best order; Cattelan & Silva, "How to fix a broken confidence estimator" (UAI 2024), the excess as a share.
"""

from __future__ import annotations

import reprlib
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from rankseg_plugins.core.inputs.options import read_real

__all__ = ["RiskCoverage", "risk_coverage"]


class RiskCoverage(NamedTuple):
    """A risk-coverage curve of N images, and its area; float64.

    Args:
        coverage: (N,) share of the images that is accepted: 1/N to 1.
        risk: (N,) mean risk of those, in [0, 1].
        best: (N,) the same in the ideal order, by the scores themselves.
        left_out: images without a score or an expected one.

    Source: see the module.

    Example:
        >>> found = risk_coverage([0.9, 0.8, 0.7], [1.0, 0.5, 0.75])
        >>> found.risk_at(0.5), found.random
        (0.25, 0.25)
        >>> [round(each, 4) for each in (found.area, found.ideal, found.excess)]
        [0.1667, 0.125, 0.3333]
    """

    coverage: np.ndarray
    risk: np.ndarray
    best: np.ndarray
    left_out: int

    def __repr__(self) -> str:
        areas = f"AURC {self.area:.4f}, ideal {self.ideal:.4f}, random {self.random:.4f}"
        return f"{type(self).__name__} of {len(self.risk)} images: {areas}; {self.left_out} left out"

    @property
    def area(self) -> float:
        """AURC, in [0, 1]; lower is better, NaN without images, as for the others."""
        return _mean(self.risk)

    @property
    def ideal(self) -> float:
        """AURC of the ideal order, which no order falls below."""
        return _mean(self.best)

    @property
    def random(self) -> float:
        """AURC of random order, on average: the mean risk of all images."""
        return float(self.risk[-1]) if len(self.risk) else np.nan

    @property
    def excess(self) -> float:
        """Normalised excess AURC, (area - ideal) / (random - ideal): 0 is ideal, 1 is as good as random order.

        Above 1 the order is worse than random; NaN where all images have the same score.
        """
        span = self.random - self.ideal
        return (self.area - self.ideal) / span if span > 1e-12 else np.nan

    def risk_at(self, coverage: float) -> float:
        """Mean risk of the images with the largest expected scores.

        Args:
            coverage: share of the images, rounded up to whole ones, in (0, 1].

        Raises:
            TypeError: if it is no number.
            ValueError: for another one.

        Example:
            >>> found = risk_coverage([0.9, 0.8, 0.7, 0.6], [1.0, 0.5, 0.75, 0.25])
            >>> [found.risk_at(coverage) for coverage in (0.25, 0.5, 1)]
            [0.0, 0.25, 0.375]
        """
        if not 0 < read_real("coverage", coverage, 0.0, 1.0) <= 1:
            raise ValueError(f"coverage must lie in (0, 1], got {coverage!r}")
        # Without the factor rounding makes four images of 0.1 * 30.
        number = int(np.ceil(coverage * len(self.risk) * (1 - 1e-12)))
        return float(self.risk[number - 1]) if len(self.risk) else np.nan


def risk_coverage(expected: Any, scores: Any) -> RiskCoverage:
    """Risk against coverage where images are accepted in the order of their expected score.

    Images of equal expected score are in no order: each of them counts with their mean risk, which is what random
    orders among them give on average.

    Args:
        expected: (N,) the larger, the earlier an image is accepted; any scale, NaN where it is not known.
        scores: (N,) what was reached, in [0, 1], NaN where an image has no score.

    Returns:
        The curve of the images that have both; the others are counted.

    Raises:
        TypeError: for what is no array of numbers.
        ValueError: for other shapes, or scores outside [0, 1].

    Source: see the module.

    Example:
        >>> found = risk_coverage([0.9, 0.8, 0.7, 0.6], [1.0, 0.5, 0.75, float("nan")])
        >>> found.risk, found.left_out
        (array([0.  , 0.25, 0.25]), 1)
        >>> round(found.area, 4), round(found.ideal, 4), found.random  # ideal: risks 0, 1/4, 1/2
        (0.1667, 0.125, 0.25)
        >>> round(found.excess, 4)
        0.3333
    """
    expected, scores = _numbers("expected", expected), _numbers("scores", scores)
    if expected.ndim != 1 or expected.shape != scores.shape:
        raise ValueError(f"expected and scores must be (N,) each, got {expected.shape} and {scores.shape}")
    known = ~np.isnan(expected) & ~np.isnan(scores)
    expected, risks = expected[known], 1 - scores[known]
    if ((risks < 0) | (risks > 1)).any():
        raise ValueError(f"scores must lie in [0, 1], got {scores[known].min()} to {scores[known].max()}")
    number = np.arange(1, len(risks) + 1)
    risk, best = (np.cumsum(each) / number for each in (_in_order(expected, risks), np.sort(risks)))
    return RiskCoverage(number / max(len(risks), 1), risk, best, int((~known).sum()))


def _numbers(name: str, given: Any) -> np.ndarray:
    """Any array of numbers or tensor as float64."""
    try:
        return np.asarray(given.detach().cpu().double() if isinstance(given, Tensor) else given, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers (N,), got {reprlib.repr(given)}") from None


def _in_order(expected: np.ndarray, risks: np.ndarray) -> np.ndarray:
    """The risks, the largest expected score first; of equal ones their mean."""
    _, ties = np.unique(-expected, return_inverse=True)
    means = np.bincount(ties, risks) / np.bincount(ties)
    return means[np.sort(ties)]


def _mean(curve: np.ndarray) -> float:
    return float(curve.mean()) if len(curve) else np.nan
