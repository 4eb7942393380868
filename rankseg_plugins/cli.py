"""The command ``rankseg-plugins``."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import rankseg_plugins
from rankseg_plugins.evaluation.cases import Case, find_cases, one_against_rest, relabel
from rankseg_plugins.evaluation.comparison import Comparison
from rankseg_plugins.evaluation.decoders import parse_decoder
from rankseg_plugins.evaluation.facts import collect_facts
from rankseg_plugins.evaluation.files import InputError
from rankseg_plugins.evaluation.measuring import Scoring
from rankseg_plugins.evaluation.recording import DECODERS, Recorder, check_class_names
from rankseg_plugins.evaluation.report import write_report
from rankseg_plugins.evaluation.report.terminal import to_terminal
from rankseg_plugins.evaluation.results import ResultsFile
from rankseg_plugins.evaluation.run import first_sample, run
from rankseg_plugins.evaluation.tables import to_dict

BAD_INPUT, BELOW = 2, 3
RESULTS = "results.jsonl"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
#: Figures go to standard output, all else to standard error.
note = Console(stderr=True, highlight=False, soft_wrap=True)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Dice- and IoU-optimal decoding of segmentation networks: does it help your model?"""
    if version:
        print(rankseg_plugins.__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def compare(
    probs: Annotated[
        Path,
        typer.Option(help="Probabilities: a folder of .npz (also nnU-Net's), .npy or .pt files, or one .npz of all."),
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Truth: a folder of PNG, NIfTI, .npy or .npz files with the same names.")
    ] = None,
    decoder: Annotated[
        list[str],
        typer.Option(help='"argmax" or "rankseg(option=value, ...)"; repeat it. The first is the baseline.'),
    ] = list(DECODERS),  # noqa: B006
    out: Annotated[Path, typer.Option(help="Folder for the report; an interrupted run is continued there.")] = Path(
        "report"
    ),
    ignore_index: Annotated[
        int, typer.Option(help="Label whose pixels do not count.", rich_help_panel="Reading")
    ] = 255,
    class_names: Annotated[
        str | None, typer.Option(help="Names of the classes, separated by commas.", rich_help_panel="Reading")
    ] = None,
    score: Annotated[
        str, typer.Option(help="What counts as better: dice, iou, precision or recall.", rich_help_panel="Scoring")
    ] = "dice",
    present: Annotated[
        str,
        typer.Option(
            help="Classes that have a score in an image: those in union (truth or prediction) or label.",
            rich_help_panel="Scoring",
        ),
    ] = "union",
    absent: Annotated[
        str, typer.Option(help="What a class counts that is absent: skip, zero or one.", rich_help_panel="Scoring")
    ] = "skip",
    exclude: Annotated[
        list[int],
        typer.Option(help="Class that is not scored, such as background; repeat it.", rich_help_panel="Scoring"),
    ] = [],  # noqa: B006
    one_vs_rest: Annotated[
        int | None, typer.Option(help="Only this class, against all others.", rich_help_panel="Reading")
    ] = None,
    map_labels: Annotated[
        str | None, typer.Option(help='Change labels of the truth, such as "255:1,2:1".', rich_help_panel="Reading")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Pattern whose match in a name is its case, such as the patient: '^[^_]+'.",
            rich_help_panel="Intervals",
        ),
    ] = None,
    activation: Annotated[
        str,
        typer.Option(
            help="What turns the values into probabilities: identity, softmax, sigmoid or normalize.",
            rich_help_panel="Reading",
        ),
    ] = "identity",
    device: Annotated[str, typer.Option(help="Where to decode: cpu, cuda, ...", rich_help_panel="Running")] = "cpu",
    panels: Annotated[
        int,
        typer.Option(help="Pictures of the most improved images, and of the most damaged.", rich_help_panel="Running"),
    ] = 5,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples.", min=1, rich_help_panel="Intervals")] = 10_000,
    confidence: Annotated[
        float, typer.Option(help="Confidence of the intervals.", min=0.01, max=0.9999, rich_help_panel="Intervals")
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the resamples.", rich_help_panel="Intervals")] = 0,
    keep_going: Annotated[
        bool, typer.Option(help="Report images that cannot be read, and go on.", rich_help_panel="Running")
    ] = False,
    fail_below: Annotated[
        float | None,
        typer.Option(
            help="Exit with 3 if the gain's lower bound is below this many points, for any decoder.",
            rich_help_panel="Running",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures as JSON.", rich_help_panel="Running")
    ] = False,
) -> None:
    """Compare decoders on the same probabilities, and write a report: gains, losses, intervals, pictures.

    Exit status: 0; 2 for bad input (one line says which file or option); 3 for --fail-below; 1 for internal errors.
    """
    with _bad_input(ValueError, TypeError):
        for text in decoder:
            parse_decoder(text)
        scoring = Scoring(score, present, absent, tuple(exclude))
        found = find_cases(probs, labels)
        cases = _transform(found.cases, one_vs_rest, map_labels, group_by, ignore_index)
        classes = first_sample(cases, keep_going).probs.shape[0]
        names = class_names.split(",") if class_names else None if one_vs_rest is not None else found.class_names
        check_class_names(names, classes)
        recorder = Recorder(
            decoder,
            num_classes=classes,
            ignore_index=ignore_index,
            scoring=scoring,
            panels=panels,
            device=_device(device),
        )
    for path in found.unmatched:
        note.print(f"no partner: {path}", style="yellow", markup=False)
    # What changes the measurements. How they are scored may differ from the run that is continued.
    asked = {
        "decoders": list(recorder.decoders),
        "probs": str(probs.resolve()),
        "labels": str((labels or probs).resolve()),
        "classes": classes,
        "ignore_index": ignore_index,
        "one_vs_rest": one_vs_rest,
        "map_labels": map_labels,
        "activation": activation,
    }
    with _bad_input(InputError):
        results = ResultsFile(out / RESULTS, asked)
        with _progress(len(cases)) as step:
            hashes = run(cases, recorder, results, activation, keep_going, step)
        results.close()
        if not recorder.measurements:
            raise InputError(probs, f"no image could be scored; the first: {next(iter(recorder.skipped.values()))}")
    comparison = recorder.comparison(
        names,
        facts=collect_facts(sys.argv[1:], hashes, [str(path) for path in found.unmatched]),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    with _bad_input(OSError):
        write_report(comparison, out)
    _show(comparison, out, as_json)
    _judge(comparison, fail_below)


def _show(comparison: Comparison, out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(to_dict(comparison), indent=2))
    else:
        Console(highlight=False).print(to_terminal(comparison))
    for problem in comparison.skipped.values():
        note.print(f"skipped: {problem}", style="yellow", markup=False)
    note.print(f"Report: {out / 'report.html'}")


def _judge(comparison: Comparison, fail_below: float | None) -> None:
    if fail_below is None:
        return
    for decoder in comparison.candidates:
        low = 100 * comparison.paired(decoder).interval[0]
        if not low >= fail_below:  # NaN fails too
            note.print(f"{decoder}: the lower bound of the gain is {low:+.2f} points, below {fail_below:g}")
            raise typer.Exit(BELOW)


def _transform(
    cases: Sequence[Case],
    one_vs_rest: int | None,
    map_labels: str | None,
    group_by: str | None,
    ignore_index: int,
) -> list[Case]:
    if map_labels is not None:
        pairs = [re.fullmatch(r"\s*(-?\d+)\s*:\s*(-?\d+)\s*", part) for part in map_labels.split(",")]
        if None in pairs:
            raise ValueError(f"--map-labels must be pairs such as '255:1,2:0', got {map_labels!r}")
        mapping = {int(pair[1]): int(pair[2]) for pair in pairs if pair}
        cases = [relabel(case, mapping) for case in cases]
    if one_vs_rest is not None:
        cases = [one_against_rest(case, one_vs_rest, ignore_index) for case in cases]
    if group_by is not None:
        cases = [replace(case, group=_group(group_by, case.name)) for case in cases]
    return list(cases)


def _group(pattern: str, name: str) -> str:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise ValueError(f"--group-by must be a regular expression, got {pattern!r}: {error}") from error
    if match is None:
        raise ValueError(f"--group-by {pattern!r} does not match the name {name!r}")
    return match[0]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


@contextlib.contextmanager
def _bad_input(*kinds: type[Exception]) -> Iterator[None]:
    """One line and exit status 2 for these errors; any other is an internal one, with its traceback and status 1."""
    try:
        yield
    except kinds as error:
        problem = f"{error.filename}: cannot be written: {error.strerror}" if isinstance(error, OSError) else error
        note.print(f"error: {problem}", markup=False)
        raise typer.Exit(BAD_INPUT) from error


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    columns = (TextColumn("comparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=note, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda case: progress.advance(task)
