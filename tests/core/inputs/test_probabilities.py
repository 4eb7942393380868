"""Logits to probabilities, against float64, and the ends of what they span."""

import math

import pytest
import torch

from rankseg_plugins.core.inputs.probabilities import PIECE, extent, to_probabilities


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "normalize"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_half_precision_is_left_before_the_activation(activation, dtype):
    values = (9 * torch.rand(2, 7, 20, 30, generator=torch.Generator().manual_seed(0))).to(dtype)
    probs, exact = to_probabilities(values, activation), to_probabilities(values.double(), activation)
    assert probs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(probs.double(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_pixel_loses_its_class_to_rounding(dtype):
    """In half precision sure classes tie at 1, and argmax takes the first of them."""
    logits = torch.tensor([[[12.0, 9.0], [13.0, 9.5], [-3.0, 20.0]]]).to(dtype)
    assert to_probabilities(logits).argmax(1).tolist() == logits.argmax(1).tolist()
    logits = (2 * torch.randn(1, 21, 64, 64, generator=torch.Generator().manual_seed(1))).to(dtype)
    best = to_probabilities(logits).amax(1) == to_probabilities(logits).gather(1, logits.argmax(1, keepdim=True))[:, 0]
    assert best.all()


def test_what_is_probabilities_already_stays():
    probs = torch.rand(1, 2, 3).half()
    assert to_probabilities(probs, "identity") is probs


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64]
)
@pytest.mark.parametrize("size", [1, 255, 257, PIECE, 3 * PIECE + 7])
def test_smallest_and_largest(size, dtype):
    values = torch.randint(20, 30, (size,), generator=torch.Generator().manual_seed(size)).to(dtype)
    for place in (0, size // 2, size - 1):
        for number in (10, 60):
            values[place] = number
            assert extent(values) == (values.min().item(), values.max().item())


@pytest.mark.parametrize("place", [0, 300, PIECE, 2 * PIECE - 1])
def test_a_single_nan_is_found(place):
    values = torch.rand(2, PIECE, generator=torch.Generator().manual_seed(0))
    values.view(-1)[place] = torch.nan
    assert all(math.isnan(each) for each in extent(values))
