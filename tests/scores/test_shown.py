"""Classes that a decision leaves out are counted image by image."""

import torch

from rankseg_plugins.scores import areas
from rankseg_plugins.scores.shown import left_out


def test_counts_images_by_hand():
    truth = torch.tensor([[0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 255], [0, 0, 2]])
    shows = torch.tensor([[0, 0, 1], [0, 2, 0], [0, 1, 1], [0, 1, 1], [0, 1, 2]])
    hides = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 1, 0]])
    found = left_out(*(areas(each, truth, 3, ignore_index=255) for each in (shows, hides)))
    assert found.found.tolist() == [5, 2, 1]
    assert found.missed.tolist() == [0, 2, 1]
    assert found.spared.tolist() == [0, 1, 1]
