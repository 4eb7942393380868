"""What decoding for Dice does to boundaries and to connected components: argmax, RankSEG and a tuned decoder.

Surface Dice within 1 and 2 pixels, HD95, ASSD, and how many connected components of all classes are found, each with
the paired difference to argmax and its 95 % interval, under both ways to count the classes of an image. The tuned
decoder of one half of the images was tuned on the other half, for image Dice under the same way of counting.

``python -m benchmarks.boundaries PROBS.npz [PROBS.npz ...]`` prints a table for each set and way of counting; some
minutes for four sets.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tuning import IGNORE, PRESENT, samples_of
from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison import Sample, Scoring, compare
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import ByCase
from rankseg_plugins.report.words import amount, change, change_span, extra_title, percent, points, sign, sign_of, span
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.lesions import Lesions
from rankseg_plugins.tuning import tune

EXTRA = (Boundaries((1, 2)), Lesions())


def measured(samples: list[Sample], scoring: Scoring) -> tuple[Comparison, list[str]]:
    """All decoders on all images, and what was tuned on each half."""
    options = {"scoring": scoring, "ignore_index": IGNORE}
    # The second half is decided by what was tuned on the first, and the other way round.
    on_first, on_second = (tune(half, **options).decoder for half in (samples[::2], samples[1::2]))
    decoders = {
        "argmax": RankSEG("acc"),
        "default": RankSEG("dice"),
        "`pruning_prob` 0.1": RankSEG("dice", pruning_prob=0.1),
        "tuned": ByCase(on_second, [on_first], {sample.name: 0 for sample in samples[1::2]}),
    }
    found = compare(samples, decoders, extra=EXTRA, panels=0, facts={}, **options)
    return found, [described(each) for each in (on_first, on_second)]


def described(decoder: TunedDecoder) -> str:
    """What tuning found, in short."""
    if decoder.is_argmax:
        return "argmax"
    return f"{type(decoder.decoder).__name__} at temperature {decoder.temperature:g}"


def table(found: Comparison) -> Iterator[str]:
    """A row for each score; certain gains and losses are in bold."""
    yield "| | " + " | ".join(found.decoders) + " |"
    yield "| --- |" + " ---: |" * len(found.decoders)
    cells = [
        cell(percent(row.value), points(row.paired.mean), span(*row.paired.interval), sign(*row.paired.interval))
        for row in found.tables.decoders[1:]
    ]
    yield f"| image Dice, % | {percent(found.tables.decoders[0].value)} | " + " | ".join(cells) + " |"
    for row in (row for extra in found.tables.extra for row in extra.rows):
        column = row.column
        cells = [
            cell(amount(column, value), change(column, gain), change_span(column, *ends), sign_of(column, *ends))
            for value, gain, ends in row.others
        ]
        yield f"| {extra_title(column)} | {amount(column, row.baseline)} | " + " | ".join(cells) + " |"


def cell(value: str, gain: str, interval: str, certain: str) -> str:
    gain = gain if certain == "unclear" else f"**{gain}**"
    return f"{value} ({gain}; {interval})"


def main() -> None:
    warnings.simplefilter("ignore")  # of what is known of these probabilities
    for path in map(Path, sys.argv[1:]):
        samples = samples_of(path)
        for present in PRESENT:
            found, tuned = measured(samples, Scoring(present=present))
            name = path.parent.name
            print(f"\n**{name}**, {len(samples)} images, `--present {present}`. Tuned: {'; '.join(tuned)}.\n")
            print("\n".join(table(found)), flush=True)


if __name__ == "__main__":
    main()
