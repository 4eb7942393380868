"""What the solvers look at, in kernels and in whole-tensor operations, against plain sums in float64."""

import itertools

import numpy as np
import pytest
import torch
from patterns import PATTERNS
from sweeps import sweep

from rankseg_plugins.core.dense import GraphSteps
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cpu.ground import source as sources
from rankseg_plugins.core.kernels.cpu.steps import CpuSteps

GENERATOR = torch.Generator().manual_seed(0)
SHAPES = [(1, 1, 1), (2, 3, 5), (1, 4, 31), (3, 2, 33), (1, 2, 2, 19, 23), (2, 3, 64, 48), (3, 5, 9001)]
LAYOUTS = {
    "contiguous": lambda p: p,
    "crop": lambda p: torch.nn.functional.pad(p, (1, 2))[..., 1:-2],
    "pixels reversed in memory": lambda p: p.transpose(-1, -2).contiguous().transpose(-1, -2),
    "classes inside": lambda p: p.movedim(1, -1).contiguous().movedim(-1, 1),
    "some classes of more": lambda p: torch.cat([p, p], 1)[:, : p.shape[1]],
    "one image for all": lambda p: p[:1].expand(p.shape),
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
STEPS = [CpuSteps, GraphSteps]


def each_once(steps, shape, layout, dtype):
    return (SHAPES.index(shape) + list(LAYOUTS).index(layout) + DTYPES.index(dtype) + STEPS.index(steps)) % 4 == 0


def bounds(shape):
    low = 0.7 * torch.rand(shape, generator=GENERATOR, dtype=torch.float64)
    return low, low + 0.4 * torch.rand(shape, generator=GENERATOR, dtype=torch.float64)


def check(values, p, active):
    """Everything that can be asked, against p (B, C, d) in float64."""
    low, high = bounds(active.shape)
    inside = (p > low.unsqueeze(-1)) & (p <= high.unsqueeze(-1))
    n, s = values.count_above(active, low)
    above = p > low.unsqueeze(-1)
    assert torch.equal(n[active], above.sum(-1)[active].double())
    torch.testing.assert_close(s[active], (p * above).sum(-1)[active], rtol=1e-6, atol=0)
    found, number = values.between(active, low, high)
    assert torch.equal(number[active], inside.sum(-1)[active])
    assert not number[~active].any()
    ends = number.flatten().cumsum(0)[:-1].numpy()
    wanted = (inside & active.unsqueeze(-1)).flatten(0, 1)
    for got, row, those in zip(np.split(found, ends), p.flatten(0, 1), wanted, strict=True):
        assert sorted(got.tolist()) == sorted(row[those].tolist())
    orders = torch.randint(1, 6, active.shape, generator=GENERATOR)
    sums = values.power_sums(active, low, high, orders)
    chebyshev = values.chebyshev_sums(active, low, 9)
    for image, label in active.nonzero().tolist():
        row, order = p[image, label], int(orders[image, label])
        powers = row[inside[image, label]].unsqueeze(1) ** torch.arange(1, order + 1)
        torch.testing.assert_close(sums[image, label, :order], powers.sum(0), rtol=1e-12, atol=1e-300)
        q = row[above[image, label]].numpy()
        expected = (np.polynomial.chebyshev.chebvander(2 * q - 1, 8) * q[:, None]).sum(0)
        np.testing.assert_allclose(chebyshev[image, label].numpy(), expected, rtol=0, atol=1e-11 * (1 + len(q)))


@sweep("steps, shape, layout, dtype", itertools.product(STEPS, SHAPES, LAYOUTS, DTYPES), each_once)
def test_every_layout(steps, shape, layout, dtype, monkeypatch):
    for name, value in {"_SMALL": 40, "_WIDTH": 32, "_TASK": 500}.items():
        monkeypatch.setattr(sources, name, value)
    p = LAYOUTS[layout](torch.rand(shape, generator=GENERATOR).cumsum(-1).sin().abs().to(dtype))
    active = torch.rand(shape[:2], generator=GENERATOR) > 0.4
    active[0, 0] = True
    for valid in (None, torch.rand(shape[2:], generator=GENERATOR) > 0.3, torch.rand(p[:, 0].shape) > 0.3):
        expected = p.double() if valid is None else p.double() * valid.expand(p[:, 0].shape).unsqueeze(1)
        values = steps(Pixels(p, valid)).values()
        assert values.shape == expected.flatten(2).shape
        assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        check(values, expected.flatten(2), active)
        label, mask = shape[1] - 1, torch.rand(expected[:, 0].flatten(1).shape, generator=GENERATOR) > 0.5
        mask &= torch.ones_like(mask) if valid is None else valid.expand(p[:, 0].shape).flatten(1)
        part = (expected[:, label].flatten(1) * mask).unsqueeze(1)
        check(values.within(label, mask), part, active[:, label:])


@pytest.mark.parametrize("steps", STEPS)
def test_values_beyond_the_ends_are_clamped(steps):
    p = torch.tensor([[[1.00001, -0.00001, 0.3] * 40]])
    check(steps(Pixels(p)).values(), p.clamp(0, 1).double(), torch.ones(1, 1, dtype=torch.bool))


def test_threads_change_nothing():
    p = torch.rand(2, 3, 700_000, generator=GENERATOR)
    every, (low, high) = torch.ones(2, 3, dtype=torch.bool), bounds((2, 3))
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        values = CpuSteps(Pixels(p)).values()
        picked, number = values.between(every, low, high)
        sums = values.power_sums(every, low, high, torch.full((2, 3), 4))
        found.append((*values.count_above(every, low), torch.from_numpy(picked), number, sums))
    torch.set_num_threads(2)
    for others in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], others, strict=True))


@sweep(
    "name", PATTERNS, lambda name: name in ("one among a thousand, 2^-24", "one among sixty, 2e-7", "third", "skewed")
)
def test_sums_of_ten_million_pixels(name):
    probs = PATTERNS[name]()
    for threshold in (0.0, 0.25):
        bound = torch.tensor([[threshold]], dtype=torch.float64)
        n, s = CpuSteps(Pixels(probs)).values().count_above(torch.tensor([[True]]), bound)
        exact = probs[probs > threshold].sum(dtype=torch.float64).item()
        assert n.item() == (probs > threshold).sum().item()
        assert abs(s.item() - exact) <= 1e-12 * exact
