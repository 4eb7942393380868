"""``rankseg-plugins tune``: which decoder?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from rankseg_plugins.cli import options
from rankseg_plugins.cli.console import bad_input, note, note_skipped, show, show_json, warnings_as_notes
from rankseg_plugins.cli.processes import from_first, own_device
from rankseg_plugins.cli.reading import Images, Reading, find
from rankseg_plugins.cli.running import check_out, look_ahead, measure
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.core.inputs.probabilities import check_choice
from rankseg_plugins.files.errors import InputError
from rankseg_plugins.report.terminal import tuning_to_terminal
from rankseg_plugins.report.tuning import DECODER, write_tuning
from rankseg_plugins.scores.checks import read_device
from rankseg_plugins.tuning.candidates import PRUNING_PROBS, TEMPERATURES
from rankseg_plugins.tuning.choosing import ARGMAX, OBJECTIVES, check_intervals
from rankseg_plugins.tuning.fitting import SAMPLEWISE, Fitting, check_levels
from rankseg_plugins.tuning.presence import read_rules
from rankseg_plugins.tuning.tuner import Tuned, Tuner

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
        str, typer.Option(help="0.001 to 1000, separated by commas as all of these; below 1 makes surer.", **RACE)
    ] = _listed(TEMPERATURES),
    pruning_probs: Annotated[
        str | None,
        typer.Option(
            help="Classes whose largest probability is not above this are skipped; "
            f"{_listed(PRUNING_PROBS)} unless given.",
            **RACE,
        ),
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="dice, iou; that of the objective unless given.", **RACE)] = None,
    solvers: Annotated[
        str | None, typer.Option(help="RMA, exact, BA, TRNA, BA+TRNA; RMA unless given.", **RACE)
    ] = None,
    presence: Annotated[
        str | None,
        typer.Option(
            help="How candidates that learn which classes are there choose: score, and least probabilities; none "
            "leaves them out, and reads every file only once. Unless given score or 0.2,0.5, by the scoring.",
            **RACE,
        ),
    ] = None,
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
        typer.Option(help="multiclass or multilabel; what fits the truth unless given: masks for masks.", **RACE),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="A choice is scored on each of these parts and made on the others.", min=2)
    ] = 5,
    min_cases: Annotated[int, typer.Option(help="With fewer cases argmax is kept.", min=0)] = 20,
    keep: Annotated[
        str | None,
        typer.Option(
            help="What a choice may not certainly lower, by more than two standard errors: scores and levels such as "
            "iou_dataset; union or label, the objective where these classes count; every-class; or none. Unless given "
            "the dataset level of the objective's score.",
        ),
    ] = None,
    ignore_index: options.IgnoreIndex = 255,
    class_names: options.ClassNames = None,
    present: options.Present = "union",
    absent: options.Absent = "skip",
    exclude: options.Exclude = [],  # noqa: B006
    one_vs_rest: options.OneVsRest = None,
    map_labels: options.MapLabels = None,
    orientation: options.Orientation = None,
    group_by: options.GroupBy = None,
    activation: options.Activation = "identity",
    device: options.Device = "cpu",
    confidence: options.Confidence = 0.95,
    seed: options.Seed = 0,
    keep_going: options.KeepGoing = False,
    as_json: options.AsJson = False,
) -> None:
    """Choose a decoder on validation data, with argmax in the race: writes decoder.json and a report.

    Argmax is kept unless a candidate gains more than a standard error, and choosing gains on images that had no part
    in it, nor in learning which classes are there: a gain is then likely, not certain. A global rule is fitted once,
    to all images, without their labels.

    Exit status: 0, also where argmax is kept; 2 for bad input (one line says which file or option); 1 for internal
    errors.
    """
    intervals: dict[str, Any] = {"confidence": confidence, "seed": seed}
    with bad_input(ValueError, TypeError):
        race = _Race.read(objective, aggregation_levels, temperatures, metrics, pruning_probs, solvers, presence, seed)
        check_intervals(**intervals)
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
        check_out(out)
        images = find(reading)
        tuner = race.start(
            images,
            output_mode,
            folds=folds,
            min_cases=min_cases,
            keep=_kept(keep),
            ignore_index=ignore_index,
            scoring=Scoring(present=present, absent=absent, excluded=tuple(exclude)),
            device=read_device("--device", own_device("--device", device)),
        )
    with warnings_as_notes():
        facts = race.run(tuner, images, out)
        found = tuner.finish(images.class_names, **intervals, facts=facts, preparation=images.preparation)
    _write(found, out, as_json)


class _Race(NamedTuple):
    """Which candidates are in the race, as the options say.

    Args:
        objective: what is to be gained.
        levels: which candidates there are: image by image, for the whole data set, or both.
        shared: options of all candidates.
        own: options of those that decide image by image, where they were given.
        presence: rules of those that learn which classes are there.
        seed: of the folds.
    """

    objective: str
    levels: Sequence[str]
    shared: Mapping[str, Any]
    own: Mapping[str, Any]
    presence: Sequence[str | float] | None
    seed: int

    @classmethod
    def read(
        cls,
        objective: str,
        aggregation_levels: str,
        temperatures: str,
        metrics: str | None,
        pruning_probs: str | None,
        solvers: str | None,
        presence: str | None,
        seed: int,
    ) -> _Race:
        """From the words of the command line; raises ``ValueError`` for one that is not valid."""
        check_choice("--objective", objective, OBJECTIVES)
        rules = None if presence is None else _rules(presence)
        given = {"pruning_probs": pruning_probs, "solvers": solvers, "presence": rules or None}
        named = [name for name in SAMPLEWISE if given[name] is not None]
        levels = check_levels(_words("--aggregation-levels", aggregation_levels), named)
        shared = {
            "temperatures": _numbers("--temperatures", temperatures),
            "metrics": [objective.split("_")[0]] if metrics is None else _words("--metrics", metrics),
        }
        own: dict[str, Any] = {}
        if pruning_probs is not None:
            own["pruning_probs"] = _numbers("--pruning-probs", pruning_probs)
        if solvers is not None:
            own["solvers"] = _words("--solvers", solvers)
        return cls(objective, levels, shared, own, rules, seed)

    def start(self, images: Images, output_mode: str | None, **options: Any) -> Tuner:
        """The candidates that need no fit; without an output mode it is the one that fits the truth."""
        mode = images.output_mode if output_mode is None else output_mode
        return Tuner(images.classes, self.objective, **self.shared, **self.own, output_mode=mode, **options)

    def run(self, tuner: Tuner, images: Images, out: Path) -> dict[str, Any]:
        """Every image through every candidate, of which some are fitted first; what a report says about the run."""
        with bad_input(ValueError, TypeError):
            fitting = tuner.fitting(self.levels, self.presence, self.seed)
            if fitting.names:
                self._fit(fitting, tuner, images, out)
        with bad_input(InputError):
            return measure(images, tuner.recorder, out, "tuning", fitting.conditions)

    def _fit(self, fitting: Fitting, tuner: Tuner, images: Images, out: Path) -> None:
        """Let those into the race that are fitted to the images first."""
        fitting.check_number(len(images.cases))
        names = [*(tuner.candidates if fitting.samplewise else (ARGMAX,)), *fitting.names]
        # What is skipped later does not shape what is fitted.
        look_ahead(images, tuner.recorder, names, fitting.update, out, "fitting", fitting.conditions)
        fitting.gather()
        fitted = fitting.fit()
        tuner.enter(from_first(lambda: fitted), samplewise=fitting.samplewise)


def _write(found: Tuned, out: Path, as_json: bool) -> None:
    with bad_input(OSError):
        page = write_tuning(found, out)
    if as_json:
        show_json(page.figures)
    else:
        show(tuning_to_terminal(page))
    note_skipped(found.comparison.skipped.values())
    note(f"Decoder: {out / DECODER}")
    note(f"Report: {out / 'report.html'}")


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise ValueError(f"{option} must be words separated by commas, none of them empty, got {text!r}")
    return words


def _kept(text: str | None) -> list[str] | None:
    """The option --keep: words, or "none"."""
    words = None if text is None else _words("--keep", text)
    return [] if words == ["none"] else words


def _rules(text: str) -> list[str | float]:
    """The option --presence: words and numbers, or "none"."""
    words = _words("--presence", text)
    if words == ["none"]:
        return []

    def read(word: str) -> str | float:
        try:
            return float(word)
        except ValueError:
            return word

    try:
        return read_rules([read(word) for word in words])
    except ValueError as error:
        raise ValueError(f"{error}; --presence none leaves these candidates out") from None


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} must be numbers separated by commas, got {text!r}") from None
