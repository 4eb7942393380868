"""BA and TRNA against the reference package, and the distribution under them against exact counting."""

import itertools

import exact_oracles as oracle
import numpy as np
import pytest
import torch
from sweeps import sweep

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.core.solvers.poisson_binomial import RefinedNormal
from rankseg_plugins.core.solvers.shares import Counts, InterpolatedShares, OwnShares
from rankseg_plugins.core.tiled.passes import count_above
from rankseg_plugins.core.tiled.pieces import Bound, Group
from rankseg_plugins.core.tiled.tiles import Tiles

reference = pytest.importorskip("rankseg.functional").rankseg
SOLVERS = ["BA", "TRNA", "BA+TRNA"]


def volumes(decide, probs, **options):
    return decide(probs, metric="dice", output_mode="multilabel", **options).flatten(2).sum(-1)


def every_two(names, *values):
    """Quick are a third of the cases, in which all values of every two of the names meet."""
    return sweep(
        names,
        itertools.product(*values),
        lambda *case: sum(each.index(value) for each, value in zip(values, case, strict=True)) % 3 == 0,
    )


@every_two("solver, smooth, power", SOLVERS, [0.0, 1.0, 20.0], [0.2, 1, 5, 20])
def test_random(solver, smooth, power):
    generator = torch.Generator().manual_seed(int(power * 10))
    for size in (4, 9, 20):
        probs = torch.rand(2, 2, size, size, generator=generator, dtype=torch.float64) ** power
        options = {"solver": solver, "smooth": smooth, "pruning_prob": 0.1}
        difference = volumes(rankseg, probs, **options) - volumes(reference, probs, **options)
        assert difference.abs().max() <= 1


@pytest.mark.parametrize(("solver", "step"), [("BA", 2), ("TRNA", 5), ("BA+TRNA", 2)])
def test_real(real_probs, solver, step):
    probs = real_probs[:1, :, ::step, ::step].double()
    difference = volumes(rankseg, probs, solver=solver) - volumes(reference, probs, solver=solver)
    assert difference.abs().max() <= 1


@every_two("solver, smooth, size", SOLVERS, [1e-6, 1e-3, 0.01, 0.3], [2, 5, 30])
def test_small_smoothing(solver, smooth, size):
    """The empty mask wins where the object may well be absent."""
    generator = torch.Generator().manual_seed(size)
    probs = torch.rand(40, 1, size, generator=generator, dtype=torch.float64) * 2 / size
    options = {"solver": solver, "smooth": smooth, "pruning_prob": 0.0}
    ours, theirs = (volumes(decide, probs, **options) for decide in (rankseg, reference))
    assert (ours - theirs).abs().max() <= 1
    assert (ours == 0).any()


def mixed_classes(pixels=300):
    """Classes that need few and many ranked pixels: unsure, nearly certain, certain, empty, equal, rare, in steps."""
    generator = torch.Generator().manual_seed(3)
    p = torch.rand(7, pixels, generator=generator, dtype=torch.float64)
    certain = (p[2] > 0.8).double()
    hazy, rare, steps = p[3] * 1e-9, p[5] / pixels, (p[6] * 4).round() / 4
    return torch.stack([p[0] ** 2, certain * (1 - p[1] * 1e-3), certain, hazy, torch.full_like(p[0], 0.3), rare, steps])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("smooth", [0.0, 1e-3, 1.0])
def test_several_classes_at_once(solver, smooth):
    """They share matrices; the decision is that on each of them alone, and the reference's."""
    classes = mixed_classes()
    number = torch.randperm(35, generator=torch.Generator().manual_seed(4)) % 7
    options = {"solver": solver, "smooth": smooth, "pruning_prob": 0.0}
    together = rankseg(classes[number].view(5, 7, -1), output_mode="multilabel", **options).view(35, -1)
    alone = torch.cat([rankseg(p.view(1, 1, -1), output_mode="multilabel", **options)[0] for p in classes])
    assert torch.equal(together, alone[number])
    assert (alone.sum(-1) - volumes(reference, classes[None], **options)).abs().max() <= 1


