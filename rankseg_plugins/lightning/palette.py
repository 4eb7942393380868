"""One colour per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_colours(count: int) -> np.ndarray:
    """The PASCAL VOC colours: black for class 0, then colours as different as the bits of the index allow.

    Args:
        count: number of classes.

    Returns:
        (count, 3) uint8, RGB.

    Example:
        >>> class_colours(3).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    index = np.arange(count)
    colours = np.zeros((count, 3), dtype=np.uint8)
    # Bits 0, 3, 6, ... of the index become the bits of red from the top, 1, 4, 7, ... green, 2, 5, 8, ... blue.
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def check_palette(palette: Sequence[Sequence[int]] | None) -> np.ndarray | None:
    """Bring the option ``palette`` into the form (count, 3) uint8.

    Raises:
        ValueError: if it is not a list of at most 256 RGB triples of 0 to 255.
    """
    if palette is None:
        return None
    colours = np.asarray(palette)
    if colours.ndim != 2 or colours.shape[1:] != (3,) or not 0 < len(colours) <= 256 or colours.dtype.kind not in "iu":
        raise ValueError(f"palette must hold 1 to 256 colours (red, green, blue), got shape {colours.shape}")
    if colours.min() < 0 or colours.max() > 255:
        raise ValueError(f"palette must hold values from 0 to 255, got {colours.min()} to {colours.max()}")
    return colours.astype(np.uint8)
