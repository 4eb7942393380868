"""How often do intervals hold the figure of all images? Draw few of many images again and again, and look.

The images of a set are all there are: their figure is the truth. So many are drawn from them with replacement as a user
may have, RankSEG with a ``pruning_prob`` of 0.5 and of 0.1 is held against argmax on these, and the interval of the
difference is looked at. Nominal are 95 %. Beside the intervals of the package (*ours*) there are the bootstrap's by
percentiles, BCa, studentised (on the pseudo-values of the jackknife), and Student's of the jackknife alone.

``python -m benchmarks.coverage [PROBS.npz ...]`` prints two tables, of these sets and of made ones; about forty
minutes for four sets.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.stats

from benchmarks.measure import table_head
from benchmarks.tuning import IGNORE, PRESENT, samples_of
from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Scoring, compare
from rankseg_plugins.comparison.intervals.levels import FIGURES, _statistics, _Sums, _sums, level_differences

REPEATS, DRAWS = 500, 400
CASES = (10, 20, 40, 100)
SHOWN = (("dice", "image"), ("dice", "class"), ("iou", "dataset"))
NOMINAL = 0.95
TAILS = ((1 - NOMINAL) / 2, (1 + NOMINAL) / 2)
METHODS = ("percentile", "BCa", "studentised", "Student", "ours")


def counts_of(path: Path) -> np.ndarray:
    """Counts of three decoders (3, 3, N, C)."""
    decoders = {"argmax": RankSEG("acc"), "default": RankSEG(), "low": RankSEG(pruning_prob=0.1)}
    found = compare(samples_of(path), decoders, ignore_index=IGNORE, panels=0, facts={})
    return np.stack([each.counts for each in found.measurements], 2)


def made(classes: int, images: int, seed: int) -> np.ndarray:
    """Counts of three decoders on images that were never taken: some classes are missed, others seen for nothing."""
    rng = np.random.default_rng(seed)
    often = rng.uniform(0.2, 1.0, classes)
    areas = np.where(rng.random((images, classes)) < often, np.exp(rng.normal(6, 1, (images, classes))).round(), 0)
    recall = rng.beta(6, 2, areas.shape)
    counts = []
    for missed, invented, better in ((0.1, 0.04, 0.0), (0.12, 0.02, 0.01), (0.05, 0.12, 0.005)):
        shown = rng.random(areas.shape) >= missed
        share = np.clip(recall + rng.normal(better, 0.04, areas.shape), 0, 1)
        true = shown * (areas * share).round()
        beside = np.where(areas > 0, shown * areas * rng.beta(2, 8, areas.shape), np.exp(rng.normal(4, 1, areas.shape)))
        beside *= (areas > 0) | (rng.random(areas.shape) < invented)
        counts.append([true, true + beside.round(), areas])
    return np.array(counts).astype(np.int64)


def one_class(counts: np.ndarray) -> np.ndarray:
    """The class but the first that most images hold, alone."""
    label = 1 + int((counts[0, 2, :, 1:] > 0).sum(0).argmax())
    return counts[..., label : label + 1]


class Drawn:
    """All intervals of some of the cases; each method gives (2, K)."""

    def __init__(self, counts: np.ndarray, scoring: Scoring, rng: np.random.Generator) -> None:
        self.cases = counts.shape[2]
        numbers = np.arange(self.cases)
        differences = level_differences(counts, numbers, scoring, NOMINAL)
        self.ours = np.concatenate([differences.levels[each][:, 1:] for each in SHOWN]).T
        sums = _sums(counts, numbers, scoring)
        weights = rng.multinomial(self.cases, np.full(self.cases, 1 / self.cases), DRAWS).astype(float)
        self.value = figures(sums, np.ones((1, self.cases)), scoring)[0]
        without = figures(sums, 1 - np.eye(self.cases), scoring)
        self.pseudo = np.where(np.isnan(without), self.value, self.cases * self.value - (self.cases - 1) * without)
        self.weights, self.draws = weights, figures(sums, weights, scoring)
        self.error = self.pseudo.std(0, ddof=1) / np.sqrt(self.cases)

    def percentile(self) -> np.ndarray:
        """Quantiles of the draws."""
        return np.nanquantile(self.draws, TAILS, axis=0)

    def bca(self) -> np.ndarray:
        """Bias-corrected and accelerated; SciPy's own is NaN as soon as one draw is."""
        below = np.nanmean(self.draws < self.value, 0) + np.nanmean(self.draws == self.value, 0) / 2
        bias = scipy.stats.norm.ppf(np.clip(below, 1 / DRAWS, 1 - 1 / DRAWS))
        moved = self.pseudo - self.pseudo.mean(0)
        skew = (moved**3).sum(0) / (6 * np.maximum(1e-30, (moved**2).sum(0)) ** 1.5)
        ends = []
        for tail in scipy.stats.norm.ppf(TAILS):
            moved_tail = scipy.stats.norm.cdf(bias + (bias + tail) / (1 - skew * (bias + tail)))
            ends.append([np.nanquantile(column, share) for column, share in zip(self.draws.T, moved_tail, strict=True)])
        return np.array(ends)

    def studentised(self) -> np.ndarray:
        """Quantiles of the draws' distance in their own standard errors, of pseudo-values."""
        mean = self.weights @ self.pseudo / self.cases
        spread = np.sqrt(np.maximum(0, self.weights @ self.pseudo**2 / self.cases - mean**2) / (self.cases - 1))
        ratio = np.divide(mean - self.pseudo.mean(0), spread, out=np.zeros_like(mean), where=spread > 0)
        low, high = np.quantile(ratio, TAILS, axis=0)
        return np.array([self.value - high * self.error, self.value - low * self.error])

    def student(self) -> np.ndarray:
        """Student's of the jackknife."""
        reach = scipy.stats.t.ppf(TAILS[1], self.cases - 1) * self.error
        return np.array([self.value - reach, self.value + reach])

    def all(self) -> np.ndarray:
        """(methods, 2, K)."""
        return np.stack([self.percentile(), self.bca(), self.studentised(), self.student(), self.ours])


