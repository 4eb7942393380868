"""Images on disk: probabilities and labels matched by name, each read when its turn comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.core.inputs.probabilities import WHITE, to_probabilities
from rankseg_plugins.files.errors import InputError, blaming, place_in
from rankseg_plugins.files.formats.arrays import LABEL_KEYS, PROBABILITY_KEYS, keys_in
from rankseg_plugins.files.formats.nifti import check_orientation
from rankseg_plugins.files.formats.nnunet import DATASET, NNUNET_KEYS, find_classes, find_orientation, validations
from rankseg_plugins.files.reading import (
    LABEL_SUFFIXES,
    PROBABILITY_SUFFIXES,
    Axes,
    Stack,
    read_labels,
    read_probs,
    read_spacing,
    read_words,
)
from rankseg_plugins.scores.extra import Spacing
from rankseg_plugins.scores.truth import describe_axes, to_truth

CLASSES = "classes.txt"
#: What names in a file of all images may end in, beside the formats of labels.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

Read = Callable[[], tuple[Tensor, Tensor, Spacing | None]]
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """One image that is read when its turn comes.

    Args:
        name: what reports call it.
        files: of its probabilities and of its labels.
        places: what errors call these: the file, or the image in a file of all.
        read: gives probabilities (C, *spatial), labels, and the size of a pixel, if the files tell.
        steps: what is done to both after reading.
        group: what counts as one in the intervals; None is the image itself.
        spacing: size of a pixel along every axis of the probabilities; None is what the files tell.
    """

    name: str
    files: tuple[Path, Path]
    places: tuple[str, str]
    read: Read
    steps: tuple[Step, ...] = ()
    group: str | None = None
    spacing: Spacing | None = None

    def sample(self) -> Sample:
        """Read it.

        Raises:
            InputError: if a file cannot be read, or the sizes of probabilities and labels differ.
        """
        probs, labels, spacing = self.read()
        labels = self._fit(labels, tuple(probs.shape[1:]), len(probs))
        if spacing is not None:  # of plain pictures with a first axis of length 1, or without it, see _fit
            spacing = ((1.0,) * probs.ndim + spacing)[-(probs.ndim - 1) :]
        for step in self.steps:
            try:
                probs, labels = step(probs, labels)
            except InputError:
                raise
            except ValueError as error:
                raise InputError(self.places[1], error) from error
        return Sample(self.name, probs, labels, self.group, self.spacing or spacing)

    def _fit(self, labels: Tensor, spatial: tuple[int, ...], classes: int) -> Tensor:
        """Labels (*spatial) as int64, whatever they were; a mask for each class (C, *spatial) stays as it is."""
        shape = tuple(labels.shape)
        if shape == (classes, *spatial) and classes > 1:
            return labels
        # nnU-Net gives plain pictures a first axis of length 1, others give their labels one channel.
        if shape in (spatial, (1, *spatial)) or (1, *shape) == spatial:
            return labels.long().reshape(spatial)
        axes = describe_axes(shape, classes, spatial)
        hint = "" if axes is None else f"; {axes}"
        if self.files[1].name.lower().endswith((".nii", ".nii.gz")) and shape[::-1] == spatial:
            hint = f"; arrays (z, y, x) must be called {' or '.join(NNUNET_KEYS)}"
        size, expected = (" x ".join(map(str, each)) for each in (shape, spatial))
        raise InputError(
            self.places[1], f"labels of size {size} for probabilities of size {expected} in {self.files[0].name}{hint}"
        )


class Found(NamedTuple):
    """What lies in the folders.

    Args:
        cases: images with probabilities and labels.
        unmatched: files without a partner, and images of a file of all.
        class_names: names of the classes, if there are any.
        named_in: the file that names them.
    """

    cases: list[Case]
    unmatched: list[str]
    class_names: list[str] | None = None
    named_in: Path | None = None


def find_cases(probs: Path, labels: Path | None = None, orientation: str | None = None) -> Found:
    """Find the images, and match probabilities with labels by the stem of the file name.

    Args:
        probs: a folder with a file for each image; that of a model which nnU-Net trained, with such folders for its
            folds; or one ``.npz`` or ``.npy`` of all images (N, C, *spatial). In an
            ``.npz`` it is called ``probs``, and beside it may lie ``labels`` (N, *spatial), ``names`` (N,) and
            ``classes`` (C,).
        labels: a folder with a file for each image, and ``classes.txt`` with a name a line if the classes have names;
            or one file of all images in the same order. None: they lie in the same files as the probabilities.
        orientation: how the arrays lie whose labels are NIfTI volumes: "stored" as the file of the labels does, or
            turned, such as to "RAS". None: as nnU-Net's files beside them say; without these, labels that are not
            stored as RAS are refused.

    Raises:
        InputError: if a path does not exist or cannot be listed, nothing matches, or two images have the same name.
        ValueError: if ``orientation`` is none.
    """
    check_orientation("orientation", orientation)
    for path in (probs, labels or probs):
        if not path.exists():
            raise InputError(path, "no such file or folder")
    if probs.is_file():
        return _from_stack(probs, labels, orientation)
    if labels is None:
        _check_labels_beside(min(by_stem(validations(probs), PROBABILITY_SUFFIXES).values()))
        labels = probs
    if labels.is_file():
        raise InputError(labels, "must be a folder, because the probabilities lie in one")
    folders = validations(probs)
    images, truths = by_stem(folders, PROBABILITY_SUFFIXES), by_stem([labels], LABEL_SUFFIXES)
    names = _with_partner(sorted(images), truths, labels)
    pairs = {name: (images[name], truths[name]) for name in names}
    cases = [
        Case(name, files, (str(files[0]), str(files[1])), partial(_read_files, *files, orientation))
        for name, files in pairs.items()
    ]
    alone = [str(files[name]) for files in (images, truths) for name in sorted(files.keys() - pairs.keys())]
    described = find_classes(folders[0])
    if described is not None and described.regions is not None:
        cases = [of_regions(case, described.regions, described.ignored) for case in cases]
    found = Found(cases, alone, *_class_names(labels))
    if found.class_names is None and described is not None:
        return found._replace(class_names=described.names, named_in=described.path)
    return found


def _check_labels_beside(path: Path) -> None:
    """Refuse a file of probabilities that holds no labels, where nothing says where these lie.

    Raises:
        InputError: if it holds none.
    """
    try:
        with blaming(path):
            names = keys_in(path)
    except InputError:
        return  # said where it is read, or passed over
    if not set(LABEL_KEYS) & set(names):
        held = f", but {', '.join(names)}" if names else " beside its probabilities"
        raise InputError(path, f"holds no {LABEL_KEYS[0]}{held}; say where they are: --labels")


def _from_stack(probs: Path, labels: Path | None, orientation: str | None) -> Found:
    images = Stack(probs, PROBABILITY_KEYS)
    if labels is None:
        _check_labels_beside(probs)
        labels = probs
    classes = read_words(probs, "classes")
    beside = _beside_folder if labels.is_dir() else _beside_stack
    found = beside(images, labels, orientation)
    return found._replace(class_names=classes, named_in=None if classes is None else probs)


def _beside_folder(images: Stack, labels: Path, orientation: str | None) -> Found:
    names, files = names_in(images) or numbers_of(images), by_stem([labels], LABEL_SUFFIXES)
    matched = set(_with_partner(names, files, labels))
    axes = Axes(images.key in NNUNET_KEYS, orientation)
    cases, alone = [], []
    for index, name in enumerate(names):
        place = place_in(images.path, name)
        if name not in matched:
            alone.append(place)
            continue
        read = partial(_read_image, images, index, name, partial(_read_truth, files[name], axes))
        cases.append(Case(name, (images.path, files[name]), (place, str(files[name])), read))
    return Found(cases, alone + [str(files[name]) for name in sorted(files.keys() - matched)])


def _beside_stack(images: Stack, labels: Path, orientation: str | None) -> Found:
    truths = Stack(labels, LABEL_KEYS)
    if len(truths) != len(images):
        raise InputError(labels, f"holds labels of {len(truths)} images, {images.path.name} has {len(images)}")
    ours, theirs = names_in(images), names_in(truths)
    for name, other in zip(ours or [], theirs or [], strict=False):
        if name != other:
            raise InputError(labels, f"holds {other!r} where {images.path.name} has {name!r}; give both the same order")
    cases = []
    for index, name in enumerate(ours or theirs or numbers_of(images)):
        places = place_in(images.path, name), place_in(labels, name)
        read = partial(_read_image, images, index, name, partial(_read_labels, truths, index, name))
        cases.append(Case(name, (images.path, labels), places, read))
    return Found(cases, [])


def _read_files(probs: Path, labels: Path, orientation: str | None) -> tuple[Tensor, Tensor, Spacing | None]:
    found, reverse = read_probs(probs)
    if orientation is None and reverse:
        orientation = find_orientation(probs)
    return found, *_read_truth(labels, Axes(reverse, orientation))


def _read_image(
    images: Stack, index: int, name: str, truth: Callable[[], tuple[Tensor, Spacing | None]]
) -> tuple[Tensor, Tensor, Spacing | None]:
    return images.probs(index, name), *truth()


def _read_truth(path: Path, axes: Axes) -> tuple[Tensor, Spacing | None]:
    return read_labels(path, axes), read_spacing(path, axes)


def _read_labels(truths: Stack, index: int, name: str) -> tuple[Tensor, None]:
    return truths.labels(index, name), None


def names_in(stack: Stack) -> list[str] | None:
    """What a file of all calls its images, without the suffixes of files."""
    given = read_words(stack.path, "names")
    if given is None:
        return None
    if len(given) != len(stack):
        raise InputError(stack.path, f"holds {len(given)} names for {len(stack)} images")
    found: dict[str, str] = {}
    for each in given:
        name = stem(each, LABEL_SUFFIXES + PICTURE_SUFFIXES) or each
        if name in found:
            raise InputError(stack.path, f"{found[name]!r} and {each!r} are images of the same name")
        found[name] = each
    return list(found)


def numbers_of(stack: Stack) -> list[str]:
    """Names of images that have none."""
    return [f"{index:06d}" for index in range(len(stack))]


def _class_names(folder: Path) -> tuple[list[str] | None, Path | None]:
    path = folder / CLASSES
    if not path.exists():
        return None, None
    with blaming(path):
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    return [line.strip() for line in lines], path


def _with_partner(names: Sequence[str], labels: Mapping[str, Path], place: Path) -> list[str]:
    found = [name for name in names if name in labels]
    if not found:
        raise InputError(
            place,
            f"no labels have the name of probabilities ({len(labels)} labels, such as {min(labels)}; "
            f"{len(names)} probabilities, such as {min(names)})",
        )
    return found


def check_rest(place: object, channels: int, label: int) -> None:
    """Refuse an image without a class against all others.

    Raises:
        InputError: if there is no such class, or no other; it names the image.
    """
    if not 0 <= label < channels or channels < 2:
        raise InputError(place, f"has {channels} channels: there is no class {label} with a rest")


def one_against_rest(case: Case, label: int, ignore_index: int | None, activation: str = "identity") -> Case:
    """The same image with a single channel: the probability of one class against all others.

    Args:
        case: an image with a channel for every class, at least two.
        label: the class.
        ignore_index: label that stays what it is.
        activation: what turns the values into probabilities, which takes all channels.
    """

    def step(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        check_rest(case.places[0], len(probs), label)
        probs = _probabilities(case, probs, activation)
        if labels.ndim == probs.ndim:  # a mask for each class
            return probs[label : label + 1], labels[label].long()
        to_truth(labels.unsqueeze(0), len(probs), tuple(labels.shape), ignore_index)  # what is no class is no rest
        binary = (labels == label).long()
        if ignore_index is not None:
            binary.masked_fill_(labels == ignore_index, ignore_index)
        return probs[label : label + 1], binary

    return replace(case, steps=(*case.steps, step))


def _probabilities(case: Case, values: Tensor, activation: str) -> Tensor:
    try:
        return to_probabilities(values.unsqueeze(0), activation)[0]
    except ValueError as error:
        raise InputError(case.places[0], error) from error


def relabel(case: Case, labels: Mapping[int, int]) -> Case:
    """The same image with other labels, such as {255: 1} for masks that are drawn in white.

    A mask for each class has no labels but 0 and 1: only what is white there can become another.
    """

    def step(probs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        if truth.ndim == probs.ndim and labels.keys() != {WHITE}:
            raise ValueError(f"holds a mask for each class, in which no label but {WHITE} can be changed")
        changed = truth.clone()
        for old, new in labels.items():
            changed[truth == old] = new
        return probs, changed

    return replace(case, steps=(*case.steps, step))


def of_regions(case: Case, regions: Sequence[Sequence[int]], ignored: int | None) -> Case:
    """The same image with a mask for each region as its truth; a region consists of some of the labels."""
    known = torch.tensor(sorted({0, *(label for region in regions for label in region)}))

    def step(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if labels.ndim == probs.ndim:  # masks already
            return probs, labels
        if ignored is not None and bool((labels == ignored).any()):
            raise InputError(
                case.places[1], f"holds the label {ignored}, which is ignored: masks of regions cannot say so"
            )
        strange = labels[~torch.isin(labels, known)]
        if len(strange):
            raise InputError(case.places[1], f"holds the label {strange[0]}, which is in no region of {DATASET}")
        return probs, torch.stack([torch.isin(labels, torch.tensor(region)) for region in regions])

    return replace(case, steps=(*case.steps, step))


def stem(name: str, suffixes: Sequence[str]) -> str | None:
    """Name of a file without its suffix, or None if it has none of ``suffixes``.

    Example:
        >>> stem("case_01.nii.gz", LABEL_SUFFIXES)
        'case_01'
    """
    suffix = next((each for each in suffixes if name.lower().endswith(each)), None)
    return name[: -len(suffix)] if suffix else None


def by_stem(folders: Sequence[Path], suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of some folders by their names without the suffix.

    Raises:
        InputError: if a folder cannot be listed, all hold none, or two files have one name.
    """
    found: dict[str, Path] = {}
    paths = []
    for folder in folders:
        with blaming(folder):
            inside = sorted(folder.iterdir())
        paths += [path for path in inside if not path.name.startswith(".") and not path.is_dir()]
    for path in paths:
        name = stem(path.name, suffixes)
        if not name:
            continue
        if name in found:
            other = found[name].name if found[name].parent == path.parent else found[name]
            raise InputError(path, f"{other} has the same name: which one is meant?")
        found[name] = path
    if not found:
        others = sorted({path.suffix for path in paths})
        held = f"; it holds {', '.join(others)}" if others else ""
        raise InputError(folders[0], f"holds no {', '.join(suffixes[:-1])} or {suffixes[-1]} file{held}")
    return found
