"""Risk-coverage curves against loops over every order of the images."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch

from rankseg_plugins.scores.risk_coverage import risk_coverage

NAN = float("nan")


def curve(order, risks):
    """Mean risk of the first images of an order, for every number of them."""
    return [sum(risks[i] for i in order[: n + 1]) / (n + 1) for n in range(len(order))]


@pytest.mark.parametrize("seed", range(6))
def test_against_every_order(seed):
    """Every order that the expected scores allow, all orders for random, and the lowest area of all is the ideal."""
    rng = np.random.default_rng(seed)
    scores, expected = rng.random(6), rng.integers(0, 3, 6) / 2.0
    risks = 1 - scores
    orders = list(permutations(range(6)))
    allowed = [order for order in orders if all(expected[a] >= expected[b] for a, b in pairwise(order))]
    assert 1 < len(allowed) < len(orders)
    found = risk_coverage(expected, scores)
    np.testing.assert_allclose(found.risk, np.mean([curve(order, risks) for order in allowed], 0))
    areas = [np.mean(curve(order, risks)) for order in orders]
    assert found.area == pytest.approx(np.mean([np.mean(curve(order, risks)) for order in allowed]))
    assert found.ideal == pytest.approx(min(areas))
    assert found.random == pytest.approx(np.mean(areas))
    assert found.excess == pytest.approx((found.area - min(areas)) / (np.mean(areas) - min(areas)))
    assert found.coverage.tolist() == [n / 6 for n in range(1, 7)]


def test_ends_of_the_excess():
    scores = np.array([0.2, 0.9, 0.5, 0.7])
    assert risk_coverage(scores**3, scores).excess == 0  # only the order matters
    assert risk_coverage(-scores, scores).excess > 1
    assert risk_coverage(np.zeros(4), scores).excess == pytest.approx(1)
    assert np.isnan(risk_coverage(scores, np.full(4, 0.3)).excess)


def test_missing_ones_are_left_out_and_counted():
    expected, scores = [0.3, NAN, 0.9, 0.1, 0.8], [0.5, 0.4, NAN, 1.0, 0.6]
    found = risk_coverage(torch.tensor(expected), torch.tensor(scores).double())
    rest = risk_coverage([0.8, 0.3, 0.1], [0.6, 0.5, 1.0])
    assert found.left_out == 2
    assert rest.left_out == 0
    assert found.risk.tolist() == pytest.approx(rest.risk.tolist())


def test_without_images():
    found = risk_coverage([NAN], [0.5])
    assert found.left_out == 1
    assert len(found.risk) == 0
    assert np.isnan([found.area, found.ideal, found.random, found.excess, found.risk_at(0.5)]).all()


def test_risk_at_rounds_up_to_whole_images():
    found = risk_coverage(np.arange(30), np.arange(30) / 30)
    for coverage, number in ((0.01, 1), (0.1, 3), (0.101, 4), (1.0, 30)):
        assert found.risk_at(coverage) == pytest.approx(1 - np.arange(30)[::-1][:number].mean() / 30)
    with pytest.raises(ValueError, match=r"coverage must lie in \(0, 1\], got 0"):
        found.risk_at(0)


@pytest.mark.parametrize(
    ("expected", "scores", "message"),
    [
        ([0.5], [0.5, 0.6], r"must be \(N,\) each, got \(1,\) and \(2,\)"),
        ([[0.5]], [[0.5]], r"must be \(N,\) each"),
        ([0.5, 0.5], [0.5, 1.5], r"scores must lie in \[0, 1\], got 0.5 to 1.5"),
        ([0.5, 0.5], [-0.5, 0.5], r"scores must lie in \[0, 1\]"),
    ],
)
def test_bad_input(expected, scores, message):
    with pytest.raises(ValueError, match=message):
        risk_coverage(expected, scores)


@pytest.mark.parametrize(("expected", "scores", "named"), [(["a"], [1], "expected"), ([0.5], "high", "scores")])
def test_what_is_no_number(expected, scores, named):
    with pytest.raises(TypeError, match=rf"{named} must be numbers \(N,\), got"):
        risk_coverage(expected, scores)
    with pytest.raises(TypeError, match="coverage must be a real number, got str"):
        risk_coverage([1], [1]).risk_at("all")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_tensors_of_a_graph(dtype):
    expected = torch.tensor([0.25, 0.75], dtype=dtype, requires_grad=True)
    assert risk_coverage(expected, torch.tensor([0.5, 1.0])).risk.tolist() == [0, 0.25]
