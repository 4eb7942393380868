"""A comparison of images on disk that survives bad files and interruptions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from rankseg_plugins.core.probabilities import to_probabilities
from rankseg_plugins.evaluation.cases import Case
from rankseg_plugins.evaluation.files import InputError
from rankseg_plugins.evaluation.measuring import Sample, check_exclusive
from rankseg_plugins.evaluation.recording import Recorder
from rankseg_plugins.evaluation.results import Result, ResultsFile

#: How the message about values begins that may be logits.
OUTSIDE = "probs must lie in [0, 1]"

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
            written, or belong to other files.
    """
    restored, hashes = _restore(cases, recorder, results)
    for case in cases:
        if case.name not in restored:
            try:
                sample = _sample(case, activation, recorder.output_mode)
                measurement = _blaming(case, recorder.add, sample)
            except InputError as error:
                if not keep_going:
                    raise
                recorder.skipped[case.name] = str(error)
            else:
                hashes[case.name] = _hash(sample)
                results.append(Result(measurement, hashes[case.name], _stamp(case)))
        on_image(case)
    _add_pictures([case for case in cases if case.name in restored], recorder, activation)
    order = {case.name: index for index, case in enumerate(cases)}
    recorder.measurements.sort(key=lambda measurement: order[measurement.name])
    return hashes


def feed(
    cases: Sequence[Case],
    recorder: Recorder,
    take: Callable[[Sample], Any],
    activation: str = "identity",
    keep_going: bool = False,
    on_image: Callable[[Case], None] = lambda case: None,
) -> None:
    """Hand over every image, for a pass over the files before :func:`run`.

    Args:
        cases: the images.
        recorder: as for :func:`run`; what it would refuse is not handed over.
        take: gets each of them.
        activation: what turns the values on disk into probabilities.
        keep_going: leave out images that cannot be read or are not valid; :func:`run` says which.
        on_image: called after each image.

    Raises:
        InputError: for the first image that cannot be read or is not valid, unless ``keep_going``.
    """
    for case in cases:
        try:
            sample = _sample(case, activation, recorder.output_mode)
            _blaming(case, recorder.check, sample)
            _blaming(case, take, sample)
        except InputError:
            if not keep_going:
                raise
        on_image(case)


def first_sample(cases: Sequence[Case], activation: str, keep_going: bool) -> Sample:
    """The first image that can be read, to learn the number of classes and what fits its truth.

    Raises:
        InputError: if it cannot be read, with ``keep_going`` if none can.
    """
    for case in cases:
        try:
            return _sample(case, activation)
        except InputError:
            if not keep_going or case is cases[-1]:
                raise
    raise ValueError("cases must hold at least one image")


def _restore(cases: Sequence[Case], recorder: Recorder, results: ResultsFile) -> tuple[set[str], dict[str, str]]:
    known = {case.name: case for case in cases}
    hashes: dict[str, str] = {}
    counts: dict[str, np.ndarray] = {}
    for number, result in enumerate(results, 2):  # the first line is no image
        name = result.measurement.name
        if name not in known or result.stamp != _stamp(known[name]):
            raise InputError(
                results.path, f"holds results of another {name!r}; choose another --out or remove the file"
            )
        if name in hashes:
            # A line that was written twice, as by two runs at once, which took different times for the same.
            if result.inputs == hashes[name] and np.array_equal(result.measurement.counts, counts[name]):
                continue
            raise InputError(
                results.path, f"line {number} holds other results of {name!r} than a line before it; remove the file"
            )
        recorder.restore(replace(result.measurement, case=known[name].group or name))
        hashes[name], counts[name] = result.inputs, result.measurement.counts
    return set(hashes), hashes


def _sample(case: Case, activation: str, output_mode: str | None = None) -> Sample:
    """Read an image; with ``output_mode``, refuse channels that cannot belong to its truth."""
    sample = case.sample()
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
        problem = str(error)
        if problem.startswith(OUTSIDE):
            problem += ": --activation softmax, or --activation sigmoid"
        # Errors about the truth speak of the target, all others of the probabilities.
        raise InputError(case.files["target" in problem], problem) from error


def _add_pictures(restored: Sequence[Case], recorder: Recorder, activation: str) -> None:
    """Decode the images again that belong to the extremes but were measured by an earlier run."""
    gains = {measurement.name: recorder.gain(measurement) for measurement in recorder.measurements}
    changed = [case for case in restored if gains[case.name] < 0 or gains[case.name] > 0]  # not NaN either
    ranked = sorted(changed, key=lambda case: gains[case.name])
    count = recorder.extremes.count
    for case in {case.name: case for case in (*ranked[:count], *ranked[::-1][:count])}.values():
        recorder.picture(_sample(case, activation, recorder.output_mode))


def _hash(sample: Sample) -> str:
    digest = hashlib.sha256()
    for tensor in (sample.probs, sample.labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()


def _stamp(case: Case) -> str:
    stats = [path.stat() for path in case.files]
    return " ".join(f"{stat.st_size}/{stat.st_mtime_ns}" for stat in stats)
