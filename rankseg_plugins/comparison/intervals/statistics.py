"""Is a difference more than chance? Intervals by the jackknife, Wilcoxon's signed-rank test and the sign test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.core.inputs.options import read_real

#: With fewer cases nothing is said of an interval.
FEWEST = 5
#: By how much the scores of a class in an image that was not seen may differ at least: a share.
UNSEEN = 0.4
#: How much farther from the estimate than the farthest case the two that were not seen are taken to lie.
BEYOND = 1.5
#: Cases that are left out at once hold about this many numbers.
BATCH_NUMBERS = 1 << 22


class Estimate(NamedTuple):
    """K statistics of the same cases, and how far each case moves them.

    Args:
        values: (K,).
        cases: their number, n.
        squares: (K,) sum over the cases of their squared distance to ``values``: of the pseudo-value of a case, which
            for a mean is the value of the case itself.
        farthest: (K,) largest such distance.
    """

    values: np.ndarray
    cases: int
    squares: np.ndarray
    farthest: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """(K,) standard errors of the cases that were seen."""
        return np.sqrt(self.squares / max(1, self.cases - 1) / self.cases)

    def interval(self, confidence: float, unseen: np.ndarray | float = 0.0) -> np.ndarray:
        """Where the statistics of all cases, also those not seen, are expected.

        Student's interval of n + 2 cases: those that were seen, and one on either side that was not, ``BEYOND`` times
        as far as the farthest or as far as ``unseen``. Few cases seldom hold the rare one that moves a mean; without
        the two, the interval of a handful of images is far too sure.

        Args:
            confidence: in (0, 1).
            unseen: how far a case that was not seen may lie at least, in the unit of a case; one number or (K,).

        Returns:
            (K, 2): lower and upper end; NaN with fewer than ``FEWEST`` cases.

        Raises:
            TypeError: for a confidence that is no number.
            ValueError: for one outside (0, 1).
            ImportError: if SciPy is not installed.

        Source: Agresti & Coull, "Approximate is better than 'exact' for interval estimation of binomial proportions",
        The American Statistician 52 (1998), who add two successes and two failures.

        Example:
            >>> scores = np.array([[0.1], [0.2], [0.3], [0.4], [0.5]])
            >>> found = jackknife([scores, np.ones_like(scores)], lambda totals: totals[0] / totals[1])
            >>> found.values.round(3), found.errors.round(3), found.interval(0.95).round(3)
            (array([0.3]), array([0.071]), array([[0.1, 0.5]]))
        """
        confidence = check_confidence(confidence)
        if self.cases < FEWEST:
            return np.full((len(self.values), 2), np.nan)
        number = self.cases + 2
        beyond = np.maximum(BEYOND * self.farthest, unseen)
        errors = np.sqrt((self.squares + 2 * beyond**2) / (number - 1) / number)
        reach = require("scipy.stats", extra="report").t.ppf((1 + confidence) / 2, number - 1) * errors
        found: np.ndarray = self.values[:, None] + reach[:, None] * np.array([-1.0, 1.0])
        return found


def check_confidence(confidence: object) -> float:
    """The confidence of an interval.

    Raises:
        TypeError: if it is no number.
        ValueError: if it does not lie in (0, 1).

    Example:
        >>> check_confidence(1)
        Traceback (most recent call last):
            ...
        ValueError: confidence must lie in (0, 1), got 1
    """
    number = read_real("confidence", confidence, 0.0, 1.0)
    if not 0 < number < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    return number


def jackknife(parts: Sequence[np.ndarray], statistic: Callable[[Sequence[np.ndarray]], np.ndarray]) -> Estimate:
    """How far each case moves any number of statistics of sums over cases: each is left out once.

    Args:
        parts: arrays (n, ...), what each case adds to the sums.
        statistic: maps sums (R, ...) of each of the parts to (R, K) statistics. Where it is NaN without a case, as the
            score of a class that no other holds is, that case is taken to move nothing.

    Source: Miller, "The jackknife: a review", Biometrika 61 (1974).
    """
    cases, totals = len(parts[0]), [each.sum(0, keepdims=True) for each in parts]
    values = statistic(totals)[0]
    squares, farthest = (0 * values for _ in range(2))  # NaN stays
    rows = max(1, BATCH_NUMBERS // max(1, sum(each.size for each in totals)))
    for start in range(0, cases, rows):
        left = statistic([total - each[start : start + rows] for total, each in zip(totals, parts, strict=True)])
        moved = np.abs(np.nan_to_num((cases - 1) * (values - left)))
        squares += (moved**2).sum(0)
        farthest = np.maximum(farthest, moved.max(0))
    return Estimate(values, cases, squares, farthest)


def unseen(cases: int, entries: np.ndarray) -> np.ndarray:
    """How far an unseen case may lie at least from a mean over the entries of all cases: by UNSEEN in one of them."""
    found: np.ndarray = UNSEEN * cases / np.maximum(1, entries)
    return found


def settle(table: np.ndarray, alike: np.ndarray) -> None:
    """Make differences and their intervals 0 where nothing can differ, instead of what unseen cases might bring.

    Args:
        table: (D, ..., 3) difference, lower and upper end, changed in place; a difference that is not known stays so.
        alike: (D,) bool, decoders that decided as the baseline did in every image.

    Example:
        >>> table = np.array([[[0.0, -0.1, 0.1], [np.nan] * 3], [[0.2, 0.1, 0.3], [0.0, -0.1, 0.1]]])
        >>> settle(table, np.array([True, False]))
        >>> table[:, :, 1:].tolist()
        [[[0.0, 0.0], [nan, nan]], [[0.1, 0.3], [-0.1, 0.1]]]
    """
    known = ~np.isnan(table[..., 0])
    table[known & alike.reshape(-1, *[1] * (table.ndim - 2))] = 0.0


def mean_of_known(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not NaN; NaN without any.

    Example:
        >>> mean_of_known(np.array([[1.0, np.nan, 2.0], [np.nan] * 3]), -1)
        array([1.5, nan])
    """
    return ratio(np.nansum(values, axis), (~np.isnan(values)).sum(axis))


def ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Totals by their number; NaN where that is 0."""
    found: np.ndarray = np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)
    return found


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
