"""A comparison of images on disk that survives bad files and interruptions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rankseg_plugins.comparison.recording import Recorder
from rankseg_plugins.comparison.sample import Sample, check_exclusive
from rankseg_plugins.core.fits.processes import share
from rankseg_plugins.core.inputs.probabilities import to_probabilities
from rankseg_plugins.files.cases import Case
from rankseg_plugins.files.errors import InputError, first_readable
from rankseg_plugins.files.lines import damaged, stamp_of
from rankseg_plugins.files.results import Measured, Result, ResultsFile, measured

R = TypeVar("R")


def run(
    cases: Sequence[Case],
    recorder: Recorder,
    results: ResultsFile,
    activation: str = "identity",
    keep_going: bool = False,
    on_image: Callable[[Case], None] = lambda case: None,
) -> dict[str, str]:
    """Measure every image that ``results`` does not hold yet.

    Args:
        cases: the images.
        recorder: collects the measurements, in the order of ``cases``.
        results: gets a line for each image as soon as it is measured.
        activation: what turns the values on disk into probabilities.
        keep_going: note images that cannot be read or scored in ``recorder.skipped``, and go on.
        on_image: called after each image, also for those that are skipped or were measured before.

    Returns:
        Hash of the inputs of each image, by name.

    Raises:
        InputError: for the first image that cannot be read or scored, unless ``keep_going``; if results cannot be
            written, or belong to other files or to other contents of these.
    """
    hashes = restore(cases, recorder, results, keep_going)
    restored = set(hashes)
    for case in cases:
        if case.name not in restored and case.name not in recorder.skipped:
            try:
                # Of before it is read: what is written in the meantime is noticed.
                stamp = stamp_of(case.files)
                sample = case.sample()
                inputs = _hash(sample)
                sample = _prepared(case, sample, activation, recorder.output_mode)
                measurement = _blaming(case, recorder.add, sample)
            except InputError as error:
                if not keep_going:
                    raise
                recorder.skipped[case.name] = str(error)
            else:
                hashes[case.name] = inputs
                results.append(Result(measurement, inputs, stamp))
        on_image(case)
    order = {case.name: index for index, case in enumerate(cases)}
    recorder.measurements.sort(key=lambda measurement: order[measurement.name])
    recorder.skipped = dict(sorted(recorder.skipped.items(), key=lambda item: order[item[0]]))
    _complete_pictures(cases, recorder, activation)
    return hashes


def feed(
    cases: Sequence[Case],
    recorder: Recorder,
    take: Callable[[Sample, int], Any],
    results: Path,
    activation: str = "identity",
    keep_going: bool = False,
    on_image: Callable[[Case], None] = lambda case: None,
) -> dict[str, str]:
    """Hand over every image, or the share of this process, for a pass over the files before ``run``.

    Args:
        cases: the images, of all processes.
        recorder: as for ``run``; what it would refuse is not handed over.
        take: gets each of them, and its number among all.
        results: of the earlier run that ``run`` is to continue, perhaps absent.
        activation: what turns the values on disk into probabilities.
        keep_going: leave out images that cannot be read or are not valid; ``run`` says which.
        on_image: called after each image.

    Returns:
        Why those that were left out were, by name.

    Raises:
        InputError: for the first image that cannot be read or is not valid, unless ``keep_going``; if the results
            belong to other files or to other contents of these.
    """
    names, earlier, problems = {case.name for case in cases}, measured(results), {}
    for name in earlier:
        _check_known(name, names, results)
    for number, case in list(enumerate(cases))[share()]:
        try:
            sample = case.sample()
            inputs = _hash(sample) if case.name in earlier else ""
            sample = _prepared(case, sample, activation, recorder.output_mode)
            _blaming(case, recorder.check, sample)
            _blaming(case, take, sample, number)
        except InputError as error:
            if not keep_going:
                raise
            problems[case.name] = str(error)
        else:
            if case.name in earlier and inputs != earlier[case.name].inputs:
                raise _changed(case, earlier[case.name], results)
        on_image(case)
    return problems


def first_sample(cases: Sequence[Case], activation: str, place: Path, keep_going: bool) -> Sample:
    """The first image that can be read, to learn the number of classes and what fits its truth.

    See ``first_readable``.
    """
    return first_readable(cases, lambda case: _prepared(case, case.sample(), activation), place, keep_going)


def restore(cases: Sequence[Case], recorder: Recorder, results: ResultsFile, keep_going: bool) -> dict[str, str]:
    """Take over what was measured before; see ``run``, which does so first."""
    known = {case.name: case for case in cases}
    hashes: dict[str, str] = {}
    counts: dict[str, np.ndarray] = {}
    for number, result in enumerate(results, 2):  # the first line is no image
        name = result.measurement.name
        _check_known(name, known, results.path)
        try:
            unchanged = result.inputs == hashes.get(name) or _is_unchanged(known[name], result)
        except InputError as error:
            if not keep_going:
                raise
            recorder.skipped[name] = str(error)
            continue
        if not unchanged:
            raise _changed(known[name], result, results.path)
        if name in hashes:
            # A line that was written twice, as by two runs at once, which took different times for the same.
            if result.inputs == hashes[name] and np.array_equal(result.measurement.counts, counts[name]):
                continue
            raise InputError(
                results.path, f"line {number} holds other results of {name!r} than a line before it; remove the file"
            )
        group = known[name].group
        try:
            recorder.restore(replace(result.measurement, case=name if group is None else group))
        except ValueError as error:
            raise damaged(results.path, number, error) from error
        hashes[name], counts[name] = result.inputs, result.measurement.counts
    return hashes


def _check_known(name: str, known: Container[str], path: Path) -> None:
    if name not in known:
        raise InputError(path, f"holds results of another {name!r}; choose another --out or remove the file")


def _is_unchanged(case: Case, result: Result) -> bool:
    """Whether its files hold what was measured; they are read only if they may have been written to since."""
    return result.stamp == stamp_of(case.files) or result.inputs == _hash(case.sample())


def _changed(case: Case, result: Result | Measured, path: Path) -> InputError:
    stamps = zip(case.files, result.stamp.split(), stamp_of(case.files).split(), strict=False)
    files = dict.fromkeys(str(file) for file, then, now in stamps if then != now)
    problem = f"has changed since {case.name!r} was measured; choose another --out or remove {path}"
    return InputError(" and ".join(files) or case.files[0], problem)


def _prepared(case: Case, sample: Sample, activation: str, output_mode: str | None = None) -> Sample:
    """Its probabilities; with ``output_mode``, refuse channels that cannot belong to the truth."""
    probs = _blaming(case, to_probabilities, sample.probs.unsqueeze(0), activation)
    sample = replace(sample, probs=probs[0])
    if output_mode is not None:
        _blaming(case, check_exclusive, sample, output_mode)
    return sample


def _blaming(case: Case, function: Callable[..., R], *args: Any) -> R:
    try:
        return function(*args)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        # Errors about the truth speak of the target, all others of the probabilities.
        if "target" not in str(error):
            raise InputError(case.places[0], error) from error
        raise InputError(case.places[1], f"{error}; the probabilities are {case.places[0]}") from error


def _complete_pictures(cases: Sequence[Case], recorder: Recorder, activation: str) -> None:
    """Keep those of the extremes of all images, of which some were measured before and are decoded again."""
    held = {example.name: example for example in recorder.extremes.all()}
    extremes = set(recorder.begin_pictures())
    for case in cases:
        if case.name in extremes and case.name in held:
            recorder.extremes.keep(held[case.name])
        elif case.name in extremes:
            recorder.picture(_prepared(case, case.sample(), activation, recorder.output_mode))


def _hash(sample: Sample) -> str:
    digest = hashlib.sha256()
    for tensor in (sample.probs, sample.labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    if sample.spacing is not None:
        digest.update(str(sample.spacing).encode())
    return digest.hexdigest()
