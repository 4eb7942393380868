"""The curve of presence: against an optimiser that knows nothing of it, and on made images."""

import numpy as np
import pytest
import torch

from rankseg_plugins.core.objectives import Dice
from rankseg_plugins.core.presence.curve import (
    Curve,
    Evidence,
    constant,
    fit_curve,
    fit_expectation,
    taken_at_their_word,
)


def drawn(images, classes, seed=0):
    """Evidence, and classes that are there as a curve says."""
    generator = torch.Generator().manual_seed(seed)
    maximum = torch.rand(images, classes, dtype=torch.float64, generator=generator) * 0.85 + 0.1
    n = (100 * torch.rand(images, classes, dtype=torch.float64, generator=generator)).round() + 1
    s = n * maximum * 0.7
    evidence = Evidence(
        maximum, s + 20 * maximum, n, s, maximum * torch.nan, torch.full((images, 1), 400.0, dtype=torch.float64)
    )
    truth = Curve(
        torch.tensor([0.8, 0.3, 0.6], dtype=torch.float64),
        torch.linspace(-1, 2, classes, dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
    )
    q = truth.presence(evidence, Dice())
    return evidence, torch.rand(images, classes, generator=generator) < q, q


def test_finds_what_was_drawn():
    evidence, there, q = drawn(4000, 4)
    found = fit_curve(evidence, there, Dice()).presence(evidence, Dice())
    assert (found - q).abs().mean() < 0.02


def test_newton_ends_where_scipy_does():
    """The same penalised likelihood, minimised by a quasi-Newton method without our derivatives."""
    optimize = pytest.importorskip("scipy.optimize")
    evidence, there, _ = drawn(60, 5, seed=1)
    curve = fit_curve(evidence, there, Dice())
    x = np.stack(evidence.statistics(Dice()), -1)
    used = (evidence.maximum > curve.floor).numpy()
    mean, spread = x[used].mean(0), x[used].std(0)
    standard, y = (x - mean) / spread, there.numpy()

    def loss(found):
        z = standard @ found[:3] + found[3] + found[4:]
        each = np.logaddexp(0, z) - y * z
        return each[used].sum() + (0.1 * (found**2).sum() - 0.099 * found[3] ** 2) / 2

    best = optimize.minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-9}).x
    z = standard @ best[:3] + best[3] + best[4:]
    expected = np.where(used, 1 / (1 + np.exp(-z)), curve.below.item())
    np.testing.assert_allclose(curve.presence(evidence, Dice()).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_classes_that_are_never_or_always_there(share):
    evidence, _, _ = drawn(30, 3)
    q = fit_curve(evidence, torch.full((30, 3), bool(share)), Dice()).presence(evidence, Dice())
    assert q.isfinite().all()
    assert (q - share).abs().max() < 0.05


def test_a_class_seldom_seen_falls_back_to_the_common_curve():
    """Looked for in vain in 3 images, it is not held for impossible; after 400 it is."""
    evidence, there, _ = drawn(400, 2)
    seldom = evidence.maximum.clone()
    seldom[3:, 1] = 0.0
    evidence = evidence._replace(maximum=seldom)
    there = there.clone()
    there[:, 1] = False
    q = fit_curve(evidence, there, Dice()).presence(evidence, Dice())
    assert q[:3, 1].mean() > 0.03
    often = evidence._replace(maximum=torch.where(seldom > 0, seldom, evidence.maximum[:, :1]))
    assert fit_curve(often, there, Dice()).presence(evidence, Dice())[:3, 1].max() < 0.01


def test_the_floor_hides_no_class_that_was_seen():
    maximum = torch.linspace(0.001, 1, 1000, dtype=torch.float64).view(250, 4).float().double()
    ones = torch.ones_like(maximum)
    evidence = Evidence(maximum, ones, ones, maximum, ones, torch.full((250, 1), 9.0, dtype=torch.float64))
    curve = fit_curve(evidence, maximum > 0.06, Dice())
    lowest = maximum[maximum > 0.06].min().item()
    assert lowest * (1 - 1e-6) < curve.floor.item() < lowest
    assert 0 < curve.below.item() <= 0.005
    assert fit_curve(evidence, torch.ones(250, 4, dtype=torch.bool), Dice()).floor.item() < 0.001
    assert fit_curve(evidence, maximum > 0.6, Dice()).floor.item() == pytest.approx(0.1)


def test_frequencies_are_a_curve():
    evidence, _, _ = drawn(3, 4)
    often = torch.tensor([0.0, 0.25, 0.5, 1.0])
    found = constant(often).presence(evidence, Dice())
    np.testing.assert_allclose(found.numpy(), often.double().expand(3, 4).numpy(), atol=1e-5)


@pytest.mark.parametrize("offset", [-1e9, 1e9])
def test_a_curve_that_is_sure_is_finite(offset):
    evidence, _, _ = drawn(5, 2)
    nothing = torch.zeros(1, dtype=torch.float64)
    q = Curve(nothing.expand(3), torch.full((2,), offset).double(), nothing, nothing).presence(evidence, Dice())
    np.testing.assert_allclose(q.numpy(), float(offset > 0), atol=1e-300)


def test_rows_keep_what_they_are_given():
    evidence, _, _ = drawn(3, 4)
    evidence = evidence._replace(score=evidence.maximum / 2)
    for kept, given in zip(Evidence.from_rows(evidence.rows()), evidence, strict=True):
        assert torch.equal(kept, given)


def test_expected_scores_are_those_given_that_the_class_is_there():
    """Dice of a mask of 4 pixels of probability 0.4 in 0.5 likely: 0.5 * 2 * 3.2 / (4 + 3.2 + 1)."""
    four = torch.tensor([[4.0]], dtype=torch.float64)
    evidence = Evidence(four / 10, 0.4 * four, four, 0.4 * four, four * torch.nan, 4 * four)
    expected = taken_at_their_word(1).scores(evidence, torch.tensor([[0.5]], dtype=torch.float64), Dice())
    assert expected.item() == pytest.approx(0.5 * 2 * 3.2 / 8.2)


def scored(images, intercept, slope, noise=0.0, share=0.6):
    """Masks that score what a line says of their promise, where their class is there."""
    evidence, _, q = drawn(images, len(intercept))
    generator = torch.Generator().manual_seed(4)
    promised = evidence.promised(q, Dice())
    score = torch.tensor(intercept, dtype=torch.float64) + slope * promised
    score = score + noise * torch.randn(score.shape, dtype=torch.float64, generator=generator)
    missing = torch.rand(score.shape, generator=generator) > share
    return evidence._replace(score=score.masked_fill(missing, torch.nan)), q


def test_the_line_of_what_masks_score_is_found():
    evidence, q = scored(4000, [-0.2, 0.0, 0.1], 0.7, noise=0.05)
    found = fit_expectation(evidence, q, Dice())
    assert found.slope.item() == pytest.approx(0.7, abs=0.02)
    np.testing.assert_allclose(found.intercept.numpy(), [-0.2, 0.0, 0.1], atol=0.02)


def test_probabilities_that_can_be_trusted_are():
    evidence, q = scored(200, [0.0, 0.0], 1.0)
    expected = fit_expectation(evidence, q, Dice()).scores(evidence, q, Dice())
    trusted = taken_at_their_word(2).scores(evidence, q, Dice())
    np.testing.assert_allclose(expected.numpy(), trusted.numpy(), atol=1e-3)


def test_without_scores_probabilities_are_taken_at_their_word():
    evidence, _, q = drawn(30, 3)
    found = fit_expectation(evidence, q, Dice())
    assert (found.slope.item(), found.intercept.tolist()) == (1.0, [0.0, 0.0, 0.0])


def test_a_class_seldom_scored_counts_as_the_average_and_no_slope_is_steeper_than_the_promise():
    evidence, q = scored(300, [-0.4, -0.4, 0.3], 3.0, noise=0.02)
    seldom = evidence.score.clone()
    seldom[1:, 2] = torch.nan
    found = fit_expectation(evidence._replace(score=seldom), q, Dice())
    assert found.slope.item() == 1
    assert found.intercept[2] < found.intercept[:2].mean() + 0.3


def test_a_class_without_a_mask_scores_nothing():
    evidence, q = scored(50, [0.5, 0.5], 0.5)
    empty = evidence._replace(n=evidence.n * 0, s=evidence.s * 0)
    assert (fit_expectation(evidence, q, Dice()).scores(empty, q, Dice()) == 0).all()
