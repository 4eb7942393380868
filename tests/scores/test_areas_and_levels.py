"""Counts and scores, against loops over pixels and scikit-free formulas."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_plugins.scores import Areas, areas, levels

IGNORE = 255


def count(prediction, target, num_classes, ignore_index):
    """Pixel by pixel, in Python."""
    rows = []
    for image_prediction, image_target in zip(prediction, target, strict=True):
        table = np.zeros((3, num_classes), dtype=int)
        for p, t in zip(image_prediction.flatten().tolist(), image_target.flatten().tolist(), strict=True):
            if t == ignore_index:
                continue
            table[2, t] += 1
            if 0 <= p < num_classes:
                table[1, p] += 1
                table[0, p] += p == t
        rows.append(table)
    return np.stack(rows, 1) if rows else np.zeros((3, 0, num_classes), dtype=int)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 4), st.integers(1, 5), st.sampled_from([(6,), (3, 4), (2, 3, 2)]), st.integers(0, 9999))
def test_labels(batch, num_classes, spatial, seed):
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(-1, num_classes + 2, (batch, *spatial), generator=generator)
    target = torch.randint(0, num_classes, (batch, *spatial), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = IGNORE
    for ignored, truth in ((IGNORE, target), (None, target % num_classes), (0, target % num_classes)):
        found = areas(prediction, truth, num_classes, ignored)
        np.testing.assert_array_equal(torch.stack(list(found)), count(prediction, truth, num_classes, ignored))
        assert found.label.dtype == torch.int64
    assert torch.equal(found.union, found.prediction + found.label - found.intersection)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_types(dtype):
    prediction, target = torch.tensor([[0, 1, 2, 1]], dtype=dtype), torch.tensor([[0, 1, 1, 255]])
    found = areas(prediction, target.to(torch.uint8), 3, 255)
    assert found.intersection.tolist() == [[1, 1, 0]]
    assert found.prediction.tolist() == [[1, 1, 1]]
    assert found.label.tolist() == [[1, 2, 0]]


def test_masks_and_labels_mix():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randint(0, 3, (2, 2, 5, 6), generator=generator)
    target[0, :2] = IGNORE
    expected = areas(prediction, target, 3, IGNORE)
    predicted_masks = torch.stack([prediction == c for c in range(3)], 1)
    assert all(map(torch.equal, areas(predicted_masks, target, 3, IGNORE), expected))
    target_masks = torch.stack([target == c for c in range(3)], 1)
    kept = target != IGNORE
    masked = areas(predicted_masks & kept.unsqueeze(1), target_masks, 3)
    assert all(map(torch.equal, masked, expected))
    assert all(map(torch.equal, areas(prediction.masked_fill(~kept, -1), target_masks, 3), expected))


def test_binary_masks():
    found = areas(torch.tensor([[[True, True, False]]]), torch.tensor([[[True, False, False]]]), 1)
    assert found == Areas(torch.tensor([[1]]), torch.tensor([[2]]), torch.tensor([[1]]))


@pytest.mark.parametrize(
    ("prediction", "target", "error", "message"),
    [
        (torch.zeros(1, 2), torch.zeros(1, 2).long(), TypeError, "prediction must be integer labels"),
        (torch.zeros(1, 2).long(), [0, 0], TypeError, r"target must be a torch\.Tensor, got list"),
        (torch.zeros(1, 2).long(), torch.zeros(1, 3).long(), ValueError, "cover the same pixels"),
        (torch.zeros(2).long(), torch.zeros(2).long(), ValueError, r"prediction labels must have shape \(B"),
        (torch.zeros(1, 3, 2) > 0, torch.zeros(1, 2).long(), ValueError, r"prediction masks must have shape \(B, 2"),
        (torch.zeros(1, 2).long(), torch.tensor([[0, 2]]), ValueError, "target holds the label 2, allowed are 0 to 1"),
        (torch.zeros(1, 2).long(), torch.tensor([[0, -1]]), ValueError, "target holds the label -1"),
        (torch.zeros(1, 2).long(), torch.tensor([[[0, 2], [1, 0]]]), ValueError, "masks must hold 0 and 1 only, got 2"),
    ],
)
def test_bad_input(prediction, target, error, message):
    with pytest.raises(error, match=message):
        areas(prediction, target, 2)
    with pytest.raises(ValueError, match="num_classes must be at least 1"):
        areas(torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), 0)
    with pytest.raises(TypeError, match="ignore_index must be an integer, got float"):
        areas(torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), 2, ignore_index=0.5)


def random_areas(seed, images=7, classes=5):
    rng = np.random.default_rng(seed)
    prediction, target = rng.integers(0, classes, (2, images, 30))
    target[rng.random(target.shape) < 0.8] = 0  # so that classes are absent from some images
    return prediction, target, areas(torch.from_numpy(prediction), torch.from_numpy(target), classes)


def mean(values):
    values = [value for value in values if not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


def one_score(prediction, target, c, score, present, absent):
    p, t = prediction == c, target == c
    if not (t.any() or (present == "union" and p.any())):
        return {"skip": math.nan, "zero": 0.0, "one": 1.0}[absent]
    both = (p & t).sum()
    return both / (p | t).sum() if score == "iou" else 2 * both / (p.sum() + t.sum())


@pytest.mark.parametrize("score", ["iou", "dice"])
@pytest.mark.parametrize("present", levels.PRESENT)
@pytest.mark.parametrize("absent", sorted(levels.ABSENT))
def test_levels_against_their_definitions(score, present, absent):
    for seed in range(5):
        prediction, target, counts = random_areas(seed)
        table = [
            [one_score(p, t, c, score, present, absent) for c in range(5)]
            for p, t in zip(prediction, target, strict=True)
        ]
        expected = {
            "dataset": mean(one_score(prediction, target, c, score, present, absent) for c in range(5)),
            "image": mean(mean(row) for row in table),
            "class": mean(mean(column) for column in zip(*table, strict=True)),
        }
        for level, function in levels.LEVELS.items():
            assert function(counts, levels.SCORES[score], present, absent).item() == pytest.approx(
                expected[level], abs=1e-12
            )


def test_precision_recall_accuracy():
    counts = Areas(torch.tensor([[3, 0]]), torch.tensor([[4, 0]]), torch.tensor([[6, 2]]))
    assert levels.entries(counts, levels.precision).tolist() == [[0.75, 0.0]]
    assert levels.entries(counts, levels.recall).tolist() == [[0.5, 0.0]]
    assert levels.pixel_accuracy(counts).item() == 3 / 8


def test_accuracy_and_class_table_against_their_definitions():
    prediction, target, counts = random_areas(3)
    right = prediction == target
    assert levels.accuracy(counts, "dataset").item() == pytest.approx(right.mean())
    assert levels.accuracy(counts, "image").item() == pytest.approx(right.mean(1).mean())
    held = [c for c in range(5) if (target == c).any()]
    assert levels.accuracy(counts, "class").item() == pytest.approx(np.mean([right[target == c].mean() for c in held]))
    with pytest.raises(ValueError, match="level must be one of 'dataset', 'image', 'class', got 'pixel'"):
        levels.accuracy(counts, "pixel")
    for present in levels.PRESENT:
        table = levels.class_table(counts, present)
        assert table["images"].tolist() == [(target == c).any(1).sum() for c in range(5)]
        for score in ("iou", "dice"):
            for c in range(5):
                pairs = zip(prediction, target, strict=True)
                by_image = mean(one_score(p, t, c, score, present, "skip") for p, t in pairs)
                expected = (by_image, one_score(prediction, target, c, score, present, "skip"))
                found = (table[f"{score}_class"][c].item(), table[f"{score}_dataset"][c].item())
                assert found == pytest.approx(expected, nan_ok=True)


def test_worst():
    scores = torch.arange(30).double()
    assert levels.worst(scores, 0.1) == 1.0
    assert levels.worst(scores, 1.0) == scores.mean()
    assert levels.worst(scores, 0.001) == 0.0
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]"):
        levels.worst(scores, 0.0)


@pytest.mark.parametrize("share", [1e-9, 1e-12, 5e-324])
@pytest.mark.parametrize("count", [1, 30])
def test_the_worst_are_at_least_one(count, share):
    assert levels.worst(torch.arange(count).double() + 7, share) == 7
    assert levels.worst(torch.full((3,), torch.nan), share).isnan()


def test_the_number_of_the_worst_is_that_of_exact_arithmetic():
    counts = [*range(1, 200), 10**6, 10**9, 10**9 + 1, 10**11 + 10]
    for share in ("0.1", "0.05", "0.01", "0.3", "0.7", "0.001", "1"):
        expected = [math.ceil(count * Fraction(share)) for count in counts]
        assert levels.lowest(torch.tensor(counts), float(share)).tolist() == expected


def test_unknown_options():
    counts = random_areas(0)[2]
    with pytest.raises(ValueError, match="present must be one of 'union', 'label', got 'truth'"):
        levels.image_level(counts, levels.iou, present="truth")
    with pytest.raises(ValueError, match="absent must be one of 'skip', 'zero', 'one', got 'nan'"):
        levels.image_level(counts, levels.iou, absent="nan")
