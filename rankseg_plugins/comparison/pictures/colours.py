"""Decisions as pictures: label maps in colour, and where argmax and RankSEG differ.

Label maps here hold -1 where there is no label: a pixel that is void, or whose truth is to be ignored.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from functools import cache

import numpy as np

VOID_COLOUR = (160, 160, 160)
#: Colours of ``difference`` and what they say: blue and orange, which colour-blind readers tell apart, stand for
#: gain and loss wherever something is drawn, and for nothing else.
RANKSEG_RIGHT, ARGMAX_RIGHT, NEITHER = (0, 114, 178), (213, 94, 0), (136, 34, 85)
LEGEND = {"only RankSEG is right": RANKSEG_RIGHT, "only argmax is right": ARGMAX_RIGHT, "both are wrong": NEITHER}


#: First colours of ``distinct_colours``: black, and what gain and loss leave of those of Okabe and Ito.
FIRST_COLOURS = ((0, 0, 0), (0, 158, 115), (240, 228, 66), (86, 180, 233), (230, 159, 0))
#: Lightness in OKLab below which two colours are both all but black to people, however far apart in numbers.
DARK = 0.4
#: Colours that mean something else than a class: none, gain, loss, both wrong, paper.
_TAKEN = (VOID_COLOUR, RANKSEG_RIGHT, ARGMAX_RIGHT, NEITHER, (255, 255, 255))
#: What is left of linear red, green and blue for eyes of all cones, and without the first or the second kind.
_EYES = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
#: From linear RGB to cones, and from their cube roots to OKLab.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def distinct_colours(count: int) -> np.ndarray:
    """Colours of classes in pictures: black for class 0, then each as far from all before it as colours can be.

    As far as eyes of all cones, and without the red or the green ones, tell them apart; also from the colours of gain,
    loss and void.

    Args:
        count: number of classes, at most 256.

    Returns:
        (count, 3) uint8, RGB.

    Source: the first colours: Okabe & Ito, "Color universal design" (2008); the eyes: Machado, Oliveira & Fernandes, "A
    physiologically-based model for simulation of color vision deficiency" (IEEE TVCG 2009), severity 1; distances
    are those of Ottosson's OKLab (2020).

    Example:
        >>> distinct_colours(3).tolist()
        [[0, 0, 0], [0, 158, 115], [240, 228, 66]]
    """
    return _distinct_colours()[:count].copy()


@cache
def _distinct_colours() -> np.ndarray:
    steps = np.linspace(0, 255, 8).round()
    offered = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    offered = offered[oklab_of_eyes(offered)[0, :, 0] > DARK]
    seen, found = oklab_of_eyes(offered), list(FIRST_COLOURS)

    def distances(colour: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.linalg.norm(seen - oklab_of_eyes(colour[None]), axis=-1).min(0)
        return found

    nearest = np.min([distances(np.array(each)) for each in (*_TAKEN, *FIRST_COLOURS)], axis=0)
    while len(found) < 256:
        colour = offered[nearest.argmax()]
        found.append(tuple(colour.tolist()))
        nearest = np.minimum(nearest, distances(colour))
    return np.array(found).astype(np.uint8)


def oklab_of_eyes(colours: np.ndarray) -> np.ndarray:
    """Colours (N, 3), RGB of 0 to 255, as OKLab for eyes of all cones, without red, without green: (3, N, 3)."""
    share = np.asarray(colours, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = (linear @ _EYES.transpose(0, 2, 1)).clip(0, 1)
    found: np.ndarray = np.cbrt(seen @ _CONES.T) @ _OKLAB.T
    return found


def class_colours(count: int) -> np.ndarray:
    """The PASCAL VOC colours, as label files have them: black for class 0, then what the bits of the index say.

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


def check_palette(palette: Sequence[Sequence[int]], classes: int | None = None) -> np.ndarray:
    """Bring the option ``palette`` into the form (count, 3) uint8.

    Args:
        palette: (R, G, B) of 0 to 255 each.
        classes: how many there must be; None is any number from 1 to 256.

    Raises:
        ValueError: if it is nothing of the kind.

    Example:
        >>> check_palette([(0, 0, 0), (128, 64, 128)], classes=3)
        Traceback (most recent call last):
            ...
        ValueError: palette must be a colour for each of 3 classes, got 2
    """
    try:
        colours = np.asarray(palette)
    except ValueError:  # colours of different lengths
        colours = np.empty(0)
    if colours.ndim != 2 or colours.shape[1:] != (3,) or not 0 < len(colours) <= 256 or colours.dtype.kind not in "iu":
        raise ValueError(
            f"palette must hold 1 to 256 colours (red, green, blue), integers, got {reprlib.repr(palette)}"
        )
    if colours.min() < 0 or colours.max() > 255:
        raise ValueError(f"palette must hold values from 0 to 255, got {colours.min()} to {colours.max()}")
    if classes is not None and len(colours) != classes:
        raise ValueError(f"palette must be a colour for each of {classes} classes, got {len(colours)}")
    return colours.astype(np.uint8)


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


def difference(image: np.ndarray, truth: np.ndarray | None, argmax: np.ndarray, rankseg: np.ndarray) -> np.ndarray:
    """The image in pale grey, and in the colours of ``LEGEND`` the pixels on which the decisions differ.

    Args:
        image: (H, W, 3) uint8.
        truth: (H, W) labels; where it is -1 nothing is coloured. None, where it is not known at all: then no decision
            is right.
        argmax: (H, W) labels of argmax.
        rankseg: (H, W) labels of RankSEG.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> truth, argmax, rankseg = np.array([[1, 1, -1]]), np.array([[0, 1, 0]]), np.array([[1, 1, 1]])
        >>> difference(np.zeros((1, 3, 3), np.uint8), truth, argmax, rankseg).tolist()
        [[[0, 114, 178], [214, 214, 214], [214, 214, 214]]]
    """
    grey = image.mean(2, keepdims=True)
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)
    picture = np.repeat(214.0 + 36.0 * grey, 3, axis=2).astype(np.uint8)
    differ = argmax != rankseg if truth is None else (argmax != rankseg) & (truth >= 0)
    picture[differ] = NEITHER
    if truth is None:
        return picture
    picture[differ & (rankseg == truth)] = RANKSEG_RIGHT
    picture[differ & (argmax == truth)] = ARGMAX_RIGHT
    return picture
