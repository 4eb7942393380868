"""Probabilities in bins, against a loop over values; in numba, and in whole tensors where that cannot be had."""

import numpy as np
import pytest
import torch

from rankseg_plugins.calibration import reliability

BINS = 5


def by_loop(probs, masks, kept):
    """The three fields of a calibration."""
    found = np.zeros((3, len(probs), BINS))
    for row, column in np.ndindex(*probs.shape):
        if kept[row, column]:
            at = min(int(float(probs[row, column]) * BINS), BINS - 1)
            found[:, row, at] += 1, float(probs[row, column]), masks[row, column]
    return found


@pytest.fixture(params=["kernel", "tensors"])
def way(request, monkeypatch):
    if request.param == "tensors":
        monkeypatch.setattr(reliability, "has_numba", lambda: False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("way")
def test_bins(dtype):
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand((50, 3), generator=generator, dtype=dtype).T
    probs[:, :6] = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], dtype=dtype)
    masks, kept = torch.rand((2, 3, 50), generator=generator) < 0.6
    for counts in (kept, kept[:1]):
        found = reliability.calibration(probs, masks, counts if len(counts) > 1 else counts[0], BINS)
        expected = by_loop(probs, masks, counts.expand(3, -1))
        np.testing.assert_array_equal([found.count, found.confidence, found.correct], expected)


@pytest.mark.usefixtures("way")
def test_labels():
    """Pixels without any probability are left out, and the largest one has a row of its own."""
    probs = (3 * torch.randn((3, 60), generator=torch.Generator().manual_seed(0))).softmax(0)
    probs[:, :4] = 0
    labels = torch.arange(60) % 3
    kept = torch.arange(60) % 7 > 0
    masks, held = torch.stack([labels == label for label in range(3)]), (kept & (probs.sum(0) > 0)).expand(3, -1)
    found = reliability.calibration(probs, labels.where(kept, 255), kept, BINS)
    expected = np.concatenate(
        [by_loop(probs, masks, held), by_loop(probs.amax(0)[None], (probs.argmax(0) == labels)[None], held)], 1
    )
    np.testing.assert_array_equal([found.count, found.confidence, found.correct], expected)
