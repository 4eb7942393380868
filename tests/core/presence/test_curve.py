"""The curve of presence: against an optimiser that knows nothing of it, and on made images."""

import numpy as np
import pytest
import torch

from rankseg_plugins.core.objectives import Dice
from rankseg_plugins.core.presence.curve import Curve, Evidence, constant, fit_curve


def drawn(images, classes, seed=0):
    """Evidence, and classes that are there as a curve says."""
    generator = torch.Generator().manual_seed(seed)
    maximum = torch.rand(images, classes, dtype=torch.float64, generator=generator) * 0.85 + 0.1
    n = (100 * torch.rand(images, classes, dtype=torch.float64, generator=generator)).round() + 1
    s = n * maximum * 0.7
    evidence = Evidence(maximum, s + 20 * maximum, n, s, torch.full((images, 1), 400.0, dtype=torch.float64))
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
    x = evidence.statistics(Dice()).numpy()
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


def test_the_floor_overlooks_hardly_any_class():
    maximum = torch.linspace(0.001, 1, 1000, dtype=torch.float64).view(250, 4)
    ones = torch.ones_like(maximum)
    evidence = Evidence(maximum, ones, ones, maximum, torch.full((250, 1), 9.0, dtype=torch.float64))
    curve = fit_curve(evidence, maximum > 0.06, Dice())
    assert 0.06 <= curve.floor.item() < 0.0605
    assert curve.below.item() <= 0.005
    assert fit_curve(evidence, torch.ones(250, 4, dtype=torch.bool), Dice()).floor.item() == 0
    assert fit_curve(evidence, maximum > 0.6, Dice()).floor.item() == pytest.approx(0.1)


def test_frequencies_are_a_curve():
    evidence, _, _ = drawn(3, 4)
    often = torch.tensor([0.0, 0.25, 0.5, 1.0])
    found = constant(often).presence(evidence, Dice())
    np.testing.assert_allclose(found.numpy(), often.double().expand(3, 4).numpy(), atol=1e-5)


def test_rows_keep_what_they_are_given():
    evidence, _, _ = drawn(3, 4)
    for kept, given in zip(Evidence.from_rows(evidence.rows()), evidence, strict=True):
        assert torch.equal(kept, given)


def test_expected_scores_are_those_given_that_the_class_is_there():
    """Dice of a mask of 4 pixels of probability 0.4 in 0.5 likely: 0.5 * 2 * 3.2 / (4 + 3.2 + 1)."""
    four = torch.tensor([[4.0]], dtype=torch.float64)
    evidence = Evidence(four / 10, 0.4 * four, four, 0.4 * four, 4 * four)
    expected = evidence.expected_scores(torch.tensor([[0.5]], dtype=torch.float64), Dice())
    assert expected.item() == pytest.approx(0.5 * 2 * 3.2 / 8.2)
