"""``rankseg-plugins compare``: does it help?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from rankseg_plugins.cli import options
from rankseg_plugins.cli.console import bad_input, note, note_skipped, show, show_json, warnings_as_notes
from rankseg_plugins.cli.extra import read_extra_options, with_spacing
from rankseg_plugins.cli.processes import own_device
from rankseg_plugins.cli.reading import Reading, find
from rankseg_plugins.cli.running import check_out, measure
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.decoders import parse_decoder
from rankseg_plugins.comparison.recording import DECODERS, Recorder
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.files.errors import InputError
from rankseg_plugins.files.grouping import check_table, read_table
from rankseg_plugins.report import write_report
from rankseg_plugins.report.page import Page
from rankseg_plugins.report.terminal import to_terminal
from rankseg_plugins.report.values import to_dict
from rankseg_plugins.scores.checks import read_device

BELOW = 3


def compare(
    probs: options.Probs,
    labels: options.Labels = None,
    decoder: Annotated[
        list[str],
        typer.Option(
            help='"argmax", "rankseg(option=value, ...)" or the decoder.json that tune wrote; repeat it. The first is '
            "the baseline; one alone is compared with argmax. Where the truth is masks that overlap, argmax is the "
            'threshold 0.5; "argmax(output_mode=multilabel)" asks for that.'
        ),
    ] = list(DECODERS),  # noqa: B006
    out: options.Out = Path("report"),
    ignore_index: options.IgnoreIndex = 255,
    class_names: options.ClassNames = None,
    score: Annotated[
        str, typer.Option(help="What counts as better: dice, iou, precision or recall.", **options.SCORING)
    ] = "dice",
    present: options.Present = "union",
    absent: options.Absent = "skip",
    exclude: options.Exclude = [],  # noqa: B006
    boundary: Annotated[
        str | None,
        typer.Option(
            help="Measure surface Dice within this distance, such as 2, 2mm or 1,2px, and surface distances.",
            **options.SCORING,
        ),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            help="Size of a pixel along each axis of the arrays in mm, such as 1,1,3; unless given, NIfTI labels tell.",
            **options.SCORING,
        ),
    ] = None,
    lesions: Annotated[
        bool, typer.Option("--lesions", help="Measure which connected components are found.", **options.SCORING)
    ] = False,
    lesion_class: Annotated[
        list[int],
        typer.Option(help="Class whose components are lesions; repeat it. All unless given.", **options.SCORING),
    ] = [],  # noqa: B006
    lesion_overlap: Annotated[
        float | None,
        typer.Option(help="Share of a lesion that must be covered; a single pixel unless given.", **options.SCORING),
    ] = None,
    one_vs_rest: options.OneVsRest = None,
    map_labels: options.MapLabels = None,
    orientation: options.Orientation = None,
    group_by: options.GroupBy = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="Table (CSV) whose first column, name, names images or cases; each other column, such as scanner or "
            "site, says their group. Every group gets its gain and interval.",
            parser=options.read_path,
            metavar="FILE",
            **options.INTERVALS,
        ),
    ] = None,
    risk_coverage: Annotated[
        bool,
        typer.Option(
            "--risk-coverage",
            help="Measure which images can be trusted, by what decisions are expected to score; takes several times as "
            "long.",
            **options.SCORING,
        ),
    ] = False,
    activation: options.Activation = "identity",
    device: options.Device = "cpu",
    panels: Annotated[
        int,
        typer.Option(help="Pictures of the most improved images, and of the most damaged.", **options.RUNNING),
    ] = 5,
    confidence: options.Confidence = 0.95,
    keep_going: options.KeepGoing = False,
    fail_below: Annotated[
        float | None,
        typer.Option(
            help="Exit with 3 if the gain's lower bound is below this many points, for any decoder.",
            **options.RUNNING,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare decoders on the same probabilities, and write a report: gains, losses, intervals, pictures.

    Exit status: 0; 2 for bad input (one line says which file or option); 3 for --fail-below; 1 for internal errors.
    """
    with bad_input(ValueError, TypeError):
        for text in decoder:
            parse_decoder(text)
        scoring = Scoring(score, present, absent, tuple(exclude))
        extra = read_extra_options(boundary, spacing, lesions, lesion_class, lesion_overlap)
        reading = Reading(
            probs,
            labels,
            ignore_index,
            one_vs_rest,
            map_labels,
            orientation,
            group_by,
            class_names,
            activation,
            keep_going,
        )
        table = {} if groups is None else read_table(groups)
        check_out(out)
        images = with_spacing(find(reading), spacing)
        check_table(groups, table, images.cases)
        recorder = Recorder(
            decoder,
            num_classes=images.classes,
            ignore_index=ignore_index,
            scoring=scoring,
            extra=extra,
            risk_coverage=risk_coverage,
            panels=panels,
            device=read_device("--device", own_device("--device", device)),
            output_mode=images.output_mode,
        )
    with warnings_as_notes():
        with bad_input(InputError):
            facts = measure(images, recorder, out, "comparing")
        comparison = recorder.comparison(images.class_names, facts=facts, confidence=confidence, groups=table)
    with bad_input(OSError):
        page = write_report(comparison, out)
    _show(page, out, as_json)
    _judge(comparison, fail_below)


def _show(page: Page, out: Path, as_json: bool) -> None:
    if as_json:
        show_json(to_dict(page.comparison))
    else:
        show(to_terminal(page))
    note_skipped(page.comparison.skipped.values())
    note(f"Report: {out / 'report.html'}")


def _judge(comparison: Comparison, fail_below: float | None) -> None:
    if fail_below is None:
        return
    for decoder in comparison.candidates:
        low = 100 * comparison.paired(decoder).interval[0]
        if not low >= fail_below:
            told = "not known, of too few cases" if math.isnan(low) else f"{low:+.2f} points, below {fail_below:g}"
            note(f"{decoder}: the lower bound of the gain is {told}")
            raise typer.Exit(BELOW)
