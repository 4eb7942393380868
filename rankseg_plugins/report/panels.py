"""Pictures of single images: truth, both decisions, and where they differ."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.examples import Example
from rankseg_plugins.comparison.pictures import class_colours, difference, paint

#: Larger pictures are thinned out to this many pixels a side, for the size of the report.
MOST_PIXELS = 480


def pictures(example: Example, num_classes: int) -> list[np.ndarray]:
    """Truth, baseline, second decoder and difference, each (H, W, 3) uint8."""
    step = -(-max(example.truth.shape) // MOST_PIXELS)
    truth, baseline, candidate = (
        each[::step, ::step].astype(np.int64) for each in (example.truth, example.baseline, example.candidate)
    )
    colours = class_colours(max(num_classes, 2))
    maps = [paint(each, colours) for each in (truth, baseline, candidate)]
    return [*maps, difference(maps[0], truth, baseline, candidate)]


def shown_classes(examples: Sequence[Example]) -> list[int]:
    """Classes that any of the pictures shows, for a legend."""
    found: set[int] = set()
    for example in examples:
        for labels in (example.truth, example.baseline, example.candidate):
            found |= set(np.unique(labels[labels >= 0]).tolist())
    return sorted(found)


def encode(picture: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG with a palette, which is small for label maps."""
    image = require("PIL.Image", extra="report").fromarray(picture)
    buffer = io.BytesIO()
    image.quantize(256).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
