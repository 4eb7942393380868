"""Distances of surfaces against pairs of pixels, one by one; tests/torchmetrics compares with MONAI."""

import itertools
import math

import numpy as np
import pytest

from rankseg_plugins.scores.boundaries import (
    Boundaries,
    average_surface_distance,
    hausdorff95,
    parse_boundaries,
    surface,
    surface_dice,
    surface_distances,
)

SHAPES = [(12,), (7, 8), (4, 4, 5), (2, 3, 3, 3)]


def blobs(shape, count=9, seed=0):
    """Pairs of masks that resemble each other, from sparse to nearly full; none is empty."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        noise = rng.random(shape)
        target = noise < (0.1, 0.4, 0.8)[index % 3]
        prediction = target ^ (rng.random(shape) < 0.15)
        prediction.flat[0] = target.flat[-1] = True
        yield prediction, target


def surface_of(mask):
    """Pixel by pixel: a neighbour along an axis is outside."""
    found = set()
    for place in np.ndindex(mask.shape):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            other = [*place]
            other[axis] += step
            inside = 0 <= other[axis] < mask.shape[axis] and mask[tuple(other)]
            if mask[place] and not inside:
                found.add(place)
    return sorted(found)


def pairwise(ours, theirs, spacing):
    """The smallest of all distances to the other surface, for each pixel of one."""
    return [min(math.dist(np.multiply(a, spacing), np.multiply(b, spacing)) for b in theirs) for a in ours]


@pytest.mark.parametrize("shape", SHAPES)
def test_surfaces_pixel_by_pixel(shape):
    for mask in itertools.chain(*blobs(shape)):
        assert list(zip(*(axis.tolist() for axis in np.nonzero(surface(mask))), strict=True)) == surface_of(mask)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("even", [True, False])
def test_every_figure_from_all_pairs_of_pixels(shape, even):
    spacing = None if even else (0.7, 1.0, 3.0, 0.4)[: len(shape)]
    steps = spacing or (1.0,) * len(shape)
    for prediction, target in blobs(shape, seed=1):
        surfaces = surface_of(prediction), surface_of(target)
        expected = pairwise(*surfaces, steps), pairwise(*surfaces[::-1], steps)
        for ours, theirs in zip(surface_distances(prediction, target, spacing), expected, strict=True):
            np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-12)
        both = np.concatenate(expected)
        for tolerance in (0, 1, 1.7):
            share = surface_dice(prediction, target, tolerance, spacing)
            assert share == pytest.approx((both <= tolerance + 1e-8).mean(), abs=1e-12)
        largest = max(np.percentile(each, 95) for each in expected)
        assert hausdorff95(prediction, target, spacing) == pytest.approx(largest, abs=1e-12)
        assert average_surface_distance(prediction, target, spacing) == pytest.approx(both.mean(), abs=1e-12)


def test_empty_masks():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    for masks in ((empty, full), (full, empty)):
        assert surface_dice(*masks, 100) == 0
        assert hausdorff95(*masks) == average_surface_distance(*masks) == math.inf
    figures = surface_dice(empty, empty, 1), hausdorff95(empty, empty), average_surface_distance(empty, empty)
    assert all(map(math.isnan, figures))


def test_where_the_masks_lie_in_the_image_makes_no_difference():
    """But at its edge, which bounds a mask as any other pixel outside does."""
    prediction, target = next(blobs((7, 8)))
    measured = Boundaries((0, 1)).measure(prediction, target)
    around = [np.pad(mask, ((3, 9), (0, 5))) for mask in (prediction, target)]
    assert Boundaries((0, 1)).measure(*around) == measured


def test_what_rounding_adds_is_no_distance():
    prediction, target = np.zeros(8, bool), np.zeros(8, bool)
    prediction[0], target[3] = True, True
    assert 3 * 0.1 > 0.3
    assert surface_dice(prediction, target, 0.3, (0.1,)) == 1
    assert surface_dice(prediction, target, 0.2999, (0.1,)) == 0


def test_pixels_and_millimetres():
    prediction, target = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    prediction[:, 1], target[:, 3] = True, True
    assert Boundaries((1, 2)).measure(prediction, target, (1.0, 4.0)) == (0, 1, 2, 2)
    assert Boundaries((2, 8), "mm").measure(prediction, target, (1.0, 4.0)) == (0, 1, 8, 8)
    with pytest.raises(ValueError, match="boundaries in mm need the spacing of the image, which is not known"):
        Boundaries(2, "mm").measure(prediction, target)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: surface_dice([1, 0], [1, 0], 1), TypeError, "prediction must be a bool mask, got int64"),
        (lambda: surface_dice([True], [True, False], 1), ValueError, r"must cover the same pixels, got \(1,\) and \(2"),
        (lambda: surface_dice([True], [True], -1), ValueError, "tolerances must be finite numbers of at least 0, got"),
        (lambda: surface_dice([True], [True], "1"), TypeError, "tolerances must hold values of type int or float"),
        (lambda: hausdorff95([True], [True], (1, 2)), ValueError, "spacing must be 1 finite numbers above 0, one for"),
        (lambda: hausdorff95([True], [True], (0,)), ValueError, "spacing must be 1 finite numbers above 0"),
        (lambda: Boundaries(()), ValueError, "tolerances must name each distance once and at least one"),
        (lambda: Boundaries((1, 1.0)), ValueError, "tolerances must name each distance once"),
        (lambda: Boundaries(1, "cm"), ValueError, "unit must be one of"),
        (lambda: Boundaries(1, classes=()), ValueError, "classes must name each class once, at least one and from 0"),
        (lambda: Boundaries(1, classes=(-1,)), ValueError, "classes must name each class once"),
        (lambda: parse_boundaries("2 cm"), ValueError, "must be a tolerance such as '2', '2mm' or '1,2px', got '2 cm'"),
        (lambda: parse_boundaries("1,,2"), ValueError, "must be a tolerance such as"),
        (lambda: parse_boundaries(""), ValueError, "must be a tolerance such as"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_texts():
    assert parse_boundaries("2") == parse_boundaries(" 2.0 px") == Boundaries(2)
    assert parse_boundaries("0.5,2mm") == Boundaries((0.5, 2), "mm")
    assert [column.name for column in parse_boundaries("0.5,2mm").columns] == [
        "nsd_0.5mm",
        "nsd_2mm",
        "hd95_mm",
        "assd_mm",
    ]