def figures(sums: _Sums, weights: np.ndarray, scoring: Scoring) -> np.ndarray:
    """What is shown of cases with weights (R, cases): (R, K), of one figure after the other both decoders."""
    found = _statistics(_Sums(*(np.tensordot(weights, each, 1) for each in sums)), scoring)
    found = found.reshape(len(weights), sums.areas.shape[1] - 1, -1)
    return np.concatenate([found[..., 1 + FIGURES.index(each)] for each in SHOWN], 1)


def covered(
    counts: np.ndarray, scoring: Scoring, cases: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Share of draws whose interval holds the truth or tells nothing, and that tells nothing: (methods, figures).

    Of the two decoders it is the smaller.
    """
    images = counts.shape[2]
    truth = figures(_sums(counts, np.arange(images), scoring), np.ones((1, images)), scoring)[0]
    hits, silent = (np.zeros((len(METHODS), len(truth))) for _ in range(2))
    for _ in range(REPEATS):
        low, high = Drawn(counts[:, :, rng.integers(images, size=cases)], scoring, rng).all().swapaxes(0, 1)
        nothing = np.isnan(low) | np.isnan(high)
        hits += nothing | ((low <= truth + 1e-12) & (truth - 1e-12 <= high))
        silent += nothing
    decoders = len(truth) // len(SHOWN)
    hits, silent = (each.reshape(len(METHODS), len(SHOWN), decoders) / REPEATS for each in (hits, silent))
    return hits.min(-1), silent.max(-1)


def sets(paths: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for path in map(Path, paths):
        counts = counts_of(path)
        yield path.parent.name, counts
        yield f"{path.parent.name}, one class", one_class(counts)
    for classes, images in ((1, 400), (6, 400), (20, 300)):
        yield f"made, {classes} classes", made(classes, images, seed=classes)


def percent(share: float) -> str:
    return f"{100 * share:.0f}"


def main(paths: list[str]) -> None:
    np.seterr(invalid="ignore", divide="ignore")
    rng, found = np.random.default_rng(0), defaultdict(list)
    print(table_head(["data", "present", "figure", *(f"{cases} cases" for cases in CASES)], words=3))
    for data, counts in sets(paths):
        for present in PRESENT:
            cells = defaultdict(list)
            for cases in CASES:
                hits, silent = covered(counts, Scoring(present=present), cases, rng)
                for k in range(len(SHOWN)):
                    found[cases, k].append(hits[:, k])
                    told = f" ({percent(silent[-1, k])})" if silent[-1, k] else ""
                    cells[k].append(f"{percent(hits[-1, k])}{told}")
            for k, (score, level) in enumerate(SHOWN):
                print(f"| {data} | {present} | {level} {score} | {' | '.join(cells[k])} |", flush=True)
    print("\n| cases | figure |" + "".join(f" {method} |" for method in METHODS))
    print("| ---: | --- |" + len(METHODS) * " ---: |")
    for (cases, k), all_hits in found.items():
        least, mean = np.min(all_hits, 0), np.mean(all_hits, 0)
        pairs = " | ".join(f"{percent(a)}, {percent(b)}" for a, b in zip(least, mean, strict=True))
        print(f"| {cases} | {SHOWN[k][1]} {SHOWN[k][0]} | {pairs} |")


if __name__ == "__main__":
    main(sys.argv[1:])