@pytest.mark.parametrize("solver", ["BA", "TRNA"])
@pytest.mark.parametrize("m", [2, 7, 40])
def test_equal_scores_give_the_smaller_mask(solver, m):
    """m pixels of (m + 1) t, then 81 of m t: all volumes from m on score the same, but for rounding."""
    t = 2.0**-24
    p = torch.cat([torch.full((m,), (m + 1) * t), torch.full((81,), m * t), torch.zeros(1500 - m - 81)])
    others = torch.rand(6, 1500, generator=torch.Generator().manual_seed(m)) * 1e-6
    decide = RankSEG(output_mode="multilabel", solver=solver, pruning_prob=0.0)
    assert decide(p.view(1, 1, -1)).sum() == m
    assert decide(torch.cat([p.unsqueeze(0), others]).unsqueeze(0))[0, 0].sum() == m


@pytest.mark.parametrize("kind", [OwnShares, InterpolatedShares])
def test_shares_of_pixels_and_masks(kind):
    """The distribution without a pixel, worked out for one pixel after the other."""
    p = torch.rand(2, 3, 150, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    wanted = torch.tensor([[True, False, True], [False, True, True]])
    rows = p[wanted]
    moments = rows.sum(-1), (rows * (1 - rows)).sum(-1), (rows * (1 - rows) * (1 - 2 * rows)).sum(-1)
    normal = RefinedNormal(*moments)
    first, last = normal.interval(1e-4, 150)
    shares = kind(Counts.between(normal, first, last), chunk=100)
    mask = Bound(torch.full((2, 3), 0.6, dtype=torch.float64), *count_above(Tiles(p), wanted, torch.full((2, 3), 0.6)))
    of_each = shares.of_each(rows) @ shares.kernel
    group = Group(Tiles(p), wanted.flatten().nonzero().squeeze(1))
    of_mask = (shares.of_mask(group, mask).unsqueeze(1) @ shares.kernel).squeeze(1)
    for row, values in enumerate(rows):
        support = torch.arange(first[row], last[row] + 1, dtype=torch.float64)
        expected = []
        for value in values:
            spread = value * (1 - value)
            without = [
                m[row] - part for m, part in zip(moments, (value, spread, spread * (1 - 2 * value)), strict=True)
            ]
            pmf = RefinedNormal(*without).pmf(support)
            expected.append(value * pmf / pmf.sum())
        expected = torch.stack(expected)
        torch.testing.assert_close(of_each[row, :, : len(support)], expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(of_mask[row, : len(support)], expected[values > 0.6].sum(0), rtol=0, atol=1e-8)


def test_eps():
    probs = torch.rand(1, 1, 40, 40, dtype=torch.float64) ** 3
    for eps in (0.5, 1e-2, 1e-8):
        ours, theirs = (volumes(decide, probs, solver="BA", eps=eps) for decide in (rankseg, reference))
        assert (ours - theirs).abs().max() <= 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_close_to_the_exact_optimum(solver):
    generator = torch.Generator().manual_seed(5)
    probs = torch.rand(1, 6, 30, 30, generator=generator, dtype=torch.float64) ** 4
    exact = RankSEG(output_mode="multilabel", solver="exact")
    loss = exact.expected_score(probs, exact(probs)) - exact.expected_score(
        probs, rankseg(probs, output_mode="multilabel", solver=solver)
    )
    assert loss.min() >= -1e-12
    assert loss.max() < 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_single_channel_and_certain_pixels(solver):
    probs = torch.zeros(2, 1, 5, 5)
    probs[0, :, :2] = 1.0
    masks = rankseg(probs, output_mode="multilabel", solver=solver)
    assert torch.equal(masks, probs == 1)


def test_multiclass_is_refused():
    with pytest.raises(ValueError, match="solver='BA' does not serve metric='dice' with output_mode='multiclass'"):
        RankSEG(solver="BA")


def test_refined_normal():
    p = np.random.default_rng(0).random(400)
    moments = p.sum(), (p * (1 - p)).sum(), (p * (1 - p) * (1 - 2 * p)).sum()
    count = RefinedNormal(*(torch.tensor(moment) for moment in moments))
    expected = oracle.pmf(p)
    got = count.pmf(torch.arange(401.0, dtype=torch.float64)).numpy()
    assert np.abs(got - expected).max() < 2e-4
    low, high = (int(bound) for bound in count.interval(1e-3, 400))
    assert 1 - 1.1e-3 < expected[low : high + 1].sum() < 1
    assert expected[low + 3 : high - 2].sum() < 1 - 1e-3
