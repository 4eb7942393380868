"""BA and TRNA against the reference package, and the distribution under them against exact counting."""

import exact_oracles as oracle
import numpy as np
import pytest
import torch

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.core.poisson_binomial import RefinedNormal

reference = pytest.importorskip("rankseg.functional").rankseg
SOLVERS = ["BA", "TRNA", "BA+TRNA"]


def volumes(decide, probs, **options):
    return decide(probs, metric="dice", output_mode="multilabel", **options).flatten(2).sum(-1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("smooth", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("power", [0.2, 1, 5, 20])
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


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("smooth", [1e-6, 1e-3, 0.01, 0.3])
@pytest.mark.parametrize("size", [2, 5, 30])
def test_small_smoothing(solver, smooth, size):
    """The empty mask wins where the object may well be absent."""
    generator = torch.Generator().manual_seed(size)
    probs = torch.rand(40, 1, size, generator=generator, dtype=torch.float64) * 2 / size
    options = {"solver": solver, "smooth": smooth, "pruning_prob": 0.0}
    ours, theirs = (volumes(decide, probs, **options) for decide in (rankseg, reference))
    assert (ours - theirs).abs().max() <= 1
    assert (ours == 0).any()


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
