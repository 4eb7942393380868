"""Labels in PNG files, as they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rankseg_plugins._imports import require

#: Where the header of a PNG says how many bits a value has and what it means; grey is 0.
DEPTH, KIND = 24, 25
GREY = 0


def read_png(path: Path) -> np.ndarray:
    """Read the values of a picture of one channel, index or grey, of 1 to 16 bits.

    Raises:
        ValueError: if it has several channels or pictures, or is another format by this name.
    """
    with require("PIL.Image", extra="report").open(path) as picture:
        if picture.format != "PNG":
            raise ValueError(f"it is a {picture.format} by the name of a PNG; only PNG keeps labels as they are")
        if len(picture.getbands()) != 1:
            raise ValueError(f"labels must be a picture of one channel (index or grey), got mode {picture.mode}")
        if getattr(picture, "n_frames", 1) > 1:
            raise ValueError(f"labels must be one picture, got an animation of {picture.n_frames}")
        array = np.asarray(picture)
    with path.open("rb") as file:
        header = file.read(KIND + 1)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if header[KIND] == GREY and header[DEPTH] < 8:  # Pillow stretches these to 0 to 255
        found: np.ndarray = array // (255 // (2 ** header[DEPTH] - 1))
        return found
    return array
