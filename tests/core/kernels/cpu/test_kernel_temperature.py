"""Probabilities at a temperature, by the kernel: in numbers of one precision as good as the formula in double."""

import numpy as np
import pytest
import torch
from numba import njit

from rankseg_plugins.core.kernels.cpu.ground.source import CALL
from rankseg_plugins.core.kernels.cpu.temperature import logarithm32, rescaled


@njit
def logarithms(numbers, found):
    for i in range(len(numbers)):
        found[i] = logarithm32(numbers[i])


def test_logarithms_to_a_unit_in_the_last_place():
    """Down to the smallest numbers, and close to 1 from both sides."""
    spread = np.concatenate([2.0 ** np.linspace(-149, 127, 100_001), 1 - np.linspace(0, 0.5, 20_001), [1 + 1e-7, 3]])
    numbers = spread.astype(np.float32)
    found = np.empty_like(numbers)
    logarithms(numbers, found)
    exact = np.log(numbers.astype(np.float64))
    assert (np.abs(found - exact) <= np.spacing(np.abs(exact).astype(np.float32))).all()
    special = np.array([0, np.inf], np.float32)
    logarithms(special, special)
    np.testing.assert_array_equal(special, [-np.inf, np.inf])


def by_formula(probs, temperature, competes):
    p, t = probs.double(), temperature.double().view(-1, 1)
    if not competes:
        return (p.logit() / t).sigmoid()
    total = p.sum(1, keepdim=True)
    return ((p.log() / t).softmax(1) * total).where(total > 0, 0.0).clamp(max=1)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("competes", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 3, 1000), (1, 150, CALL // 50), (2, 2, CALL)])
@pytest.mark.parametrize("number", [0.5, 1.7, 30.0])
def test_against_the_formula(shape, number, dtype, competes):
    generator = torch.Generator().manual_seed(shape[1])
    probs = (
        (5 * torch.randn(shape, generator=generator)).softmax(1) if competes else torch.rand(shape, generator=generator)
    )
    probs[..., 0], probs[:, 0, 1], probs[:, 0, 2] = 0, 1e-40, 1
    probs = probs.to(dtype)
    temperature = torch.linspace(number, 2 * number, shape[1] if shape[1] == 3 else 1)
    found, valid = rescaled(probs, temperature, competes)
    tolerance = {"rtol": 2e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-15}
    torch.testing.assert_close(found.double(), by_formula(probs, temperature, competes), **tolerance)
    assert valid


@pytest.mark.parametrize("layout", ["classes last", "every second"])
def test_values_as_they_lie_in_memory(layout):
    probs = torch.rand(2, 8, 7, 4, generator=torch.Generator().manual_seed(0))
    probs = probs.movedim(3, 1) if layout == "classes last" else probs[:, ::2]
    for competes in (True, False):
        found = rescaled(probs, torch.tensor([2.0]), competes)[0]
        assert torch.equal(found, rescaled(probs.contiguous(), torch.tensor([2.0]), competes)[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, -0.01, 1.01])
def test_what_is_no_probability_is_said(value):
    probs = torch.rand(1, 3, CALL, generator=torch.Generator().manual_seed(0))
    probs[0, 2, -1] = value
    for competes in (True, False):
        assert not rescaled(probs, torch.tensor([2.0]), competes)[1]
    probs[0, 2, -1] = 1.00005
    found, valid = rescaled(probs, torch.tensor([2.0]), False)
    assert valid
    assert found[0, 2, -1] == 1
