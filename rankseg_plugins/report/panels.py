"""Pictures of single images: the photograph where there is one, truth, decisions, and where they differ."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.pictures.colours import LEGEND, VOID_COLOUR, difference, distinct_colours, paint
from rankseg_plugins.comparison.pictures.examples import Example
from rankseg_plugins.comparison.telling.tables import best_of

#: Larger pictures are thinned out to this many pixels a side, for the size of the report.
MOST_PIXELS = 480
#: More pictures of an image than this make two rows.
MOST_BESIDE = 5


class Panel(NamedTuple):
    """One image.

    Args:
        name: of the image.
        gains: of each decoder that is drawn its name, and its score minus that of the baseline; NaN where one has none.
        width: of each picture, in pixels.
        height: likewise.
        pictures: title and PNG of each.
    """

    name: str
    gains: list[tuple[str, float]]
    width: int
    height: int
    pictures: list[tuple[str, bytes]]

    @property
    def columns(self) -> int:
        """Pictures beside each other where there is room: all of them, or half of them if they are many."""
        return len(self.pictures) if len(self.pictures) <= MOST_BESIDE else -(-len(self.pictures) // 2)


class Panels(NamedTuple):
    """The images that change most.

    Args:
        decoders: that are drawn beside the baseline: the second of all, and the best of the others, if there are any.
        groups: title, and the images.
        classes: name and colour of those that any picture shows, and of pixels that have none.
        differences: likewise, of the pictures where a decision differs from the baseline's.
    """

    decoders: list[str]
    groups: list[tuple[str, list[Panel]]]
    classes: list[tuple[str, str]]
    differences: list[tuple[str, str]]


def draw_panels(comparison: Comparison) -> Panels:
    """Draw the images that a comparison kept."""
    groups = [("Most improved", comparison.improved), ("Most damaged", comparison.damaged)]
    drawn = drawn_decoders(comparison)
    # The baseline's, then those drawn.
    places = [0, *map(comparison.decoders.index, drawn)]
    gains = [
        dict(zip(paired.names, paired.differences.tolist(), strict=True)) for paired in map(comparison.paired, drawn)
    ]
    colours = _colours(comparison)

    def panel(example: Example) -> Panel:
        of_each = [(name, gain.get(example.name, np.nan)) for name, gain in zip(drawn, gains, strict=True)]
        return _panel(example, [example.decisions[place] for place in places], comparison.decoders[0], of_each, colours)

    found = [(title, list(map(panel, examples))) for title, examples in groups if examples]
    return Panels(drawn, found, _class_legend(comparison, places, colours), _difference_legend(comparison, drawn))


def drawn_decoders(comparison: Comparison) -> list[str]:
    """The second of all decoders, and the best of those behind it that decide otherwise than others before them."""
    second, *others = comparison.tables.decoders[1:]
    best = best_of(row for row in others if comparison.decides_as(row.name) is None)
    return [second.name, *([] if best is None else [best.name])]


def _panel(
    example: Example, maps: list[np.ndarray], baseline: str, gains: list[tuple[str, float]], colours: np.ndarray
) -> Panel:
    step = -(-max(example.truth.shape) // MOST_PIXELS)
    truth, argmax, *others = (each[::step, ::step].astype(np.int64) for each in (example.truth, *maps))
    painted = [paint(each, colours) for each in (truth, argmax, *others)]
    image = None if example.image is None else example.image[::step, ::step]
    below = painted[0] if image is None else image
    names = [name for name, _ in gains]
    titles = ["difference" if len(names) == 1 else f"difference, {name}" for name in names]
    found = [] if image is None else [("image", image)]
    found += zip(("truth", baseline, *names), painted, strict=True)
    found += zip(titles, (difference(below, truth, argmax, each) for each in others), strict=True)
    height, width = truth.shape
    return Panel(example.name, gains, width, height, [(title, _encode(each)) for title, each in found])


def _encode(picture: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG with a palette, which is small for label maps."""
    image = require("PIL.Image", extra="report").fromarray(np.ascontiguousarray(picture))
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _colours(comparison: Comparison) -> np.ndarray:
    """Of each label, (labels, 3) uint8; a single class is that of label 1."""
    if comparison.palette is None:
        return distinct_colours(max(len(comparison.classes), 2))
    own = np.asarray(comparison.palette, np.uint8)
    return own if len(own) > 1 else np.concatenate([distinct_colours(1), own])


def _class_legend(comparison: Comparison, places: Sequence[int], colours: np.ndarray) -> list[tuple[str, str]]:
    names = comparison.classes if len(comparison.classes) > 1 else ("background", *comparison.classes)
    examples = (*comparison.improved, *comparison.damaged)
    maps = itertools.chain(*((each.truth, *(each.decisions[place] for place in places)) for each in examples))
    found = sorted(set().union(*(np.unique(each).tolist() for each in maps)))
    shown = [
        (names[label], _hex(paint(np.array([[label]]), colours)[0, 0])) for label in found if 0 <= label < len(names)
    ]
    return [*shown, *([("no label", _hex(VOID_COLOUR))] if found and found[0] < 0 else [])]


def _difference_legend(comparison: Comparison, drawn: Sequence[str]) -> list[tuple[str, str]]:
    called = {"RankSEG": drawn[0] if len(drawn) == 1 else "the other decoder", "argmax": comparison.decoders[0]}
    return [
        (re.sub("|".join(called), lambda found: called[found[0]], said), _hex(colour))
        for said, colour in LEGEND.items()
    ]


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
