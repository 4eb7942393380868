"""Which classes to take: within a thousandth of the best of all sets, for every way to count absent classes."""

import itertools

import pytest
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.core.presence import best_set, choose_classes

SCORINGS = [
    ("union", "skip"),
    ("union", "zero"),
    ("union", "one"),
    ("label", "skip"),
    ("label", "zero"),
    ("label", "one"),
]


def subsets(classes):
    return [torch.tensor(each, dtype=torch.bool) for each in itertools.product([False, True], repeat=classes)]


def image_score(taken, q, given, present, absent):
    """The exact expected score of an image, by going through every set of classes that the truth may hold.

    Args:
        taken: (C,) bool, classes with a mask.
        q: (C,), how likely the truth holds each.
        given: (C,), expected score of its mask where it does.
    """
    total = weight = 0.0
    for there in subsets(len(q)):
        likely = torch.where(there, q, 1 - q).prod()
        counted = there | taken if present == "union" else there
        scores = torch.where(there & taken, given, torch.zeros_like(given))
        if absent == "skip":
            if counted.any():
                total, weight = total + likely * scores[counted].mean(), weight + likely
        else:
            outside = float(absent == "one")
            total, weight = total + likely * torch.where(counted, scores, outside).mean(), weight + likely
    return float(total / weight)


def drawn(seed, classes, images=1):
    generator = torch.Generator().manual_seed(seed)
    q = torch.rand(images, classes, dtype=torch.float64, generator=generator)
    q = torch.where(torch.rand(images, classes, generator=generator) < 0.5, q, (8 * (q - 0.5)).sigmoid())
    return q, torch.rand(images, classes, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 6])
def test_the_best_of_all_sets(classes):
    """Of those that are not empty; each image of a batch for itself."""
    q, given = drawn(classes, classes, images=20)
    found = best_set(q * given, q)
    for taken, likely, score in zip(found, q, given, strict=True):
        values = [image_score(each, likely, score, "union", "skip") for each in subsets(classes)[1:]]
        assert image_score(taken, likely, score, "union", "skip") == pytest.approx(max(values), abs=1e-9)


def test_many_classes_that_are_hardly_ever_there():
    """The haze of 150 classes leaves the few that are there."""
    q = torch.full((1, 150), 0.01, dtype=torch.float64)
    q[0, :3] = 0.95
    given = torch.full_like(q, 0.6)
    assert best_set(q * given, q)[0].nonzero().flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize(("present", "absent"), SCORINGS)
def test_within_a_thousandth_of_the_best_set(metric, present, absent):
    """Pixels are independent where the class is there; scores of masks are exact, those of the rule are RMA's."""
    generator, images, classes = torch.Generator().manual_seed(0), 25, 5
    q, _ = drawn(7, classes, images)
    centre = 3 * torch.rand(images, classes, 1, generator=generator) - 1
    given = (centre + 2 * torch.randn(images, classes, 80, generator=generator)).sigmoid().double()
    decoder = RankSEG(metric, output_mode="multilabel")
    masks = decoder(given, active=torch.ones(classes, dtype=torch.bool))
    scores = decoder.expected_score(given, masks)
    found = choose_classes(given * q[..., None], q, metric, present=present, absent=absent)
    gaps = []
    for taken, likely, score in zip(found, q, scores, strict=True):
        sets = subsets(classes)[1 if absent == "skip" else 0 :]
        best = max(image_score(each, likely, score, present, absent) for each in sets)
        gaps.append(best - image_score(taken, likely, score, present, absent))
    assert min(gaps) > -1e-12
    assert sum(gaps) / images < 1e-3


def test_frequencies_of_a_data_set_and_of_each_image():
    probs = torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(0)).softmax(1)
    often = torch.tensor([0.9, 0.5, 0.2, 0.05])
    found = choose_classes(probs, often)
    assert torch.equal(found, choose_classes(probs, often.expand(3, -1)))
    assert torch.equal(found[1:2], choose_classes(probs[1:2], often))
    labels = RankSEG()(probs, active=found)
    assert found.gather(1, labels.flatten(1)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes_and_padding(dtype):
    probs = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(1)).mul(2).softmax(1).to(dtype)
    q = torch.tensor([0.9, 0.4, 0.1])
    padded = torch.nn.functional.pad(probs, (0, 6), value=0.4)
    valid = torch.arange(16) < 10
    expected = choose_classes(probs, q, absent="one")
    assert torch.equal(choose_classes(padded, q, absent="one", valid_mask=valid.expand(10, 16)), expected)


def test_pieces_of_a_large_image_change_nothing(monkeypatch):
    probs = torch.randn(2, 7, 16, 16, generator=torch.Generator().manual_seed(2)).softmax(1)
    q = torch.linspace(0, 1, 7)
    expected = choose_classes(probs, q)
    monkeypatch.setattr("rankseg_plugins.core.presence._ROOM", 600)
    assert torch.equal(choose_classes(probs, q), expected)


def test_classes_that_cannot_be_there():
    probs = torch.full((1, 3, 5, 5), 1 / 3)
    assert choose_classes(probs, torch.tensor([1.0, 0.0, 0.0])).tolist() == [[True, False, False]]
    assert choose_classes(probs, torch.tensor([0.0, 0.0, 0.0]), absent="one").tolist() == [[False] * 3]


@pytest.mark.parametrize(
    ("presence", "options", "error", "message"),
    [
        ([0.5] * 3, {}, TypeError, "presence must be a torch.Tensor, got list"),
        (torch.ones(3, dtype=torch.int64), {}, TypeError, "presence must be float16"),
        (torch.ones(2), {}, ValueError, r"presence must have shape \(2, 3\) or \(3,\), got \(2,\)"),
        (torch.tensor([0.1, 0.2, 1.5]), {}, ValueError, r"presence must lie in \[0, 1\]"),
        (torch.tensor([0.1, 0.2, torch.nan]), {}, ValueError, r"presence must lie in \[0, 1\]"),
        (torch.ones(3), {"metric": "acc"}, ValueError, "metric must be one of 'dice', 'iou'"),
        (torch.ones(3), {"present": "all"}, ValueError, "present must be one of 'union', 'label'"),
        (torch.ones(3), {"absent": "two"}, ValueError, "absent must be one of 'skip', 'zero', 'one'"),
    ],
)
def test_refused(presence, options, error, message):
    with pytest.raises(error, match=message):
        choose_classes(torch.full((2, 3, 4, 4), 1 / 3), presence, **options)


def test_one_channel_is_settled_by_what_an_absent_class_counts():
    probs = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="a single channel under present='union' and absent='skip'"):
        choose_classes(probs, torch.tensor([0.5]))
    assert choose_classes(probs, torch.tensor([[0.99], [0.01]]), absent="one").tolist() == [[True], [False]]
