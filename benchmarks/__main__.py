"""Run every measurement, print the tables and write them to RESULTS.md beside this file."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import agreement, busy, first_call, gpu, measure, memory, solvers, speed, tuning_time
from benchmarks.workloads import WORKLOADS

RESULTS = Path(__file__).with_name("RESULTS.md")

INTRODUCTION = """# What decoding costs

`make benchmark` wrote this file. All contestants of a row take turns in one run, and a ratio is the median of five
rounds (one where a call takes more than 15 seconds). The machine is shared, so trust ratios and not milliseconds;
argmax itself takes one of two times on it, one about twice the other, from run to run. The base is `probs.argmax(1)`,
which toolkits call, or `p > 0.5` where there is a single channel; `probs.max(1).indices` gives the same labels in less
time, and some toolkits call that. "ours" is this package at its defaults, "data set" a fitted `GlobalRankSEG`,
`rankseg` the reference package, "auto" its opt-in `safe_screening="auto"`.

Values are float32 unless said otherwise. Rows marked (real) hold a trained network's probabilities. VOC, Cityscapes,
ADE20K and binary are smooth fields of normal numbers, four or five times as large and with a bias a class, so that some
classes hardly occur; "soft": twice as large and without a bias, as a network early in training is; "haze": half as
large, so that no class is above 1/2 anywhere. The others are the softmax of fields of few, sharp regions. "pruned" is
the share of classes whose largest probability is at most `pruning_prob` (0.5), "undecided" the share of the remaining
classes' pixels between the first lower bound of the Dice threshold and 1/2.
"""


SECTIONS: dict[str, Callable[[], str]] = {
    "From probabilities, alone and busy": lambda: (
        busy.EXPLANATION + "\n" + table(busy.HEADER, busy.from_probabilities())
    ),
    "From logits, alone and busy": lambda: (
        "As above; over `logits.argmax(1)`, and over `logits.softmax(1).argmax(1)`, what one pays who needs\n"
        "probabilities.\n\n" + table(busy.LOGITS_HEADER, busy.from_logits())
    ),
    "Tuning": lambda: tuning_time.EXPLANATION + "\n" + table(tuning_time.HEADER, tuning_time.rows()),
    "The first call": lambda: first_call.EXPLANATION + "\n" + table(first_call.HEADER, first_call.rows()),
    "Extra memory": lambda: memory.EXPLANATION + "\n" + table(memory.HEADER, memory.rows()),
    "Objectives, and `rankseg`": lambda: (
        "Alone, over argmax or the threshold.\n\n" + table(speed.SPEED_HEADER, speed.speed())
    ),
    "Modes and precisions": lambda: (
        "The VOC workload; time over argmax of the same values.\n\n" + table(speed.OPTIONS_HEADER, speed.options())
    ),
    "Many undecided classes": lambda: (
        "What costs most: with nothing pruned, most pixels of most classes stay undecided and are ranked. The column\n"
        "before the last is about 2 where the time grows with the number of images and no faster; other programs on\n"
        "the machine move it.\n\n" + table(speed.UNDECIDED_HEADER, speed.undecided())
    ),
    "Cost grows linearly": lambda: f"{table(speed.CURVE_HEADER, speed.curve())}\n{speed.long_sums()}\n",
    "Solvers": lambda: (
        "Multilabel Dice, `smooth = 0`. Loss: exact expected Dice of the optimum less that of the mask.\n\n"
        + table(solvers.HEADER, solvers.rows())
    ),
    "Volumes beside `rankseg`": lambda: agreement.EXPLANATION + "\n" + table(agreement.HEADER, agreement.rows()),
    "GPU": lambda: gpu.explanation() + "\n" + table(gpu.HEADER, gpu.rows()),
}


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    measure.ROUNDS = arguments.rounds
    if arguments.rows is not None:
        WORKLOADS[:] = [each for each in WORKLOADS if arguments.rows in each.name]
        run(arguments.only or SECTIONS, {})
        return
    head, sections = read(arguments.out) if arguments.out.exists() else ("", {})
    if not (arguments.only and head):
        head = f"{INTRODUCTION}\n{describe_machine()}"
    wanted = arguments.only or list(SECTIONS)
    if not arguments.only and not torch.cuda.is_available():
        # What a GPU gave elsewhere stays.
        wanted.remove("GPU")
        sections.setdefault("GPU", "Not measured: no GPU was at hand.\n")
    run(wanted, sections)
    parts = [head, *(f"## {title}\n\n{sections[title]}" for title in SECTIONS if title in sections)]
    arguments.out.write_text("\n".join(parts), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    parser.add_argument("--rounds", type=int, default=measure.ROUNDS, help=f"at most ({measure.ROUNDS})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="Markdown file to write")
    parser.add_argument("--rows", metavar="TEXT", help="only workloads whose name holds this; nothing is written")
    parser.add_argument(
        "--only",
        action="append",
        choices=SECTIONS,
        metavar="SECTION",
        help=f"measure one section anew (or several: repeat it), keep the others: {', '.join(SECTIONS)}",
    )
    return parser.parse_args()


def run(wanted: Iterable[str], sections: dict[str, str]) -> None:
    """Measure, and say what is above its limit."""
    for title in wanted:
        print(f"## {title}\n", flush=True)
        sections[title] = SECTIONS[title]()
    above = [line for title in wanted for line in sections[title].splitlines() if "**" in line]
    print("Above a limit: " + ("\n".join(["", *above]) if above else "nothing"))


def read(path: Path) -> tuple[str, dict[str, str]]:
    """What an earlier run wrote: the head, and the sections by title."""
    head, *parts = path.read_text(encoding="utf-8").split("\n## ")
    return head, {title: text.strip("\n") + "\n" for title, text in (part.split("\n", 1) for part in parts)}


def describe_machine() -> str:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "rankseg"))
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
