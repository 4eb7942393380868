"""BA and TRNA against the reference package, and the distribution under them against exact counting."""

import itertools

import exact_oracles as oracle
import numba
import numpy as np
import pytest
import torch
from sweeps import sweep

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cpu.solvers import shares
from rankseg_plugins.core.kernels.cpu.steps import CpuSteps

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


def moments_of(p):
    """Mean, variance and third central moment of the number of foreground pixels, (3, 1)."""
    return np.array([[p.sum()], [(p * (1 - p)).sum()], [(p * (1 - p) * (1 - 2 * p)).sum()]])


def compiled(function):
    """What other kernels call, for Python."""

    @numba.njit
    def call(*arguments):
        return function(*arguments)

    return call


fill_pmf, add_share, fill_kernel = map(compiled, (shares.fill_pmf, shares.add_share, shares.fill_kernel))


def interval_of(moments, eps, pixels):
    first, last = np.empty((2, 1))
    shares.find_intervals(0, 1, moments, eps, pixels, first, last)
    return int(first[0]), int(last[0])


@pytest.mark.parametrize("kind", [shares.OWN, shares.INTERPOLATED])
@pytest.mark.parametrize("power", [1, 3])
def test_shares_of_pixels_and_masks(kind, power):
    """The distribution without a pixel, worked out for one pixel after the other."""
    p = np.random.default_rng(power).random(150) ** power
    moments = moments_of(p)
    first, last = interval_of(moments, 1e-4, 150.0)
    width = last - first + 1
    expected = []
    for value in p:
        pmf = np.empty(width)
        fill_pmf(*(moments - moments_of(np.array([value])))[:, 0], first, pmf)
        expected.append(value * pmf)
    expected = np.array(expected)
    empty = np.zeros(1)
    rows = shares.Ranked(
        0.0, np.array([kind]), moments, np.array([float(first)]), np.array([width]),
        np.zeros((1, max(width, shares.NODES))), empty, empty.copy(), empty, np.zeros((4, 1)),
    )  # fmt: skip
    kernel = np.eye(width) if kind == shares.OWN else np.empty((shares.NODES, width))
    if kind == shares.INTERPOLATED:
        assert fill_kernel(rows, 0, kernel) == shares.NODES
    for value, pmf in zip(p, expected, strict=True):
        rows.shares[:] = 0
        add_share(rows, 0, value, 2, np.empty(width + shares.NODES))
        np.testing.assert_allclose(rows.shares[0, : len(kernel)] @ kernel, 2 * pmf, rtol=0, atol=2e-9)
    if kind == shares.INTERPOLATED:
        values = CpuSteps(Pixels(torch.from_numpy(p)[None, None])).values()
        bound = torch.full((1, 1), 0.6, dtype=torch.float64)
        sums = values.chebyshev_sums(torch.ones(1, 1, dtype=torch.bool), bound, shares.NODES)
        of_mask = shares.of_sums(sums[0].numpy()) @ kernel
        np.testing.assert_allclose(of_mask[0], expected[p > 0.6].sum(0), rtol=0, atol=1e-8)


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
    moments, got = moments_of(p), np.empty(401)
    fill_pmf(*moments[:, 0], 0.0, got)
    expected = oracle.pmf(p)
    assert np.abs(got - expected).max() < 2e-4
    low, high = interval_of(moments, 1e-3, 400.0)
    assert 1 - 1.1e-3 < expected[low : high + 1].sum() < 1
    assert expected[low + 3 : high - 2].sum() < 1 - 1e-3
