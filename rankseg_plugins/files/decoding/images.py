"""Images on disk whose truth is not known: found by name, each opened when its turn comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from torch import Tensor

from rankseg_plugins.files.cases import by_stem, names_in, numbers_of
from rankseg_plugins.files.errors import InputError, place_in
from rankseg_plugins.files.formats.arrays import PROBABILITY_KEYS, Make, map_array
from rankseg_plugins.files.formats.nnunet import validations
from rankseg_plugins.files.reading import PROBABILITY_SUFFIXES, Stack, map_probs


class Image(NamedTuple):
    """One image.

    Args:
        name: of its labels.
        path: the file, perhaps of all images.
        place: what errors call it: the file, or the image in a file of all.
        array: gives its array, and the name of that.
        is_alone: whether the file holds nothing but this image.
    """

    name: str
    path: Path
    place: str
    array: Callable[[Make], tuple[np.ndarray, str]]
    is_alone: bool = True

    def open(self, make: Make) -> tuple[Tensor, bool]:
        """Its probabilities (C, *spatial), and whether their axes are nnU-Net's; see ``map_probs``."""
        return map_probs(self.place, partial(self.array, make), make)


def find_images(probs: Path) -> list[Image]:
    """Find the images.

    Args:
        probs: a folder with a file for each image, ``.npz`` (also nnU-Net's), ``.npy`` or ``.pt``; or one ``.npz`` or
            ``.npy`` of all images (N, C, *spatial), see ``rankseg_plugins.files.cases.find_cases``.

    Raises:
        InputError: if it does not exist, cannot be listed or holds none, if two images have the same name, or the name
            of one would lead out of a folder.
    """
    if not probs.exists():
        raise InputError(probs, "no such file or folder")
    if probs.is_dir():
        files = by_stem(validations(probs), PROBABILITY_SUFFIXES)
        return [Image(name, files[name], str(files[name]), partial(_open_file, files[name])) for name in sorted(files)]
    stack = Stack(probs, PROBABILITY_KEYS)
    names = names_in(stack) or numbers_of(stack)
    for name in names:
        parts = PurePath(name).parts
        if not parts or PurePath(name).is_absolute() or ".." in parts or "\0" in name:
            raise InputError(probs, f"the name {name!r} of an image is none of a file below a folder")
    return [
        Image(name, probs, place_in(probs, name), partial(_open_row, stack, index), is_alone=False)
        for index, name in enumerate(names)
    ]


def _open_file(path: Path, make: Make) -> tuple[np.ndarray, str]:
    return map_array(path, PROBABILITY_KEYS, make)


def _open_row(stack: Stack, index: int, make: Make) -> tuple[np.ndarray, str]:
    return stack.map(index, make), stack.key
