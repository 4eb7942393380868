"""Areas against NumPy's sums over masks; by the kernel, and by whole tensors where numba cannot be had."""

from importlib import import_module

import numpy as np
import pytest
import torch

from rankseg_plugins.core.kernels.cpu.ground.source import CALL

CLASSES, IGNORE = 3, 255
counting = import_module("rankseg_plugins.scores.areas")  # the package has a function of this name


@pytest.fixture(params=["kernel", "tensors"])
def way(request, monkeypatch):
    monkeypatch.setattr(counting, "uses_numba", lambda: request.param == "kernel")


def by_masks(predicted, truth, ignored):
    """From one mask for each class (B, C, N), and labels (B, N)."""
    true = np.stack([truth == label for label in range(CLASSES)], 1)
    kept = np.ones_like(true) if ignored is None else (truth != ignored)[:, None]
    return [(each & kept).sum(2) for each in (predicted & true, predicted, true)]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
@pytest.mark.parametrize("ignored", [None, 1, IGNORE, -1])
@pytest.mark.parametrize("pixels", [1, 50, 2 * CALL + 7])
@pytest.mark.usefixtures("way")
def test_areas(pixels, ignored, dtype):
    """Images of one piece and of several; labels that are no class, in what was decided and in the truth."""
    generator = torch.Generator().manual_seed(pixels)
    truth = torch.randint(CLASSES, (2, pixels), generator=generator)
    if ignored is not None:
        truth[:, ::3] = ignored
    labels = torch.randint(CLASSES + 2, (2, pixels), generator=generator).to(dtype)
    masks = torch.rand((2, CLASSES, pixels), generator=generator) < 0.4
    as_masks = np.stack([labels.numpy() == label for label in range(CLASSES)], 1)
    for decision, predicted in ((labels, as_masks), (masks, masks.numpy()), (masks.mT.contiguous().mT, masks.numpy())):
        found = counting.areas(decision, truth, CLASSES, ignored)
        np.testing.assert_array_equal(list(found), by_masks(predicted, truth.numpy(), ignored))


@pytest.mark.parametrize("strange", [-1, CLASSES, 2**40, -(2**62)])
def test_labels_that_were_not_looked_at_write_nowhere(strange):
    prediction, truth = torch.tensor([[0, strange, strange]]), torch.tensor([[0, 1, strange]])
    found = counting.areas_of_known(prediction, truth, CLASSES)
    assert [each.tolist() for each in found] == [[[1, 0, 0]], [[1, 0, 0]], [[1, 1, 0]]]
    masks = torch.ones(1, CLASSES, 3, dtype=torch.bool)
    assert counting.areas_of_known(masks, truth, CLASSES).intersection.tolist() == [[1, 1, 0]]
