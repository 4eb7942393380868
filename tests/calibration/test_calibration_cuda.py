"""Calibration on a GPU, also where PyTorch is told to refuse what is not deterministic."""

import numpy as np
import pytest
import torch

from rankseg_plugins.comparison.measuring import calibrate

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_algorithms(deterministic):
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(3, 20, 20, generator=generator).softmax(0)
    labels = torch.randint(0, 3, (20, 20), generator=generator)
    found, expected = calibrate(probs.cuda(), labels.cuda()), calibrate(probs, labels)
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.confidence, expected.confidence)
    np.testing.assert_array_equal(found.correct, expected.correct)
