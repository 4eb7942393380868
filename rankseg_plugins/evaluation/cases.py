"""Images on disk: probabilities and labels matched by name, each read when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.evaluation.files import (
    LABEL_KEYS,
    LABEL_SUFFIXES,
    PROBABILITY_KEYS,
    PROBABILITY_SUFFIXES,
    InputError,
    Stack,
    read_labels,
    read_probs,
    read_words,
)
from rankseg_plugins.evaluation.measuring import Sample

CLASSES = "classes.txt"

Read = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    r"""One image that is read when its turn comes.

    Args:
        name: what reports call it.
        files: of its probabilities and of its labels.
        read: gives probabilities (C, \*spatial) and labels.
        group: what is drawn as one in the bootstrap; None is the image itself.
    """

    name: str
    files: tuple[Path, Path]
    read: Read
    group: str | None = None

    def sample(self) -> Sample:
        """Read it.

        Raises:
            InputError: if a file cannot be read, or the sizes of probabilities and labels differ.
        """
        probs, labels = self.read()
        spatial = tuple(probs.shape[1:])
        if labels.shape == spatial[1:] and spatial[0] == 1:
            labels = labels.unsqueeze(0)  # nnU-Net gives plain pictures a first axis of length 1
        if labels.shape == spatial and labels.dtype == torch.bool:
            labels = labels.long()
        if tuple(labels.shape) not in (spatial, tuple(probs.shape)):
            size, expected = (" x ".join(map(str, each)) for each in (labels.shape, spatial))
            raise InputError(
                self.files[1], f"labels of size {size} for probabilities of size {expected} in {self.files[0].name}"
            )
        return Sample(self.name, probs, labels, self.group)


class Found(NamedTuple):
    """What lies in the folders.

    Args:
        cases: images with probabilities and labels.
        unmatched: files without a partner.
        class_names: names of the classes, if there are any.
    """

    cases: list[Case]
    unmatched: list[Path]
    class_names: list[str] | None = None


def find_cases(probs: Path, labels: Path | None = None) -> Found:
    r"""Find the images, and match probabilities with labels by the stem of the file name.

    Args:
        probs: a folder with a file for each image; or one ``.npz`` or ``.npy`` of all images (N, C, \*spatial). In an
            ``.npz`` it is called ``probs``, and beside it may lie ``labels`` (N, \*spatial), ``names`` (N,) and
            ``classes`` (C,).
        labels: a folder with a file for each image, and ``classes.txt`` with a name a line if the classes have names;
            or one file of all images in the same order. None: they lie in the same files as the probabilities.

    Raises:
        InputError: if a path does not exist, or nothing matches.
    """
    labels = probs if labels is None else labels
    for path in (probs, labels):
        if not path.exists():
            raise InputError(path, "no such file or folder")
    if probs.is_file():
        return _from_stack(probs, labels)
    if labels.is_file():
        raise InputError(labels, "must be a folder, because the probabilities lie in one")
    found = match(_by_stem(probs, PROBABILITY_SUFFIXES), _by_stem(labels, LABEL_SUFFIXES), labels)
    names = labels / CLASSES
    return found._replace(class_names=names.read_text().splitlines()) if names.exists() else found


def match(
    probs: Mapping[str, Path],
    labels: Mapping[str, Path],
    place: Path,
    read: Callable[[Path, bool], Tensor] = read_labels,
) -> Found:
    """Match files of one image each by name.

    Args:
        probs: files of probabilities by name.
        labels: files of labels by name.
        place: where the labels lie, for the message.
        read: reads a file of labels, see :func:`~rankseg_plugins.evaluation.files.read_labels`.

    Raises:
        InputError: if nothing matches.
    """
    names = sorted(probs.keys() & labels.keys())
    if not names:
        examples = [f"{next(iter(files.values())).name}" if files else "none" for files in (labels, probs)]
        raise InputError(
            place,
            f"no labels have the name of a file of probabilities ({len(labels)} labels, such as {examples[0]}; "
            f"{len(probs)} probabilities, such as {examples[1]})",
        )

    def read_both(name: str) -> tuple[Tensor, Tensor]:
        found, reverse = read_probs(probs[name])
        return found, read(labels[name], reverse)

    cases = [Case(name, (probs[name], labels[name]), partial(read_both, name)) for name in names]
    unmatched = [files[name] for files in (probs, labels) for name in sorted(files.keys() - set(names))]
    return Found(cases, unmatched)


def _from_stack(probs: Path, labels: Path) -> Found:
    images = Stack(probs, PROBABILITY_KEYS)
    given = read_words(probs, "names") or [f"{index:06d}" for index in range(len(images))]
    if len(given) != len(images):
        raise InputError(probs, f"holds {len(given)} names for {len(images)} images")
    names, class_names = [stem(name, LABEL_SUFFIXES) or name for name in given], read_words(probs, "classes")
    if labels.is_dir():
        files = _by_stem(labels, LABEL_SUFFIXES)
        found = match(dict.fromkeys(names, probs), files, labels)
        index = {name: i for i, name in enumerate(names)}
        cases = [
            replace(case, read=partial(_read_one, images, index[case.name], partial(read_labels, case.files[1])))
            for case in sorted(found.cases, key=lambda case: index[case.name])
        ]
        return Found(cases, [path for path in found.unmatched if path != probs], class_names)
    truths = Stack(labels, LABEL_KEYS)
    if len(truths) != len(images):
        raise InputError(labels, f"holds labels of {len(truths)} images, {probs.name} has {len(images)}")
    cases = [
        Case(name, (probs, labels), partial(_read_one, images, i, partial(truths.labels, i)))
        for i, name in enumerate(names)
    ]
    return Found(cases, [], class_names)


def _read_one(images: Stack, index: int, labels: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    return images.probs(index), labels()


def one_against_rest(case: Case, label: int, ignore_index: int | None) -> Case:
    """The same image with a single channel: the probability of one class against all others.

    Args:
        case: an image with a channel for every class.
        label: the class, at least 0.
        ignore_index: label that stays what it is.
    """

    def read() -> tuple[Tensor, Tensor]:
        probs, labels = case.read()
        if not 0 <= label < len(probs):
            raise InputError(case.files[0], f"has the classes 0 to {len(probs) - 1}, not {label}")
        binary = (labels == label).long()
        return probs[label : label + 1], binary if ignore_index is None else binary.masked_fill_(
            labels == ignore_index, ignore_index
        )

    return replace(case, read=read)


def relabel(case: Case, labels: Mapping[int, int]) -> Case:
    """The same image with other labels, such as {255: 1} for masks that are drawn in white."""

    def read() -> tuple[Tensor, Tensor]:
        probs, truth = case.read()
        changed = truth.clone()
        for old, new in labels.items():
            changed[truth == old] = new
        return probs, changed

    return replace(case, read=read)


def stem(name: str, suffixes: Sequence[str]) -> str | None:
    """Name of a file without its suffix, or None if it has none of ``suffixes``.

    Example:
        >>> stem("case_01.nii.gz", LABEL_SUFFIXES)
        'case_01'
    """
    suffix = next((each for each in suffixes if name.lower().endswith(each)), None)
    return name[: -len(suffix)] if suffix else None


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = stem(path.name, suffixes)
        if not name or not path.is_file() or name.startswith("."):
            continue
        if name in found:
            raise InputError(path, f"{found[name].name} has the same name: which one is meant?")
        found[name] = path
    return found
