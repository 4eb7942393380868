"""Colours of classes and of differences."""

import numpy as np

from rankseg_plugins.comparison.pictures import (
    ARGMAX_RIGHT,
    NEITHER,
    RANKSEG_RIGHT,
    VOID_COLOUR,
    class_colours,
    difference,
    paint,
)


def test_difference_colours_say_who_is_right():
    truth = np.array([[0, 1, 1, -1, 2]])
    argmax = np.array([[0, 0, 1, 0, 0]])
    rankseg = np.array([[0, 1, 0, 1, 1]])
    panel = difference(np.full((1, 5, 3), 100, np.uint8), truth, argmax, rankseg)[0]
    assert panel[[1, 2, 4]].tolist() == [list(colour) for colour in (RANKSEG_RIGHT, ARGMAX_RIGHT, NEITHER)]
    # No difference, and no truth: the grey of the image.
    assert len(set(panel[[0, 3]].ravel().tolist())) == 1


def test_the_image_stays_visible_below_the_differences():
    image = np.zeros((1, 3, 3), np.uint8)
    image[0, 1], image[0, 2] = 100, 200
    grey = difference(image, *np.zeros((3, 1, 3), int))[0, :, 0].astype(int)
    assert grey[0] < grey[1] < grey[2]


def test_labels_beyond_the_colours_are_neither_void_nor_background():
    colours = class_colours(256)
    painted = paint(np.array([[-1, 0, 1, 255, 256, 300, 2**40]]), colours)[0].tolist()
    assert painted[:4] == [list(VOID_COLOUR), [0, 0, 0], [128, 0, 0], colours[255].tolist()]
    assert painted[4] == [128, 0, 0]
    assert all(colour not in (list(VOID_COLOUR), [0, 0, 0]) for colour in painted[4:])


def test_the_colours_are_those_of_pascal_voc():
    published = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 5: (128, 0, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    published |= {20: (0, 64, 128), 255: (224, 224, 192)}
    colours = class_colours(256)
    assert {index: tuple(colours[index].tolist()) for index in published} == published
    assert len({tuple(colour) for colour in colours.tolist()}) == 256
