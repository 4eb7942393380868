"""How often is a candidate used that gains nothing? Images of which the gains of all candidates are drawn.

The candidates have 80 % of the variance of their gains in common, and all of them the same true gain, told in standard
errors of a mean over the images. Gains are drawn evenly about it, or with many small gains and few large losses (a
log-normal distribution). In brackets what the verdicts on those that are used say of their gain, on average: as a
choice that gains nothing on images not used to choose is not used, it lies above the true gain.

``python -m benchmarks.choosing`` prints a table; about ten minutes, without data.
"""

import numpy as np

from benchmarks.measure import table_head
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.tuning.choosing import ARGMAX, choose

DRAWS, PIXELS = 100, 100_000
#: Dice of argmax in every image, and the standard error of the mean gain.
BASELINE, ERROR = 0.5, 0.005
COMMON = 0.8
TRUE_GAINS = (-2, -1, -0.5, 0, 0.5, 1, 2, 3)
HEAD = ("images", "candidates", "gains", *(f"{gain:+g}" if gain else "0" for gain in TRUE_GAINS))


def compared(gains: np.ndarray) -> Comparison:
    """Argmax and candidates of these gains in Dice, (images, candidates), in images of one class."""
    rows = []
    for index, row in enumerate(gains):
        right = np.round(PIXELS * (BASELINE + np.r_[0.0, row])).astype(np.int64)
        area = np.full_like(right, PIXELS)
        counts = np.stack([right, area, area], 1)[..., None]
        rows.append(Measurement(str(index), str(index), counts, np.full(len(right), np.nan)))
    names = (f"candidate {index}" for index in range(gains.shape[1]))
    return Comparison((ARGMAX, *names), ("foreground",), tuple(rows))


def drawn(seed: int, images: int, candidates: int, skewed: bool = False) -> np.ndarray:
    """Gains (images, candidates) whose expectation is 0, and ``ERROR`` the standard error of their mean."""
    generator = np.random.default_rng(seed)
    common, own = generator.normal(size=(images, 1)), generator.normal(size=(images, candidates))
    found = COMMON**0.5 * common + (1 - COMMON) ** 0.5 * own
    if skewed:
        found = (np.exp(0.5) - np.exp(found)) / ((np.e - 1) * np.e) ** 0.5
    return ERROR * images**0.5 * found


def told(true_gain: float, images: int, candidates: int, skewed: bool = False, draws: int = DRAWS) -> list[float]:
    """Gains of the verdicts where a candidate is used, all of which gain ``true_gain``; both in standard errors."""
    choices = (
        choose(compared(drawn(seed, images, candidates, skewed) + ERROR * true_gain), "dice_image", seed=seed)
        for seed in range(draws)
    )
    return [choice.gain / (100 * ERROR) for choice in choices if choice.used]


def cell(gains: list[float], draws: int = DRAWS) -> str:
    """The share of the draws in which a candidate is used, in percent, and the mean of what is told of its gain."""
    share = f"{100 * len(gains) / draws:.0f}"
    return f"{share} ({np.mean(gains):+.1f})" if gains else share


def main() -> None:
    print(table_head(HEAD, words=3))
    for images, candidates in ((20, 18), (40, 18), (200, 18)):
        for skewed in (False, True):
            shares = (cell(told(gain, images, candidates, skewed)) for gain in TRUE_GAINS)
            cells = [images, candidates, "skewed" if skewed else "even", *shares]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
