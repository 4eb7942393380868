"""Labels of every image, written as they are decided, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.core.inputs.plausibility import describe_sums
from rankseg_plugins.core.inputs.probabilities import check_classes, check_shape, to_probabilities
from rankseg_plugins.files.cases import check_rest
from rankseg_plugins.files.decoding.deciding import Decoder, decide, expect, one_class
from rankseg_plugins.files.decoding.geometry import Reference, beside, check_size, open_reference
from rankseg_plugins.files.decoding.images import Image
from rankseg_plugins.files.decoding.scratch import Scratch
from rankseg_plugins.files.decoding.writing import Form, write_labels
from rankseg_plugins.files.errors import InputError, first_readable, sparing_memory
from rankseg_plugins.files.formats.nnunet import find_orientation
from rankseg_plugins.files.lines import DAMAGES, RunFile, damaged, rows_of, stamp_of
from rankseg_plugins.files.reading import LABEL_SUFFIXES, Axes

R = TypeVar("R")


class LabelsFile(RunFile):
    """A line for each image whose labels are written."""

    remedy = "choose another --out, or begin anew with --overwrite"


@dataclass(frozen=True)
class Source:
    """How images are read.

    Args:
        activation: what turns their values into probabilities.
        one_vs_rest: the only class; None takes them all.
        orientation: how arrays lie that have a reference; None: as nnU-Net's files tell.
        references: NIfTI files by the name of the image; None: those that nnU-Net left beside its probabilities.
        scratch: gives memory.
    """

    activation: str
    one_vs_rest: int | None
    orientation: str | None
    references: Mapping[str, Path] | None
    scratch: Scratch

    def open(self, image: Image) -> Opened:
        """Open an image.

        Raises:
            InputError: if a file is damaged, or the image and its reference do not belong together.
        """
        values, reverse = image.open(self.scratch.empty)
        blame(image.place, check_shape, values[None])
        path = self.reference_of(image) if reverse or self.references is not None else None
        orientation = self.orientation
        if orientation is None and reverse and image.is_alone:
            orientation = find_orientation(image.path)
        axes, activation, label = Axes(reverse, orientation), self.activation, self.one_vs_rest
        reference = None if path is None else open_reference(path)
        if reference is not None:
            check_size(image.place, tuple(values.shape[1:]), axes, reference)
        if label is not None:
            check_rest(image.place, len(values), label)
            values, activation = blame(image.place, one_class, values, activation, label, self.scratch), "identity"
        return Opened(values, activation, axes, reference)

    def reference_of(self, image: Image) -> Path | None:
        """The file whose geometry the labels of an image take, if there is one; only nnU-Net leaves one beside."""
        if self.references is not None:
            return self.references[image.name]
        return beside(image.path) if image.is_alone else None


class Opened(NamedTuple):
    """An image.

    Args:
        values: (C, *spatial).
        activation: what makes probabilities of them.
        axes: how they lie.
        reference: whose geometry the labels take.
    """

    values: Tensor
    activation: str
    axes: Axes
    reference: Reference | None


@dataclass(frozen=True)
class Labelling:
    """What is done to every image.

    Args:
        source: how it is read.
        decoder: decides on it.
        classes: C, of the first image.
        form: of its labels.
        device: where to decide.
        expected: score whose expectation is worked out; None does not.
        out: folder of the labels.
    """

    source: Source
    decoder: Decoder
    classes: int
    form: Form
    device: torch.device
    expected: str | None
    out: Path

    def __call__(self, image: Image) -> dict[str, Any]:
        """Decide on an image and write its labels; what is to be known of it later.

        Raises:
            InputError: if the image cannot be read, is not valid, or does not fit into memory.
            OSError: if labels cannot be written; it names the file.
        """
        with sparing_memory(image.place):
            return self._label(image)

    def _label(self, image: Image) -> dict[str, Any]:
        # Of before it is read: what is written in the meantime is noticed.
        stamp, opened, scratch = self.stamp(image), self.source.open(image), self.source.scratch
        values, activation, axes, reference = opened
        blame(image.place, check_classes, "probs", values[None], self.classes)
        if self.form.file_format == "nifti" and reference is None:
            raise InputError(image.place, "has no NIfTI file beside it, as the first image has: give --reference")
        if self.decoder.output_mode == "multiclass":
            check_sums(image.place, opened)
        decision = blame(image.place, decide, self.decoder, values, activation, scratch, self.device)
        row: dict[str, Any] = {"image": image.name, "stamp": stamp, "file": image.name + self.form.suffix}
        if self.expected is not None:
            found = blame(image.place, expect, self.expected, self.decoder, decision, values, activation, scratch)
            row["expected"] = found.tolist()
        path = self.out / row["file"]
        blame(image.place, write_labels, path, decision, self.form, axes, reference, scratch)
        return row

    def stamp(self, image: Image) -> str:
        """What changes when the image or its reference is written to."""
        path = self.source.reference_of(image)
        return stamp_of([image.path] if path is None else [image.path, path])


def check_sums(place: str, opened: Opened) -> None:
    """Refuse channels of which a pixel is not to get one.

    Raises:
        InputError: if they do not add up to 1.
    """
    if len(opened.values) > 1 and opened.activation not in ("softmax", "normalize"):
        given = opened.activation == "identity"
        problem = describe_sums(
            opened.values[None], activate=None if given else lambda some: to_probabilities(some, opened.activation)
        )
        if problem is not None:
            raise InputError(place, problem)


def blame(place: str, function: Callable[..., R], *args: Any) -> R:
    """Call a function whose errors about values are about an image."""
    try:
        return function(*args)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(place, error) from error


def first_opened(images: Sequence[Image], source: Source, place: Path, keep_going: bool) -> tuple[Image, Opened]:
    """The first image that can be read, from which the number of classes is learnt.

    See ``first_readable``.
    """

    def read(image: Image) -> tuple[Image, Opened]:
        with sparing_memory(image.place):
            return image, source.open(image)

    return first_readable(images, read, place, keep_going)


def run(
    images: Iterable[Image],
    labelling: Labelling,
    file: RunFile,
    keep_going: bool = False,
    on_image: Callable[[Image], None] = lambda image: None,
) -> dict[str, str]:
    """Write the labels of images.

    Args:
        images: the images.
        labelling: what is done to each of them.
        file: gets a line for each image once its labels are written.
        keep_going: pass over images that cannot be read.
        on_image: called after each image.

    Returns:
        Why images were passed over, by name.

    Raises:
        InputError: for the first image that cannot be read, unless ``keep_going``.
        OSError: if labels cannot be written; it names the file.
    """
    skipped: dict[str, str] = {}
    for image in images:
        try:
            row = labelling(image)
        except InputError as error:
            if not keep_going:
                raise
            skipped[image.name] = str(error)
        else:
            file.append_row(row)
        on_image(image)
    return skipped


def written(path: Path) -> dict[str, dict[str, Any]]:
    """What the file of a run holds of each image, by name; of several lines the last one.

    Raises:
        InputError: if it is damaged before its last line.
    """
    found: dict[str, dict[str, Any]] = {}
    if path.is_file():
        for number, row in rows_of(path):
            try:
                words = [row[key] for key in ("image", "stamp", "file")]
                if not all(isinstance(word, str) for word in words):
                    raise TypeError(f"not words: {words!r}")
                if "expected" in row:
                    np.array(row["expected"], np.float64)
            except DAMAGES as error:
                raise damaged(path, number, error) from error
            found[row["image"]] = row
    return found


def is_done(image: Image, row: Mapping[str, Any] | None, labelling: Labelling) -> bool:
    """Whether the labels of an image were written, and of what its file holds now."""
    if row is None or not (labelling.out / row["file"]).is_file():
        return False
    return bool(row["stamp"] == labelling.stamp(image))


def check_free(images: Iterable[Image], labelling: Labelling) -> None:
    """Refuse to write over files that no run wrote, such as the truth, or beside labels of the same name.

    Raises:
        InputError: if there is one.
    """
    for image in images:
        for suffix in LABEL_SUFFIXES:
            path = labelling.out / (image.name + suffix)
            if path.exists():
                raise InputError(path, "is there already, and no run of decode wrote it; choose another --out")


def remove(path: Path, out: Path) -> None:
    """Remove what an earlier run wrote, and its file.

    Raises:
        OSError: if something cannot be removed; it names the file.
    """
    for row in written(path).values():
        name = PurePath(row["file"])
        if not name.is_absolute() and ".." not in name.parts:
            (out / name).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
