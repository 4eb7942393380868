"""Decisions as pictures: label maps in colour, and where argmax and RankSEG differ.

Label maps here hold -1 where there is no label: a pixel that is void, or whose truth is to be ignored.
"""

from __future__ import annotations

import numpy as np

VOID_COLOUR = (160, 160, 160)
#: Colours of :func:`difference` and what they say. Colour-blind readers can tell them apart.
RANKSEG_RIGHT, ARGMAX_RIGHT, NEITHER = (0, 158, 115), (213, 94, 0), (51, 51, 51)
LEGEND = {"only RankSEG is right": RANKSEG_RIGHT, "only argmax is right": ARGMAX_RIGHT, "both are wrong": NEITHER}


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


def paint(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colour a label map.

    Args:
        labels: (H, W) integers; -1 is painted grey.
        colours: (count, 3) uint8, count at least 2; labels beyond them repeat all but the first.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> paint(np.array([[0, 1, 3, -1]]), class_colours(3)).tolist()
        [[[0, 0, 0], [128, 0, 0], [128, 0, 0], [160, 160, 160]]]
    """
    picture = colours[np.where(labels > 0, 1 + (labels - 1) % (len(colours) - 1), 0)]
    picture[labels < 0] = VOID_COLOUR
    return picture


def difference(image: np.ndarray, truth: np.ndarray, argmax: np.ndarray, rankseg: np.ndarray) -> np.ndarray:
    """The image in pale grey, and in the colours of ``LEGEND`` the pixels on which the decisions differ.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W) labels; where it is -1 nothing is coloured.
        argmax: (H, W) labels of argmax.
        rankseg: (H, W) labels of RankSEG.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> truth, argmax, rankseg = np.array([[1, 1, -1]]), np.array([[0, 1, 0]]), np.array([[1, 1, 1]])
        >>> difference(np.zeros((1, 3, 3), np.uint8), truth, argmax, rankseg).tolist()
        [[[0, 158, 115], [214, 214, 214], [214, 214, 214]]]
    """
    grey = image.mean(2, keepdims=True)
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)
    picture = np.repeat(214.0 + 36.0 * grey, 3, axis=2).astype(np.uint8)
    differ = (argmax != rankseg) & (truth >= 0)
    picture[differ] = NEITHER
    picture[differ & (rankseg == truth)] = RANKSEG_RIGHT
    picture[differ & (argmax == truth)] = ARGMAX_RIGHT
    return picture
