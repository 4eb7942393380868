"""``python -m benchmarks.datasets NAME ROOT OUT``: labels of a data set, one file an image."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.datasets import DATASETS, LayoutError, write


def main(arguments: list[str] | None = None) -> int:
    """Write the labels; the exit status is 2 if the folder is not laid out as the data set is."""
    layouts = "\n".join(f"  {name:14} {dataset.layout}" for name, dataset in DATASETS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.datasets",
        description="Labels of a data set for rankseg-plugins compare. ROOT holds:",
        epilog=layouts,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=DATASETS)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", help="val, validation, ...; of LiTS and KiTS19: all, fold0 to fold4")
    options = parser.parse_args(arguments)
    dataset = DATASETS[options.name]
    try:
        truths = dataset.truths(options.root, options.split or dataset.split)
        count = write(truths, dataset.classes(options.root), options.out)
    except LayoutError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not count:
        print(f"error: {options.root}: nothing found; expected is {dataset.layout}", file=sys.stderr)
        return 2
    print(f"{count} truths in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
