"""One label per pixel, against the rule written out pixel by pixel."""

import numpy as np
import pytest
import torch
from oracles import labels_of_masks

from rankseg_plugins import RankSEG, rankseg


def random_probs(shape, sharpness, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharpness * torch.randn(shape, generator=generator, dtype=torch.float64), 1)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("smooth", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("pruning_prob", [0.5, 0.1])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("policy", ["max_score", "void"])
def test_rule(metric, smooth, pruning_prob, sharpness, policy):
    for seed in range(4):
        p = random_probs((3, 5, 40), sharpness, seed)
        options = {"metric": metric, "smooth": smooth, "pruning_prob": pruning_prob}
        masks = rankseg(p, output_mode="multilabel", **options)
        labels = rankseg(p, unassigned_policy=policy, **options)
        active = p.amax(2) > pruning_prob
        for image in range(len(p)):
            expected = labels_of_masks(
                p[image].numpy(),
                masks[image].numpy(),
                active[image].numpy(),
                metric,
                smooth,
                255 if policy == "void" else None,
            )
            np.testing.assert_array_equal(labels[image].numpy(), expected)


def test_all_classes_pruned_means_all_compete():
    p = torch.tensor([[[0.4, 0.35], [0.3, 0.4], [0.3, 0.25]]])
    labels = RankSEG()(p)
    empty = np.zeros((3, 2), dtype=bool)
    np.testing.assert_array_equal(labels[0], labels_of_masks(p[0].numpy(), empty, np.zeros(3, bool), "dice", 0))
    assert RankSEG(unassigned_policy="void", void_index=-1)(p).tolist() == [[-1, -1]]


def test_equal_gains_go_to_the_lowest_class():
    assert RankSEG()(torch.full((1, 4, 3), 0.25)).tolist() == [[0, 0, 0]]
    assert RankSEG(metric="iou", pruning_prob=0.1)(torch.full((1, 4, 3), 0.25)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("options", [{"smooth": 1.0}, {"smooth": 7.0}, {"solver": "exact"}, {"metric": "iou"}])
@pytest.mark.parametrize("value", [1 / 3, 0.3, 0.2])
def test_classes_that_are_alike_tie_in_every_image_of_a_batch(options, value):
    """Their sums are the same to the last digit, whatever was added up before."""
    p = torch.full((3, 3, 24), value, dtype=torch.float64)
    assert RankSEG(**options, pruning_prob=0.1)(p).unique().tolist() == [0]


def test_zero_probability_everywhere():
    """0/0 := 0 leaves no NaN to win."""
    for metric in ("dice", "iou"):
        for smooth in (0.0, 1e-40, 1.0):
            p = torch.zeros(1, 3, 4)
            assert RankSEG(metric, smooth)(p).tolist() == [[0, 0, 0, 0]]
            p[:, 1] = 0.9
            assert RankSEG(metric, smooth)(p).tolist() == [[1, 1, 1, 1]]


def test_large_volumes_keep_the_sign_of_the_gain():
    """Two classes of a million pixels each that differ in the fourth digit of one contested pixel."""
    d = 2_000_001
    p = torch.zeros(1, 2, d)
    p[0, 0, : d // 2] = 1.0
    p[0, 1, d // 2 : d - 1] = 1.0
    p[0, :, -1] = torch.tensor([0.5003, 0.5001])
    assert RankSEG()(p)[0, -1] == 0
    p[0, :, -1] = torch.tensor([0.5001, 0.5003])
    assert RankSEG()(p)[0, -1] == 1
