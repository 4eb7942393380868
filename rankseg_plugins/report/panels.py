"""Pictures of single images: truth, both decisions, and where they differ."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.examples import Example
from rankseg_plugins.comparison.pictures import LEGEND, class_colours, difference, paint

#: Larger pictures are thinned out to this many pixels a side, for the size of the report.
MOST_PIXELS = 480


class Panel(NamedTuple):
    """One image.

    Args:
        name: of the image.
        gain: its score with the second decoder minus that with the baseline.
        width: of each picture, in pixels.
        height: likewise.
        pictures: title and PNG of each.
    """

    name: str
    gain: float
    width: int
    height: int
    pictures: list[tuple[str, bytes]]


class Panels(NamedTuple):
    """The images that change most.

    Args:
        groups: title, and the images.
        classes: name and colour of those that any picture shows.
        differences: likewise, of the last picture of each image.
    """

    groups: list[tuple[str, list[Panel]]]
    classes: list[tuple[str, str]]
    differences: list[tuple[str, str]]


def draw_panels(comparison: Comparison) -> Panels:
    """Draw the images that a comparison kept."""
    groups = [("Most improved", comparison.improved), ("Most damaged", comparison.damaged)]
    return Panels(
        [(title, [_panel(each, comparison) for each in found]) for title, found in groups if found],
        _class_legend(comparison),
        [(name, _hex(colour)) for name, colour in LEGEND.items()],
    )


def _panel(example: Example, comparison: Comparison) -> Panel:
    step = -(-max(example.truth.shape) // MOST_PIXELS)
    truth, baseline, candidate = (each[::step, ::step].astype(np.int64) for each in _maps(example))
    colours = class_colours(max(len(comparison.classes), 2))
    painted = [paint(each, colours) for each in (truth, baseline, candidate)]
    drawn = [*painted, difference(painted[0], truth, baseline, candidate)]
    titles = ("truth", comparison.decoders[0], comparison.candidates[0], "difference")
    pictures = [(title, _encode(each)) for title, each in zip(titles, drawn, strict=True)]
    height, width = truth.shape
    return Panel(example.name, example.gain, width, height, pictures)


def _maps(example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return example.truth, example.baseline, example.candidate


def _encode(picture: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG with a palette, which is small for label maps."""
    image = require("PIL.Image", extra="report").fromarray(picture)
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _class_legend(comparison: Comparison) -> list[tuple[str, str]]:
    names = comparison.classes if len(comparison.classes) > 1 else ("background", *comparison.classes)
    colours = class_colours(max(len(names), 2))
    maps = itertools.chain(*map(_maps, (*comparison.improved, *comparison.damaged)))
    found = sorted(set().union(*(np.unique(each).tolist() for each in maps)))
    return [(names[label], _hex(colours[label])) for label in found if 0 <= label < len(names)]


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
