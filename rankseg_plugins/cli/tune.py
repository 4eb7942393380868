"""``rankseg-plugins tune``: which decoder?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rankseg_plugins.cli import options
from rankseg_plugins.cli.reading import RESULTS, Images, asked_for, bad_input, find, note, to_device, warnings_as_notes
from rankseg_plugins.core.probabilities import check_choice
from rankseg_plugins.evaluation.choosing import OBJECTIVES
from rankseg_plugins.evaluation.facts import collect_facts
from rankseg_plugins.evaluation.files import InputError
from rankseg_plugins.evaluation.measuring import Scoring
from rankseg_plugins.evaluation.progress import progress_bar
from rankseg_plugins.evaluation.report.terminal import tuning_to_terminal
from rankseg_plugins.evaluation.report.tuning import DECODER, figures
from rankseg_plugins.evaluation.results import ResultsFile
from rankseg_plugins.evaluation.run import feed, run
from rankseg_plugins.evaluation.tuned import TunedDecoder
from rankseg_plugins.evaluation.tuning import (
    PRUNING_PROBS,
    TEMPERATURES,
    GlobalCandidates,
    Tuned,
    Tuner,
    check_aggregation_levels,
)

RACE = {"rich_help_panel": "Candidates"}


def _listed(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


def tune(
    probs: options.Probs,
    labels: options.Labels = None,
    out: options.Out = Path("tuned"),
    objective: Annotated[
        str, typer.Option(help="What is to be gained: dice or iou, _ and a level: image, class or dataset.")
    ] = "dice_image",
    temperatures: Annotated[
        str, typer.Option(help="Above 0, separated by commas as all of these; below 1 makes surer.", **RACE)
    ] = _listed(TEMPERATURES),
    pruning_probs: Annotated[
        str, typer.Option(help="Classes whose largest probability is not above this are skipped.", **RACE)
    ] = _listed(PRUNING_PROBS),
    metrics: Annotated[str | None, typer.Option(help="dice, iou; that of the objective unless given.", **RACE)] = None,
    solvers: Annotated[str, typer.Option(help="RMA, exact, BA, TRNA, BA+TRNA.", **RACE)] = "RMA",
    aggregation_levels: Annotated[
        str,
        typer.Option(
            help="samplewise decides image by image; global is one rule for scores of the whole data set, and reads "
            "every file twice.",
            **RACE,
        ),
    ] = "samplewise",
    output_mode: Annotated[
        str | None,
        typer.Option(help="multiclass or multilabel; what fits the number of channels unless given.", **RACE),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="A choice is scored on each of these parts and made on the others.", min=2)
    ] = 5,
    min_cases: Annotated[int, typer.Option(help="With fewer cases argmax is kept.", min=0)] = 20,
    ignore_index: options.IgnoreIndex = 255,
    class_names: options.ClassNames = None,
    present: options.Present = "union",
    absent: options.Absent = "skip",
    exclude: options.Exclude = [],  # noqa: B006
    one_vs_rest: options.OneVsRest = None,
    map_labels: options.MapLabels = None,
    group_by: options.GroupBy = None,
    activation: options.Activation = "identity",
    device: options.Device = "cpu",
    resamples: options.Resamples = 10_000,
    confidence: options.Confidence = 0.95,
    seed: options.Seed = 0,
    keep_going: options.KeepGoing = False,
    as_json: options.AsJson = False,
) -> None:
    """Choose a decoder on validation data, with argmax in the race: writes decoder.json and a report.

    Argmax is kept unless the gain is certain on images that had no part in choosing.

    Exit status: 0, also where argmax is kept; 2 for bad input (one line says which file or option); 1 for internal
    errors.
    """
    with bad_input(ValueError, TypeError):
        check_choice("--objective", objective, OBJECTIVES)
        images = find(probs, labels, one_vs_rest, map_labels, group_by, ignore_index, class_names, keep_going)
        levels = _words(aggregation_levels)
        check_aggregation_levels(levels)
        race: dict[str, Any] = {
            "temperatures": _numbers("--temperatures", temperatures),
            "metrics": _words(metrics) if metrics is not None else [objective.split("_")[0]],
            "output_mode": output_mode,
        }
        pooled: dict[str, TunedDecoder] = {}
        if "global" in levels:
            pooled = _fit(GlobalCandidates(images.classes, **race), images, activation, keep_going)
        tuner = Tuner(
            images.classes,
            objective,
            **race,
            pruning_probs=_numbers("--pruning-probs", pruning_probs),
            solvers=_words(solvers) if "samplewise" in levels else (),
            folds=folds,
            min_cases=min_cases,
            ignore_index=ignore_index,
            scoring=Scoring(present=present, absent=absent, excluded=tuple(exclude)),
            device=to_device(device),
            others=pooled,
        )
    asked = asked_for(tuner.candidates, images, ignore_index, one_vs_rest, map_labels, activation)
    with warnings_as_notes():
        with bad_input(InputError):
            results = ResultsFile(out / RESULTS, asked)
            with progress_bar("tuning", len(images.cases)) as step:
                hashes = run(images.cases, tuner.recorder, results, activation, keep_going, step)
            results.close()
            skipped = tuner.recorder.skipped
            if not tuner.recorder.measurements:
                raise InputError(probs, f"no image could be scored; the first: {next(iter(skipped.values()))}")
        found = tuner.finish(
            images.class_names,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            facts=collect_facts(sys.argv[1:], hashes, [str(path) for path in images.unmatched]),
        )
    with bad_input(OSError):
        found.report(out)
    _show(found, out, as_json)


def _fit(candidates: GlobalCandidates, images: Images, activation: str, keep_going: bool) -> dict[str, TunedDecoder]:
    with progress_bar("fitting", len(images.cases)) as step:
        feed(images.cases, lambda sample: candidates.update(sample.probs), activation, keep_going, step)
    return candidates.fit()


def _show(found: Tuned, out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(figures(found), indent=2))
    else:
        Console(highlight=False).print(tuning_to_terminal(found))
    for problem in found.comparison.skipped.values():
        note.print(f"skipped: {problem}", style="yellow", markup=False)
    note.print(f"Decoder: {out / DECODER}")
    note.print(f"Report: {out / 'report.html'}")


def _words(text: str) -> list[str]:
    return [word for word in map(str.strip, text.split(",")) if word]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in _words(text)]
    except ValueError:
        raise ValueError(f"{option} must be numbers separated by commas, got {text!r}") from None
