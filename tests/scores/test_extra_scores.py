"""Which class, pixel and figure an extra score gets to see."""

import numpy as np
import pytest
import torch

from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.extra import Column, ExtraScore, entries, measure_extra, read_extra
from rankseg_plugins.scores.lesions import Lesions

IGNORE = 255


class Counts(ExtraScore):
    """Remembers what it is given; its figures are the pixels of both masks."""

    name = "counts"
    columns = (Column("ours", "ours"), Column("theirs", "theirs", "px", False))
    explanation = "Pixels."

    def measure(self, prediction, target, spacing=None):
        return float(prediction.sum()), float(target.sum()) if spacing is None else spacing[0]


def test_labels_and_masks_of_every_form():
    generator = torch.Generator().manual_seed(0)
    prediction, truth = (torch.randint(0, 3, (5, 6), generator=generator) for _ in range(2))
    truth[0], prediction[1, 0] = IGNORE, -1
    kept = truth != IGNORE
    expected = [[float(((each == label) & kept).sum()) for label in range(4)] for each in (prediction, truth)]
    expected = np.where(np.array(expected).any(0), expected, np.nan)
    assert np.isnan(expected[:, 3]).all()
    masks = [torch.stack([each == label for label in range(4)]) for each in (prediction, truth)]
    marked = masks[1].long().masked_fill(~kept, IGNORE)
    for ours, theirs in ((prediction, truth), (masks[0], truth), (prediction, marked), (masks[0], marked)):
        np.testing.assert_equal(measure_extra([Counts()], ours, theirs, 4, IGNORE), expected)
    where_known = [mask & kept for mask in masks]
    np.testing.assert_equal(measure_extra([Counts()], *where_known, 4, IGNORE), expected)


def test_the_foreground_of_one_channel():
    prediction, truth = torch.tensor([0, 1, 1]), torch.tensor([1, 1, IGNORE])
    for ours in (prediction, prediction.bool()[None]):
        assert measure_extra([Counts()], ours, truth, 1, IGNORE).tolist() == [[1], [2]]


def test_classes_that_are_asked_for():
    prediction = truth = torch.tensor([0, 1, 2])
    found = measure_extra([Counts(classes=(2,)), Boundaries(0, classes=(0, 2)), Lesions()], prediction, truth, 3)
    assert np.isnan(found).tolist() == [[True, True, False]] * 2 + [[False, True, False]] * 3 + [[False] * 3] * 3


def test_which_figures_count():
    """A share of a class that counts is 0 where it cannot be said; a distance is left out, as what nobody asked for."""
    values = np.array([[[0.5, np.nan, np.nan, 0.5]], [[3.0, np.nan, np.nan, 3.0]]]).swapaxes(0, 1)
    held = np.array([[True, True, False, True]])
    scores = [Counts(classes=(0, 1, 2))]
    nan = np.nan
    for absent, fill in (("skip", nan), ("zero", 0.0), ("one", 1.0)):
        found = entries(values, scores, held, absent)[0]
        np.testing.assert_equal(found, [[0.5, 0, fill, nan], [3, nan, nan, nan]])


def test_distances_to_nothing_are_left_out():
    found = measure_extra([Boundaries(1)], torch.tensor([0, 0]), torch.tensor([0, 1]), 2)
    np.testing.assert_equal(found[:, 1], [0, np.nan, np.nan])


def test_spacing_of_the_image():
    labels = torch.zeros(2, 3, dtype=torch.long)
    assert measure_extra([Counts()], labels, labels, 1 + 1, None, (0.5, 1))[1, 0] == 0.5
    with pytest.raises(ValueError, match=r"spacing must have a number for each of 2 axes, got \(1.0,\)"):
        measure_extra([Counts()], labels, labels, 2, None, (1.0,))


def test_bad_options():
    assert read_extra(Lesions(), 2) == (Lesions(),)
    with pytest.raises(ValueError, match="extra must give every figure once, got hd95_px twice"):
        read_extra([Boundaries(1), Boundaries(2)], 2)
    with pytest.raises(ValueError, match="classes of lesions must lie in 0 to 1, got 2"):
        read_extra(Lesions(classes=2), 2)
    with pytest.raises(TypeError, match="extra must hold values of type ExtraScore, got 'lesions'"):
        read_extra("lesions", 2)
