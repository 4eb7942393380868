"""Train one small network, and decode it with argmax and with RankSEG through three toolkits.

Run it from the checkout: ``python -m examples.demo``, or ``make demo``. Exit status: 0; 1 if the adapters disagree;
2 if the data or the command line is wrong.
"""

from __future__ import annotations

import os

# Read when torch is imported. On a busy machine, threads that spin for long while they wait slow each other down
# many times; a short spin costs next to nothing on an idle one.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from examples.demo import microscopy
from examples.demo.folder import DataError, Folder, read_folder

WIDTH = 100


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with img_dir/{train,val} and ann_dir/{train,val}")
    parser.add_argument("--num-classes", type=_class_count, help="number of classes of --data (default: read them)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for everything that is written")
    parser.add_argument("--iterations", type=_positive, default=360, help="training steps")
    parser.add_argument("--seconds", type=_positive, default=85, help="the training ends after this time at the latest")
    parser.add_argument("--train-images", type=_positive, default=160, help="number of images to generate")
    parser.add_argument("--val-images", type=_positive, default=64, help="number of images to generate")
    options = parser.parse_args(arguments)
    if options.num_classes is not None and options.data is None:
        parser.error("--num-classes needs --data: the generated data has its own classes")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"argument --out: must be a folder, {options.out} is a file")
    return options


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


def _class_count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 2 <= int(text) <= 255:
        raise argparse.ArgumentTypeError(f"must be a whole number from 2 to 255, got {text!r}")
    return int(text)


def prepare(options: argparse.Namespace) -> Folder:
    """Check the given data, or generate some."""
    if options.data is not None:
        return read_folder(options.data, options.num_classes)
    root = options.out / "generated_data"
    microscopy.generate(root, options.train_images, options.val_images)
    return read_folder(root, classes=microscopy.CLASSES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    options = parse(arguments)
    # Bound to this very stream: what the toolkits print elsewhere is dropped.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print("[bold]One network, trained with cross-entropy; decoded with argmax and with RankSEG.[/bold]")
    try:
        folder = prepare(options)
    except DataError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore")
    # Not before: importing the toolkits takes seconds, and a wrong folder should be told at once.
    from examples.demo.story import tell

    return tell(options, folder, console)


if __name__ == "__main__":
    sys.exit(main())
