"""Run every measurement, print the tables and write them to RESULTS.md beside this file."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import agreement, gpu, solvers, speed

RESULTS = Path(__file__).with_name("RESULTS.md")

INTRODUCTION = """# What decoding costs

`make benchmark` wrote this file. All contestants of a row take turns in one run, and a ratio is the median of five
rounds (one where a call takes more than 15 seconds). The machine is shared, so trust ratios and not milliseconds;
argmax itself takes one of two times on it, one about twice the other, from run to run. "ours" is this package at its
defaults, "data set" a fitted `GlobalRankSEG`, `rankseg` the reference package, "auto" its opt-in
`safe_screening="auto"`. Probabilities are float32. Rows marked (real) hold a trained network's; the others are
generated: softmax of smooth random fields, with as many classes pruned as published for real
models of that kind. "pruned" is the share of classes whose largest probability is at most 0.5, "undecided" the share of
the remaining classes' pixels between the first lower bound of the Dice threshold and 1/2.
"""


SECTIONS: dict[str, Callable[[], str]] = {
    "Time over argmax": lambda: (
        "Below 1.00: faster than `probs.argmax(1)`, which is what toolkits call. `probs.max(1).indices` gives the\n"
        "same labels in less time; it is in the column before the last.\n\n" + table(speed.SPEED_HEADER, speed.speed())
    ),
    "Extra memory": lambda: (
        "Largest memory allocated at any time over the input's size, input and result not counted; Dice at the\n"
        "defaults unless said otherwise.\n\n" + table(speed.MEMORY_HEADER, speed.memory())
    ),
    "Modes and precisions": lambda: (
        "The VOC workload; time over argmax of the same precision.\n\n" + table(speed.OPTIONS_HEADER, speed.options())
    ),
    "Many undecided classes": lambda: (
        "What costs most: with nothing pruned, most pixels of most classes stay undecided and are ranked. The column\n"
        "before the last is about 2 where the time grows with the number of images and no faster; other programs on\n"
        "the machine move it.\n\n" + table(speed.UNDECIDED_HEADER, speed.undecided())
    ),
    "Cost grows linearly": lambda: table(speed.CURVE_HEADER, speed.curve()),
    "Long sums": lambda: speed.large_sums() + "\n",
    "Solvers": lambda: (
        "Multilabel Dice, `smooth = 0`. Loss: exact expected Dice of the optimum less that of the mask.\n\n"
        + table(solvers.HEADER, solvers.rows())
    ),
    "Volumes beside `rankseg`": lambda: agreement.EXPLANATION + "\n" + table(agreement.HEADER, agreement.rows()),
    "GPU": lambda: gpu.explanation() + "\n" + table(gpu.HEADER, gpu.rows()),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write")
    parser.add_argument(
        "--only",
        choices=SECTIONS,
        metavar="SECTION",
        help=f"measure one section anew, keep the others: {', '.join(SECTIONS)}",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    head, sections = read(arguments.out) if arguments.out.exists() else ("", {})
    if not (arguments.only and head):
        head = f"{INTRODUCTION}\n{describe_machine()}"
    wanted = [arguments.only] if arguments.only else list(SECTIONS)
    if not arguments.only and not torch.cuda.is_available():
        # What a GPU gave elsewhere stays.
        wanted.remove("GPU")
        sections.setdefault("GPU", "Not measured: no GPU was at hand.\n")
    for title in wanted:
        print(f"## {title}\n", flush=True)
        sections[title] = SECTIONS[title]()
    parts = [head, *(f"## {title}\n\n{sections[title]}" for title in SECTIONS if title in sections)]
    arguments.out.write_text("\n".join(parts), encoding="utf-8")


def read(path: Path) -> tuple[str, dict[str, str]]:
    """What an earlier run wrote: the head, and the sections by title."""
    head, *parts = path.read_text(encoding="utf-8").split("\n## ")
    return head, {title: text.strip("\n") + "\n" for title, text in (part.split("\n", 1) for part in parts)}


def describe_machine() -> str:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "rankseg"))
    return f"{cpu}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {packages}.\n"


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table, printed row by row as it grows."""
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    print("\n".join(lines), flush=True)
    for row in rows:
        lines.append(_line(row))
        print(lines[-1], flush=True)
    print(flush=True)
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
