"""Every image through every decoder, continued where an earlier run stopped, in one process or in several."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer

from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.cli.console import note_for_all
from rankseg_plugins.cli.processes import Steps, from_first, meet
from rankseg_plugins.cli.reading import Images
from rankseg_plugins.comparison.decoders import ByCase, Decoder
from rankseg_plugins.comparison.facts import collect_facts
from rankseg_plugins.comparison.recording import Recorder
from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.core.fits.processes import gather, number, rank, share
from rankseg_plugins.files.errors import InputError, NoImageError
from rankseg_plugins.files.lines import collect, share_of
from rankseg_plugins.files.progress import progress_bar
from rankseg_plugins.files.results import ResultsFile, check_run
from rankseg_plugins.files.run import feed, restore, run
from rankseg_plugins.report.tuning import DECODER
from rankseg_plugins.report.writing import FILES

RESULTS = "results.jsonl"
NONE_SCORED = "no image could be scored"


def check_out(out: Path) -> None:
    """Make the folder for the report, and refuse one that cannot be written before any image is read.

    Raises:
        InputError: if it cannot.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
        folders = [out / name for name in (*FILES, RESULTS, DECODER) if (out / name).is_dir()]
    except OSError as error:
        problem = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(out, f"cannot be written: {problem}") from error
    for folder in folders:
        raise InputError(folder, "cannot be written: it is a folder")


def measure(
    images: Images, recorder: Recorder, out: Path, doing: str, conditions: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Measure every image that an earlier run did not; of several processes, only the first returns.

    Args:
        images: to be decoded.
        recorder: gets what each of them scored.
        out: folder with the results, which are written as they come.
        doing: title of the bar that is shown.
        conditions: of what was fitted to the images before.

    Returns:
        What a report says about the run.

    Raises:
        InputError: if an image cannot be read or scored, unless such are passed over, or none can; if the results
            belong to another run.
    """
    asked = {**_asked_for(recorder.decoders, images, conditions), **contents_of(recorder.decoders)}
    if recorder.extra:
        spacing = images.cases[0].spacing  # one for all, if any
        asked |= {"extra scores": list(map(str, recorder.extra)), "spacing": None if spacing is None else list(spacing)}
    if recorder.expected is not None:
        asked["expected score"] = recorder.expected
    path = out / RESULTS
    with progress_bar(doing, len(images.cases)) as step:
        if number() > 1:
            _measure_share(images, recorder, path, asked, Steps(doing, step))
            step = _ignore
        collect(path)
        results = ResultsFile(path, asked)
        hashes = run(images.cases, recorder, results, images.activation, images.reading.keep_going, step)
    results.close()
    if not recorder.measurements:
        raise NoImageError(images.reading.probs, NONE_SCORED, recorder.skipped.values())
    return collect_facts(sys.argv[1:], hashes, images.unmatched)


def _measure_share(images: Images, recorder: Recorder, path: Path, asked: Mapping[str, Any], steps: Steps) -> None:
    """Measure what one of several processes does; the first goes on when all have done theirs, and the others end.

    What they measure lies in files, from which the first restores it as if it went on with an earlier run.
    """
    cases = {case.name: case for case in images.cases}
    left = from_first(lambda: _left(images, recorder, path, asked))
    steps.look(len(cases) - len(left) if rank() == 0 else 0)
    for name in left:
        if name not in cases:
            raise InputError(images.reading.probs, f"must hold the same images for all processes: one lacks {name!r}")
    results = ResultsFile(share_of(path, rank()), asked)
    own = [cases[name] for name in left[share()]]
    recorder.warn = recorder.warn and rank() == 0
    run(own, recorder, results, images.activation, images.reading.keep_going, steps)
    results.close()
    recorder.forget()
    meet(steps.look)
    recorder.gather()
    note_for_all()
    if rank():
        raise typer.Exit
    for each in range(number()):
        if not share_of(path, each).exists():
            raise InputError(path.parent, f"must be one folder for all processes, and does not hold what {each} wrote")


def _left(images: Images, recorder: Recorder, path: Path, asked: Mapping[str, Any]) -> list[str]:
    """The images that no earlier run measured; its results are checked before others are waited for."""
    collect(path)
    results = ResultsFile(path, asked)
    hashes = restore(images.cases, recorder, results, images.reading.keep_going)
    results.close()
    done = hashes.keys() | recorder.skipped.keys()
    recorder.skipped = {}
    recorder.forget()
    return [case.name for case in images.cases if case.name not in done]


def _ignore(*ignored: object) -> None:
    """Of an image that was counted already."""


def look_ahead(
    images: Images,
    recorder: Recorder,
    names: Iterable[str],
    take: Callable[[Sample, int], Any],
    out: Path,
    doing: str,
    conditions: Mapping[str, Any],
) -> None:
    """Hand over every image that ``measure`` will, before it does, each to one process; see there.

    Args:
        images: to be handed over.
        recorder: what it would refuse is not handed over.
        names: of the decoders that ``measure`` will have.
        take: gets each of them, and its number.
        out: folder with the results of an earlier run, if any.
        doing: title of the bar that is shown.
        conditions: of what is fitted.

    Raises:
        InputError: as ``measure``.
    """
    path = out / RESULTS
    from_first(lambda: collect(path))
    check_run(path, _asked_for(names, images, conditions))
    with progress_bar(doing, len(images.cases)) as step:
        steps = Steps(doing, step)
        ours = feed(images.cases, recorder, take, path, images.activation, images.reading.keep_going, steps)
        meet(steps.look)
    problems = {name: error for part in gather(ours) for name, error in part.items()}
    if len(problems) == len(images.cases):
        raise NoImageError(images.reading.probs, NONE_SCORED, problems.values())


def _asked_for(decoders: Iterable[str], images: Images, conditions: Mapping[str, Any] | None) -> dict[str, Any]:
    """What changes the measurements. How they are scored may differ from the run that is continued.

    But where something is fitted to the images before, under conditions to which the scoring belongs.
    """
    reading = images.reading
    fitted = {**conditions, "group_by": reading.group_by} if conditions else {}
    return {
        **fitted,
        "decoders": list(decoders),
        "probs": str(reading.probs.resolve()),
        "labels": str((reading.labels or reading.probs).resolve()),
        "classes": images.classes,
        "output_mode": images.output_mode,
        "ignore_index": reading.ignore_index,
        "one_vs_rest": reading.one_vs_rest,
        "map_labels": reading.map_labels,
        "orientation": reading.orientation,
        "activation": reading.activation,
    }


def contents_of(decoders: Mapping[str, Decoder]) -> dict[str, Any]:
    """What the name of a file does not say, nor that of a fitted decoder: what was found."""
    tuned = {name: _digest(each) for name, each in decoders.items() if isinstance(each, (TunedDecoder, ByCase))}
    return {"tuned decoders": tuned} if tuned else {}


def _digest(decoder: TunedDecoder | ByCase) -> str:
    parts = [decoder.decoder, *decoder.others] if isinstance(decoder, ByCase) else [decoder]
    found = [each.to_dict() for each in parts if isinstance(each, TunedDecoder)]
    return hashlib.sha256(json.dumps(found[0] if len(found) == 1 else found, sort_keys=True).encode()).hexdigest()
