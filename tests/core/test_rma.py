"""The volume search against exhaustive search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import exact_optimal_volumes, score_of_mask, scores_of_all_volumes

from rankseg_plugins import rankseg

SMOOTH = [0.0, 1e-6, 0.3, 1.0, 50.0, 1e6]
EPS = float(np.finfo(np.float32).eps)

# Values that tie with each other and with thresholds are as likely as any others.
PROBABILITIES = st.one_of(
    st.floats(0, 1, width=32),
    st.sampled_from([0.0, 0.125, 0.25, 1 / 3, 0.4, 0.5, 0.625, 1.0]).map(lambda p: float(np.float32(p))),
)


def masks(p, metric, smooth, pruning_prob=0.0):
    return rankseg(p, metric, smooth, output_mode="multilabel", pruning_prob=pruning_prob)


def assert_optimal(p, mask, metric, smooth):
    """Every class of every image: the objective reached is the best of all volumes."""
    p, mask = p.flatten(2).double().numpy(), mask.flatten(2).numpy()
    for image, chosen in zip(p, mask, strict=True):
        for row, row_mask in zip(image, chosen, strict=True):
            best = scores_of_all_volumes(row, metric, smooth).max()
            reached = score_of_mask(row, row_mask, metric, smooth)
            assert best - reached <= 4 * EPS * best
            # Selected pixels outrank the rest.
            if row_mask.any() and not row_mask.all():
                assert row[row_mask].min() > row[~row_mask].max()


@settings(max_examples=400, deadline=None)
@given(st.lists(PROBABILITIES, min_size=1, max_size=10), st.sampled_from(["dice", "iou"]), st.sampled_from(SMOOTH))
def test_volume_is_the_smallest_optimal_one(p, metric, smooth):
    probs = torch.tensor(p, dtype=torch.float64).view(1, 1, -1)
    chosen = int(masks(probs, metric, smooth).sum())
    optimal = exact_optimal_volumes(p, metric, smooth)
    scores = scores_of_all_volumes(p, metric, smooth)
    # Beyond exact ties, scores may differ by less than float64 resolves; then either volume is right.
    assert chosen in optimal or scores.max() - scores[chosen] < 1e-15


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from(["dice", "iou"]),
    st.sampled_from(SMOOTH),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.data(),
)
def test_any_shape_and_dtype(batch, classes, spatial, metric, smooth, dtype, data):
    count = batch * classes * int(np.prod(spatial))
    p = torch.tensor(data.draw(st.lists(PROBABILITIES, min_size=count, max_size=count))).to(dtype)
    p = p.view(batch, classes, *spatial)
    assert_optimal(p, masks(p, metric, smooth), metric, smooth)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("smooth", SMOOTH)
@pytest.mark.parametrize("power", [0.3, 1, 8, 60])
def test_large_random_rows(metric, smooth, power):
    generator = torch.Generator().manual_seed(int(power * 10))
    p = torch.rand(2, 3, 41, 53, 7, generator=generator) ** power
    assert_optimal(p, masks(p, metric, smooth), metric, smooth)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("smooth", [0.0, 1.0, 1000.0])
def test_real_probabilities(real_probs, metric, smooth):
    probs = real_probs[::2]
    assert_optimal(probs, masks(probs, metric, smooth, pruning_prob=0.0), metric, smooth)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_many_undecided_pixels(metric, smooth):
    """All probabilities low and alike: nothing is above 1/2."""
    generator = torch.Generator().manual_seed(0)
    p = 0.2 + 0.2 * torch.rand(2, 2, 50_000, generator=generator)
    assert_optimal(p, masks(p, metric, smooth), metric, smooth)


@pytest.mark.parametrize("smooth", [0.5, 1.0, 30.0])
def test_smooth_dice_in_a_wide_haze(smooth):
    p = 0.3 + 0.2 * torch.rand(1, 1, 300_000, generator=torch.Generator().manual_seed(0))
    p[..., 0] = 0.9
    assert_optimal(p, masks(p, "dice", smooth), "dice", smooth)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize(
    ("value", "smooth", "volume"),
    [(0.0, 0.0, 0), (0.0, 1.0, 0), (1.0, 0.0, 9), (1.0, 1.0, 9), (1e-30, 1.0, 0), (0.9, 0.0, 9)],
)
def test_constant_rows(metric, value, smooth, volume):
    p = torch.full((1, 1, 3, 3), value)
    assert int(masks(p, metric, smooth).sum()) == volume


def test_pruned_class_stays_empty():
    p = torch.tensor([[[0.5, 0.4], [0.51, 0.4]]])
    assert masks(p, "dice", 0.0, pruning_prob=0.5).any(2).tolist() == [[False, True]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_ten_million_pixels(metric):
    """Sums do not lose small probabilities beside large totals."""
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(1, 1, 10_000_000, generator=generator) ** 6
    assert_optimal(p, masks(p, metric, 0.0), metric, 0.0)
