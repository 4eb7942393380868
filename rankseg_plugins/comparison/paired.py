"""One decoder against the baseline, image by image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rankseg_plugins.comparison.phrases import gained, number_of


class Paired(NamedTuple):
    """One decoder against the baseline, image by image.

    Args:
        names: the images on which both have a score.
        baseline: (N,) scores of the baseline.
        scores: (N,) scores of the decoder.
        interval: of the mean difference.
        wilcoxon: p-value of Wilcoxon's signed-rank test on the mean differences of the cases.
        sign: p-value of the sign test on them.
    """

    names: tuple[str, ...]
    baseline: np.ndarray
    scores: np.ndarray
    interval: tuple[float, float]
    wilcoxon: float
    sign: float

    def __repr__(self) -> str:
        gain = gained(self.mean, *self.interval)
        return f"{number_of(len(self.names), 'image')}: {gain} points; {self.wins} better, {self.losses} worse"

    @property
    def differences(self) -> np.ndarray:
        """Gain of every image, (N,); below 0 it got worse."""
        found: np.ndarray = self.scores - self.baseline
        return found

    @property
    def mean(self) -> float:
        """Mean gain, NaN without images."""
        return float(self.differences.mean()) if len(self.names) else float("nan")

    @property
    def wins(self) -> int:
        """Images that got better."""
        return int((self.differences > 0).sum())

    @property
    def losses(self) -> int:
        """Images that got worse."""
        return int((self.differences < 0).sum())

    @property
    def ties(self) -> int:
        """Images whose score is the same."""
        return len(self.names) - self.wins - self.losses

    def improvements(self, count: int = 5) -> list[tuple[str, float]]:
        """Name and gain of the images with the largest gains above 0, the largest first."""
        order = np.argsort(-self.differences, kind="stable")[:count]
        return [(self.names[i], float(self.differences[i])) for i in order if self.differences[i] > 0]

    def regressions(self, count: int = 5) -> list[tuple[str, float]]:
        """Name and gain of the images with the largest losses, the largest first."""
        order = np.argsort(self.differences, kind="stable")[:count]
        return [(self.names[i], float(self.differences[i])) for i in order if self.differences[i] < 0]
