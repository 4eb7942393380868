"""The survey finds the pixels that a look at every one of them finds, whatever the layout."""

import itertools

import pytest
import torch
from sweeps import sweep

from rankseg_plugins.core.tiled.survey import Survey
from rankseg_plugins.core.tiled.tiles import Tiles

GENERATOR = torch.Generator().manual_seed(0)
#: The last one is read in several groups of images, and its classes in several runs.
SHAPES = [(1, 1, 1), (2, 3, 5), (1, 4, 31), (3, 2, 32), (2, 3, 33), (1, 2, 2, 19, 23), (2, 3, 64, 48), (3, 9, 90_001)]
LAYOUTS = {
    "contiguous": lambda p: p,
    "crop": lambda p: torch.nn.functional.pad(p, (1, 2))[..., 1:-2],
    "pixels reversed in memory": lambda p: p.transpose(-1, -2).contiguous().transpose(-1, -2),
    "classes inside": lambda p: p.movedim(1, -1).contiguous().movedim(-1, 1),
    "some classes of more": lambda p: torch.cat([p, p], 1)[:, : p.shape[1]],
    "one image for all": lambda p: p[:1].expand(p.shape),
}


def smooth_noise(shape):
    """Probabilities of which neighbours are alike."""
    return torch.rand(shape, generator=GENERATOR).cumsum(-1).mul(0.1).sin().abs()


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
#: Every two of shape, layout and dtype, with a mask or without one.
CASES = [
    (SHAPES[i], layout, DTYPES[k], (i + j + k) % 2 == 1)
    for (i, (j, layout), k) in itertools.product(range(len(SHAPES)), enumerate(LAYOUTS), range(len(DTYPES)))
]


def is_quick(shape, layout, dtype, masked):
    """All small ones, and every layout of the large one, each with another dtype."""
    number = list(LAYOUTS).index(layout)
    return shape != SHAPES[-1] or DTYPES[(number + number // 4) % 4] == dtype


@sweep("shape, layout, dtype, masked", CASES, is_quick)
def test_counts_and_finds_as_a_full_look_does(shape, layout, dtype, masked):
    p = LAYOUTS[layout](smooth_noise(shape).to(dtype))
    valid = torch.rand(p[:, 0].shape, generator=GENERATOR) > 0.3 if masked else None
    tiles, values = Tiles(p, valid), p.flatten(2).double()
    if masked:
        values = values * valid.flatten(1).unsqueeze(1)
    active = torch.rand(p.shape[:2], generator=GENERATOR) > 0.4
    active[0, 0] = True
    ceiling = 0.3 + 0.4 * torch.rand(active.shape, generator=GENERATOR, dtype=torch.float64)
    for cut in (ceiling, torch.where(torch.rand(active.shape, generator=GENERATOR) > 0.5, ceiling, ceiling / 2)):
        survey = Survey(tiles, active, cut, ceiling)
        above = values > cut.unsqueeze(-1)
        assert torch.equal(survey.n[active], above.sum(-1)[active].double())
        assert torch.allclose(survey.s[active], (values * above).sum(-1)[active], rtol=1e-6)
        for share in (0.0, 0.5, 0.99, 1.0):
            floor = ceiling * share
            inside = (values > floor.unsqueeze(-1)) & (values <= ceiling.unsqueeze(-1)) & active.unsqueeze(-1)
            number = int(inside.sum())
            found, rows = survey.between(floor, ceiling, number)
            assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            expected = torch.stack([inside.flatten(0, 1).nonzero()[:, 0].double(), values[inside]], 1)
            got = torch.stack([rows.double(), found.double()], 1)
            assert torch.equal(sort_rows(got), sort_rows(expected))
            if number:
                assert survey.between(floor, ceiling, number - 1) is None


def sort_rows(table):
    table = table[table[:, 1].argsort(stable=True)]
    return table[table[:, 0].argsort(stable=True)]


def test_values_beyond_the_ends_are_clamped():
    p = torch.tensor([[[1.00001, -0.00001, 0.3] * 40]])
    tiles = Tiles(p)
    tiles.clamp = True
    half, every = torch.full((1, 1), 0.5, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    survey = Survey(tiles, every, half, half)
    assert (survey.n.item(), survey.s.item()) == (40, 40)
    assert survey.between(torch.zeros_like(half), half, 120)[0].tolist() == pytest.approx([0.3] * 40)


def test_a_lower_ceiling_may_follow():
    p = smooth_noise((1, 2, 5000))
    every, ceiling = torch.ones(1, 2, dtype=torch.bool), torch.full((1, 2), 0.6, dtype=torch.float64)
    survey = Survey(Tiles(p), every, ceiling, ceiling)
    found, _ = survey.between(ceiling / 2, ceiling - 0.1, p.numel())
    assert torch.equal(found.sort().values, p[(p.double() > 0.3) & (p.double() <= 0.5)].sort().values)
