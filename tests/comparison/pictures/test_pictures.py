"""Colours of classes and of differences."""

import numpy as np
import pytest

from rankseg_plugins.comparison.pictures.colours import (
    ARGMAX_RIGHT,
    NEITHER,
    RANKSEG_RIGHT,
    VOID_COLOUR,
    check_palette,
    class_colours,
    difference,
    distinct_colours,
    oklab_of_eyes,
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


def test_where_no_truth_is_known_nobody_is_right():
    panel = difference(np.full((1, 2, 3), 100, np.uint8), None, np.array([[0, 1]]), np.array([[1, 1]]))[0]
    assert panel.tolist() == [list(NEITHER), [214, 214, 214]]


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


def test_every_class_has_a_colour_of_its_own_for_all_eyes():
    """Also beside the colours that mean no class; the distances of colour-blind eyes are held against known ones."""
    colours = distinct_colours(256)
    assert len({tuple(colour) for colour in colours.tolist()}) == 256
    others = np.array([VOID_COLOUR, RANKSEG_RIGHT, ARGMAX_RIGHT, NEITHER])

    def nearest(palette):
        seen = oklab_of_eyes(np.concatenate([palette, others]))
        apart = np.linalg.norm(seen[:, :, None] - seen[:, None], axis=-1)
        return apart[:, ~np.eye(len(palette) + len(others), dtype=bool)].min(1)

    assert nearest(colours[:21]).min() > 0.06
    assert nearest(class_colours(21)).min() < 0.01  # what PASCAL VOC's colours come to
    gain, loss = oklab_of_eyes(others[1:3]).transpose(1, 0, 2)
    assert np.linalg.norm(gain - loss, axis=1).min() > 0.2


def test_what_eyes_see():
    """Published OKLab of sRGB colours; greys stay grey for all eyes, and red is close to green without green cones."""
    published = {(255, 255, 255): (1, 0, 0), (255, 0, 0): (0.628, 0.225, 0.126), (0, 0, 255): (0.452, -0.032, -0.312)}
    found = oklab_of_eyes(np.array(list(published)))
    np.testing.assert_allclose(found[0], list(published.values()), atol=6e-4)
    grey = oklab_of_eyes(np.array([[120, 120, 120]]))
    np.testing.assert_allclose(grey, np.broadcast_to(grey[:1], grey.shape), atol=1e-3)
    red, green = oklab_of_eyes(np.array([[200, 60, 60], [110, 120, 50]])).transpose(1, 0, 2)
    all_cones, no_red, no_green = np.linalg.norm(red - green, axis=1)
    assert no_red < all_cones / 2
    assert no_green < all_cones / 4


@pytest.mark.parametrize(
    "wrong", [[(0, 0)], [(0, 0, 256)], [], [(0.5, 0, 0)], [(0, 0, 0), (1, 1)], [("a", "b", "c")], "red", None]
)
def test_what_is_no_palette_is_refused(wrong):
    with pytest.raises(ValueError, match="palette must hold"):
        check_palette(wrong)
