"""Is a difference more than chance? Bootstrap, Wilcoxon's signed-rank test and the sign test, from SciPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from rankseg_plugins._imports import require

#: Weights of cases that are drawn at once hold about this many numbers.
BATCH_NUMBERS = 1 << 20


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    cases: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """Percentile bootstrap intervals of any number of statistics at once, all from the same resamples of the cases.

    Args:
        statistic: maps how often each case was drawn, (R, cases) float64, to (R, K) statistics. NaN means that the
            draw does not determine the statistic, such as the score of a class that none of the drawn images holds;
            such draws are left out of its interval.
        cases: number of cases.
        resamples: number of draws of ``cases`` cases with replacement.
        confidence: in (0, 1).
        seed: the same seed gives the same draws.

    Returns:
        (K, 2): lower and upper end. NaN with fewer than two cases, and where every draw is NaN.

    Raises:
        ValueError: for fewer than one resample, or a confidence outside (0, 1).
        ImportError: if SciPy is not installed.

    Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).

    Example:
        >>> scores = np.array([0.1, 0.2, 0.3, 0.4])
        >>> bootstrap(lambda weights: weights @ scores[:, None] / 4, cases=4).round(3)
        array([[0.15, 0.35]])
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if cases < 2:
        return np.full((statistic(np.ones((1, cases))).shape[1], 2), np.nan)

    def of_draws(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = drawn.reshape(-1, cases)
        offsets = cases * np.arange(len(rows))[:, None]
        weights = np.bincount((rows + offsets).ravel(), minlength=rows.size).reshape(rows.shape)
        return statistic(weights.astype(np.float64)).T

    stats = require("scipy.stats", extra="report")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # draws that are NaN, and a single draw, are no surprise here
        result = stats.bootstrap(
            (np.arange(cases),),
            of_draws,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, BATCH_NUMBERS // cases),
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return _ends(result.bootstrap_distribution, confidence)


def _ends(distribution: np.ndarray, confidence: float) -> np.ndarray:
    """Quantiles of each row; SciPy's own would be NaN as soon as one draw is."""
    quantiles = [(1 - confidence) / 2, (1 + confidence) / 2]
    ends = np.quantile(distribution, quantiles, axis=1).T
    # Row by row, which takes many times as long.
    some = np.isnan(ends[:, 0]) & ~np.isnan(distribution).all(1)
    if some.any():
        ends[some] = np.nanquantile(distribution[some], quantiles, axis=1).T
    return ends


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; differences of 0 are left out, and without others it is 1.

    Args:
        differences: (N,) paired differences without NaN.

    Source: Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945).

    Example:
        >>> wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.0]))  # 2 / 2 ** 4
        0.125
    """
    differences = differences[differences != 0]
    return float(require("scipy.stats", extra="report").wilcoxon(differences).pvalue) if len(differences) else 1.0


def sign_test(differences: np.ndarray) -> float:
    """Two-sided p-value of the sign test: are wins and losses equally likely? Ties are left out.

    Args:
        differences: (N,) paired differences without NaN.

    Source: Dixon & Mood, "The statistical sign test", JASA 41 (1946).

    Example:
        >>> sign_test(np.array([1.0, 2.0, 3.0, 4.0, 0.0]))
        0.125
    """
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return float(require("scipy.stats", extra="report").binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
