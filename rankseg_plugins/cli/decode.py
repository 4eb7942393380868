"""``rankseg-plugins decode``: labels of images whose truth is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from rankseg_plugins._writing import write_atomically
from rankseg_plugins.calibration.temperature import warn_if_softened
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.cli import options
from rankseg_plugins.cli.console import bad_input, note, note_skipped, show_json, warnings_as_notes
from rankseg_plugins.cli.labelling import Asked, check_folder, label
from rankseg_plugins.cli.processes import own_device
from rankseg_plugins.comparison.blocks.expected import EXPECTED, expected_image_scores
from rankseg_plugins.comparison.decoders import NamedDecoder, parse_decoder
from rankseg_plugins.comparison.scoring import Scoring
from rankseg_plugins.core.fits.processes import rank
from rankseg_plugins.core.inputs.plausibility import CLASSES_LAST
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice
from rankseg_plugins.files.decoding.geometry import find_references
from rankseg_plugins.files.decoding.images import Image, find_images
from rankseg_plugins.files.decoding.palettes import read_palette
from rankseg_plugins.files.decoding.run import Labelling, Opened, Source, blame, first_opened
from rankseg_plugins.files.decoding.scratch import Scratch
from rankseg_plugins.files.decoding.writing import SUFFIXES, choose_form
from rankseg_plugins.files.errors import InputError
from rankseg_plugins.files.formats.nifti import check_orientation
from rankseg_plugins.report.values import csv_text
from rankseg_plugins.scores.checks import read_device

WRITING, EXPECTING = ({"rich_help_panel": title} for title in ("Writing", "Expected score"))


def decode(
    probs: options.Probs,
    decoder: Annotated[
        str,
        typer.Option(help='The decoder.json that tune wrote, "rankseg(option=value, ...)" or "argmax".'),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the labels; an interrupted run is continued there.",
            parser=options.read_path,
            metavar="DIRECTORY",
        ),
    ] = Path("labels"),
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="png, nifti or npy; unless given, nifti where there is a reference, png for plain pictures, npy for "
            "masks that may overlap and all else.",
            **WRITING,
        ),
    ] = None,
    palette: Annotated[
        str | None,
        typer.Option(
            help="Colours of PNG labels: voc, distinct, a PNG that has them, or a text file of lines such as "
            "128,64,128. Grey unless given.",
            **WRITING,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of NIfTI images or labels of the same names, whose affine the labels take. Unless given, the "
            "segmentations that nnU-Net left beside its probabilities.",
            parser=options.read_path,
            metavar="DIRECTORY",
            **WRITING,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, also in the folder of another run.", **WRITING)
    ] = False,
    expected_score: Annotated[
        Path | None,
        typer.Option(
            help="Table (CSV) of what the decision on every image is expected to score.",
            parser=options.read_path,
            metavar="FILE",
            **EXPECTING,
        ),
    ] = None,
    score: Annotated[str, typer.Option(help="dice or iou.", **EXPECTING)] = "dice",
    absent: Annotated[
        str, typer.Option(help="What a class counts that is absent: skip, zero or one.", **EXPECTING)
    ] = "skip",
    exclude: Annotated[
        list[int], typer.Option(help="Class that is not scored, such as background; repeat it.", **EXPECTING)
    ] = [],  # noqa: B006
    one_vs_rest: options.OneVsRest = None,
    orientation: options.Orientation = None,
    activation: options.Activation = "identity",
    device: options.Device = "cpu",
    keep_going: options.KeepGoing = False,
    as_json: options.AsJson = False,
) -> None:
    """Decide on images whose truth is not known, and write their labels, also of volumes larger than memory.

    Exit status: 0; 2 for bad input (one line says which file or option); 1 for internal errors.
    """
    with bad_input(ValueError, TypeError), warnings_as_notes():
        named, scoring = parse_decoder(decoder), Scoring(score, absent=absent, excluded=tuple(exclude))
        _check_options(activation, orientation, expected_score, scoring)
        if file_format is not None:
            check_choice("--format", file_format, tuple(SUFFIXES))
            _check_geometry(file_format, reference, orientation)
        colours = None if palette is None else read_palette(palette)
        at = read_device("--device", own_device("--device", device))
        images = find_images(probs)
        check_folder(out, probs, reference)
        found = None if reference is None else find_references(reference, [image.name for image in images])
        source = Source(activation, one_vs_rest, orientation, found, Scratch(out))
        first, opened = first_opened(images, source, probs, keep_going)
        built = _build(named, first, opened, one_vs_rest)
        classes, spatial = len(opened.values), tuple(opened.values.shape[1:])
        form = choose_form(file_format, built, spatial, classes, colours, opened.reference is not None)
        _check_geometry(form.file_format, reference, orientation)
        scoring.kept(classes)
        del opened
        expected = None if expected_score is None else score
        labelling = Labelling(source, built, classes, form, at, expected, out)
    asked = Asked(named.name, probs, reference, palette, overwrite, keep_going)
    with warnings_as_notes(), bad_input(InputError, OSError):
        rows, skipped = label(images, labelling, asked)
        scores = {} if expected is None else _scores(rows, scoring)
        if expected_score is not None:
            write_atomically(expected_score, _table(scores, named.name, score))
    if as_json:
        figures = _figures(labelling, named.name, rows, skipped)
        show_json(figures if expected is None else {**figures, f"expected_{score}": scores})
    note_skipped(skipped.values())
    if expected_score is not None:
        note(f"Expected scores: {expected_score}")
    note(f"Labels: {out}")


def _figures(
    labelling: Labelling, decoder: str, rows: Mapping[str, Mapping[str, Any]], skipped: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "decoder": decoder,
        "classes": labelling.classes,
        "output_mode": labelling.decoder.output_mode,
        "format": labelling.form.file_format,
        "labels": {name: str(labelling.out / row["file"]) for name, row in rows.items()},
        "skipped": dict(skipped),
    }


def _check_options(activation: str, orientation: str | None, expected_score: Path | None, scoring: Scoring) -> None:
    check_choice("--activation", activation, ACTIVATIONS)
    check_orientation("--orientation", orientation)
    if expected_score is None:
        if scoring != Scoring():
            raise ValueError("--score, --absent and --exclude have an effect only with --expected-score")
        return
    check_choice("--score", scoring.score, EXPECTED)
    if expected_score.is_dir() or not expected_score.absolute().parent.is_dir():
        problem = "it is a folder" if expected_score.is_dir() else "its folder does not exist"
        raise InputError(expected_score, f"cannot be written: {problem}")


def _check_geometry(file_format: str, reference: Path | None, orientation: str | None) -> None:
    if file_format != "nifti":
        for option, given in (("--reference", reference), ("--orientation", orientation)):
            if given is not None:
                raise ValueError(f"{option} has an effect only on NIfTI labels, and these are {file_format}")


def _build(named: NamedDecoder, first: Image, opened: Opened, one_vs_rest: int | None) -> Any:
    """The decoder for these images, which may not be those that it was tuned for."""
    shape = tuple(opened.values.shape)
    try:
        built = named.build(shape[0])
    except ValueError as error:
        if named.tuned is None or shape[-1] != named.tuned.num_classes:
            raise
        raise InputError(first.place, f"{error}; {CLASSES_LAST}") from error
    if len(shape) == 3 and 2 * shape[-1] < shape[0]:
        read = f"shape {shape} is read as {shape[0]} classes of {shape[1]} x {shape[2]} pixels"
        note(f"warning: {first.place}: {read}; {CLASSES_LAST}", style="yellow")
    built.check_sums = False  # all images are looked at
    tuned = built.evidence.get("one_vs_rest") if isinstance(built, TunedDecoder) else one_vs_rest
    if tuned != one_vs_rest:
        asked = "without --one-vs-rest" if tuned is None else f"with --one-vs-rest {tuned}"
        note(f"warning: {named.name} was tuned {asked}", style="yellow")
    if rank() == 0:
        blame(first.place, warn_if_softened, opened.values[None], opened.activation)
    return built


def _scores(rows: Mapping[str, Mapping[str, Any]], scoring: Scoring) -> dict[str, float]:
    """What each decision is expected to score."""
    return {name: float(expected_image_scores(np.array(row["expected"]), scoring)) for name, row in rows.items()}


def _table(scores: Mapping[str, float], decoder: str, score: str) -> str:
    found: Sequence[dict[str, Any]] = [
        {"image": name, "decoder": decoder, f"expected_{score}": value} for name, value in scores.items()
    ]
    return csv_text(found)
