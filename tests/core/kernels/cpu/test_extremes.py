"""Argmax of every pixel, of values and of affine functions of them, against PyTorch's."""

import pytest
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.core.kernels.cpu.extremes import affine_argmax, argmax
from rankseg_plugins.core.kernels.cpu.ground.source import CALL


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 1, 5), (2, 3, 4, 5), (1, 150, 2, 700), (2, 2, CALL + 3)])
def test_the_first_of_equal_values(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-2, 3, shape, generator=generator).to(dtype)
    values[..., 0] = -torch.inf
    found = argmax(values)
    assert found.dtype == torch.int64
    assert torch.equal(found, values.argmax(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values_as_they_lie_in_memory(dtype):
    """Classes last, and those of every second pixel: what the kernel takes and what it does not."""
    probs = torch.rand((2, 6, 7, 4), generator=torch.Generator().manual_seed(0)).softmax(3).to(dtype).movedim(3, 1)
    for each in (probs, probs.contiguous(), probs[..., ::2]):
        assert torch.equal(RankSEG("acc")(each), each.argmax(1))
        logits = each.log()
        assert torch.equal(RankSEG("acc").predict_logits(logits), logits.argmax(1))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 1, 5), (2, 3, 4, 5), (1, 150, 700), (2, 2, CALL + 3)])
def test_affine_functions_to_the_last_digit(shape, dtype):
    """Products are rounded before offsets are subtracted, as PyTorch does; of equal ones the first class."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(shape, generator=generator).round(decimals=2).to(dtype)
    values[..., 0] = 0
    values[:, -1, ..., 1] = 1
    scale, offset = torch.rand(2, shape[1], dtype=torch.float64, generator=generator).round(decimals=1)
    around = (1, -1, *[1] * (len(shape) - 2))
    scores = values.float() * scale.float().view(around) - offset.float().view(around)
    expected = scores.argmax(1).where(values.amax(1) > 0, 0)
    assert torch.equal(affine_argmax(values, scale, offset), expected)
