"""The images that a command is given: found, matched with their truth, and their number of classes known."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rankseg_plugins.cli.console import note
from rankseg_plugins.comparison.sample import Sample, fitting_mode
from rankseg_plugins.comparison.scoring import check_class_names
from rankseg_plugins.core.inputs.plausibility import describe_sums
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice, to_probabilities
from rankseg_plugins.files.cases import Case, Found, find_cases, one_against_rest, relabel
from rankseg_plugins.files.errors import InputError
from rankseg_plugins.files.formats.nifti import check_orientation
from rankseg_plugins.files.grouping import case_of, read_pattern
from rankseg_plugins.files.run import first_sample
from rankseg_plugins.files.wording import about_file

#: Images among which there should be one with foreground.
LOOKED_AT = 10
#: Files without a partner that are named before the others are counted.
LISTED = 5


@dataclass(frozen=True)
class Reading:
    """Which images are read, and how: the options that all commands have in common.

    Args:
        probs: where the probabilities are.
        labels: where the truth is; None is the same place.
        ignore_index: label whose pixels do not count.
        one_vs_rest: the only class; None takes them all.
        map_labels: changes of labels, such as "255:1".
        orientation: how arrays lie whose labels are NIfTI.
        group_by: pattern of the case in a name.
        class_names: separated by commas.
        activation: what turns the values into probabilities.
        keep_going: whether images that cannot be read are passed over.

    Raises:
        ValueError: for an unknown activation or orientation.
    """

    probs: Path
    labels: Path | None
    ignore_index: int
    one_vs_rest: int | None
    map_labels: str | None
    orientation: str | None
    group_by: str | None
    class_names: str | None
    activation: str
    keep_going: bool

    def __post_init__(self) -> None:
        check_choice("--activation", self.activation, ACTIVATIONS)
        check_orientation("--orientation", self.orientation)


class Images(NamedTuple):
    """What a command works on.

    Args:
        cases: the images.
        classes: C.
        output_mode: what fits the truth of the first image.
        activation: what is still to be done to the values of the cases.
        class_names: their names, if there are any.
        unmatched: files and images without a partner.
        reading: what was asked for.
    """

    cases: list[Case]
    classes: int
    output_mode: str
    activation: str
    class_names: list[str] | None
    unmatched: list[str]
    reading: Reading

    @property
    def preparation(self) -> dict[str, Any]:
        """How the files were made into these images, for those who use what was found on them."""
        label, activation = self.reading.one_vs_rest, self.reading.activation
        found: dict[str, Any] = {} if label is None else {"one_vs_rest": label}
        return found if activation == "identity" else {**found, "activation": activation}


def find(reading: Reading) -> Images:
    """Find the images; files without a partner are listed.

    Raises:
        ValueError: for options that are not valid or do not fit the files; ``InputError`` for files.
    """
    mapping = None if reading.map_labels is None else _mapping(reading.map_labels)
    found = find_cases(reading.probs, reading.labels, reading.orientation)
    cases, activation = _chosen(found.cases, mapping, reading)
    first = first_sample(cases, activation, reading.probs, reading.keep_going)
    if reading.group_by is not None:
        pattern = read_pattern("--group-by", reading.group_by)
        cases = [replace(case, group=case_of(case.name, pattern, "--group-by")) for case in cases]
    classes = len(first.probs)
    names = _class_names(reading.class_names, found, classes, reading.one_vs_rest)
    _list_unmatched(found.unmatched)
    is_drawn = classes <= 2 or first.labels.ndim == first.probs.ndim
    if mapping is None and reading.one_vs_rest is None and is_drawn:
        _look_for_foreground(first, cases, reading.ignore_index)
    return Images(cases, classes, fitting_mode(first), activation, names, found.unmatched, reading)


def _list_unmatched(paths: Sequence[str]) -> None:
    for path in paths[:LISTED]:
        note(f"no partner: {path}", style="yellow")
    if len(paths) > LISTED:
        note(f"no partner: {len(paths) - LISTED} more; the report names all of them", style="yellow")


def _chosen(cases: list[Case], mapping: dict[int, int] | None, reading: Reading) -> tuple[list[Case], str]:
    """The images with the labels that are asked for, and what is still to be done to their values."""
    label, activation = reading.one_vs_rest, reading.activation
    if mapping is None and label is None:
        return cases, activation
    _check_chosen(first_sample(cases, "identity", reading.probs, reading.keep_going), mapping, reading)
    if mapping is not None:
        cases = [relabel(case, mapping) for case in cases]
    if label is None:
        return cases, activation
    return [one_against_rest(case, label, reading.ignore_index, activation) for case in cases], "identity"


def _mapping(text: str) -> dict[int, int]:
    mapping: dict[int, int] = {}
    for part in text.split(","):
        pair = re.fullmatch(r"\s*(-?\d+)\s*:\s*(-?\d+)\s*", part)
        if pair is None:
            raise ValueError(f"--map-labels must be pairs such as '255:1,2:0', got {text!r}")
        if int(pair[1]) in mapping:
            raise ValueError(f"--map-labels must say once what {int(pair[1])} becomes, got {text!r}")
        mapping[int(pair[1])] = int(pair[2])
    return mapping


def _check_labels(option: str, labels: Iterable[int], channels: int, ignore_index: int | None = None) -> None:
    highest = max(channels, 2) - 1
    for label in labels:
        if not 0 <= label <= highest and label != ignore_index:
            raise ValueError(f"{option} must name classes in 0 to {highest}, got {label}")


def _check_chosen(stored: Sample, mapping: dict[int, int] | None, reading: Reading) -> None:
    label, channels = reading.one_vs_rest, len(stored.probs)
    if mapping is not None:
        _check_labels("--map-labels", mapping.values(), channels, reading.ignore_index)
    if label is not None:
        _check_one(label, channels, reading.ignore_index)
        _look_at_rest(stored, reading.activation)


def _check_one(label: int, channels: int, ignore_index: int) -> None:
    if channels == 1:
        raise ValueError("--one-vs-rest needs a channel for each class, these probabilities have one channel")
    _check_labels("--one-vs-rest", [label], channels)
    if label == ignore_index:
        raise ValueError(f"--one-vs-rest {label} is what --ignore-index leaves out")


def _class_names(given: str | None, found: Found, classes: int, one_vs_rest: int | None) -> list[str] | None:
    if given is not None:
        names, place = [name.strip() for name in given.split(",")], "--class-names"
    elif one_vs_rest is None and found.class_names is not None:
        names, place = found.class_names, str(found.named_in)
    else:
        return None
    try:
        check_class_names(names, classes)
    except ValueError as error:
        raise InputError(place, error) from error
    return names


def _look_at_rest(stored: Sample, activation: str) -> None:
    """Say so if one class is to be chosen among channels that its label may not mean the same by."""
    if stored.labels.ndim == stored.probs.ndim:
        return
    with contextlib.suppress(ValueError):  # said where the image is read
        problem = describe_sums(to_probabilities(stored.probs.unsqueeze(0), activation))
        if problem is not None:
            note(
                f"warning: --one-vs-rest takes one of several channels, and {about_file(problem)}. A region that "
                "holds other classes is not the label of its number: --map-labels makes one label of all that it holds",
                style="yellow",
            )


def _look_for_foreground(sample: Sample, cases: Sequence[Case], ignore_index: int) -> None:
    """Refuse truth of the first images that holds no foreground, but what is ignored, as masks drawn in white do."""
    hidden, looked_at, samples = None, 0, itertools.chain([sample], _readable(cases[1:LOOKED_AT]))
    for each in samples:
        if ignore_index == 0 or (each.labels == 1).any():
            return
        looked_at += 1
        if hidden is None and (each.labels == ignore_index).any():
            hidden = each.name
    if hidden is None:
        return
    place = next(case.places[1] for case in cases if case.name == hidden)
    raise InputError(
        place,
        f"holds the label {ignore_index}, which is ignored, and {_of_first(looked_at)} no foreground, which is 1: "
        f"masks drawn 0/{ignore_index} take --map-labels {ignore_index}:1; if these pixels are to be ignored, say so "
        f"by --map-labels {ignore_index}:{ignore_index}",
    )


def _of_first(number: int) -> str:
    return "the image has" if number == 1 else f"the first {number} images have"


def _readable(cases: Iterable[Case]) -> Iterator[Sample]:
    for case in cases:
        with contextlib.suppress(InputError):
            yield case.sample()
