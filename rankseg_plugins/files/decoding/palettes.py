"""Colours of classes in PNG labels: by name, from a list of colours, or from the labels of a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.pictures.colours import check_palette, class_colours, distinct_colours
from rankseg_plugins.files.errors import InputError, blaming

#: Of PASCAL VOC, and those of this package's reports.
NAMED: dict[str, Callable[[int], np.ndarray]] = {"voc": class_colours, "distinct": distinct_colours}


def read_palette(text: str) -> np.ndarray:
    """Read the option ``--palette``.

    Args:
        text: ``"voc"`` or ``"distinct"``; or the path of a PNG with a palette, or of a text file with a line such as
            ``128, 64, 128`` for each class.

    Returns:
        (count, 3) uint8, RGB; count at most 256.

    Raises:
        ValueError: if it is neither; an ``InputError`` for a file that holds no palette.

    Example:
        >>> read_palette("voc")[:2].tolist()
        [[0, 0, 0], [128, 0, 0]]
    """
    if text in NAMED:
        return NAMED[text](256)
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"--palette must be {', '.join(NAMED)} or the file of one, got {text!r}")
    with blaming(path):
        colours = _of_picture(path) if path.suffix.lower() == ".png" else _of_lines(path)
    try:
        return check_palette(colours)
    except ValueError as error:
        raise InputError(path, error) from error


def _of_picture(path: Path) -> list[list[int]]:
    with require("PIL.Image", extra="report").open(path) as picture:
        found = picture.getpalette("RGB")
    if found is None:
        raise InputError(path, f"has no palette: its values are of the mode {picture.mode}, not indices")
    return np.array(found).reshape(-1, 3).tolist()


def _of_lines(path: Path) -> list[list[int]]:
    colours = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        if len(words) != 3 or not all(word.isdecimal() for word in words):
            raise InputError(path, f"line {number} must be three numbers such as 128, 64, 128, got {line!r}")
        colours.append([int(word) for word in words])
    return colours
