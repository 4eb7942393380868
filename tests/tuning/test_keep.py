"""A choice gains what is asked for and keeps the rest: against each score worked out by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.tuning import softened
from rankseg_plugins.comparison import Comparison, compare
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.tuning import tune
from rankseg_plugins.tuning.choosing import choose, read_keep

pytestmark = pytest.mark.filterwarnings("ignore:the probabilities are too unsure")


def compared(*gains, images=30, size=1000):
    """Argmax and a candidate for each of ``gains``: what it adds to the intersections of each of two classes.

    A class of the truth has half of the pixels; what one class takes the other one loses.
    """
    generator = np.random.default_rng(0)
    measurements = []
    for index in range(images):
        right = generator.integers(300, 400, 2)
        counts = [
            np.stack([right + np.array(gain), np.full(2, size // 2), np.full(2, size // 2)])
            for gain in ((0, 0), *gains)
        ]
        measurements.append(Measurement(str(index), str(index), np.stack(counts), np.full(len(counts), np.nan)))
    names = ("argmax", *(f"candidate {index}" for index in range(len(gains))))
    return Comparison(names, ("a", "b"), tuple(measurements))


def test_every_class():
    found = compared((90, -20), (30, 5))
    assert choose(found, "dice_image").winner == "candidate 0"
    kept = choose(found, "dice_image", keep=["every-class"])
    assert (kept.winner, kept.used) == ("candidate 1", True)
    none = choose(compared((90, -20)), "dice_image", keep=["every-class"])
    assert (none.winner, none.used) == ("argmax", False)
    assert "all candidates that gain lower a class by more than two standard errors, " in none.verdict


def with_false_alarms(found, candidate, share):
    """Class b is not in the truth of some images, where the candidate shows it: a union of 1, and a score of 0."""
    images = []
    for index, each in enumerate(found.measurements):
        counts = each.counts.copy()
        if index % 10 < 10 * share:
            counts[:, :, 1] = 0
            counts[candidate, 1, 1] = 1
        images.append(replace(each, counts=counts))
    return replace(found, measurements=tuple(images))


def test_classes_that_count():
    """What finds more of what is there, and shows what is not: a gain by one convention and a loss by the other."""
    found = with_false_alarms(compared((60, 60)), 1, 0.5)
    label = found.under("label")
    assert choose(found, "dice_image").winner == "argmax"
    assert choose(label, "dice_image").used
    kept = choose(label, "dice_image", keep=["union"])
    assert not kept.used
    assert "lower image Dice (union) by more than two standard errors" in kept.verdict
    assert found.verdict().sign == "loss"
    assert ("dice", "image", "union") in {each[:3] for each in label.verdict().against}


def test_a_level():
    """Small images gain, and a large one loses more pixels than all of them gain."""
    found = compared((50, 50), images=30)
    images = list(found.measurements)
    for index in range(6):
        counts = 1000 * images[index].counts
        counts[1, 0] -= 80_000
        images[index] = replace(images[index], counts=counts)
    found = replace(found, measurements=tuple(images))
    assert choose(found, "dice_image").used
    kept = choose(found, "dice_image", keep=["dice_dataset"])
    assert not kept.used
    assert "lower dataset Dice (union) by more than two standard errors" in kept.verdict


def test_the_default_and_what_is_refused():
    found = tune(softened(24, 1, 2.0, 24), pruning_probs=[0.5], temperatures=[0.5])
    assert found.decoder.evidence["keep"] == ["dice_dataset"]
    with pytest.raises(ValueError, match=r"each of keep must be one of 'dice_dataset', .*got 'mIoU'"):
        tune(softened(24, 1, 2.0, 24), keep=["mIoU"])
    with pytest.raises(TypeError, match="keep must be a list of names, got 'label'"):
        read_keep("label", "dice_image")


def test_a_choice_keeps_all_that_was_measured_of_what_it_chose():
    generator = torch.Generator().manual_seed(0)
    images = [(3 * torch.randn(3, 8, 8, generator=generator)).softmax(0) for _ in range(24)]
    truths = [torch.multinomial(each.flatten(1).T, 1, generator=generator).view(8, 8) for each in images]
    samples = zip(map(str, range(24)), images, truths, strict=True)
    decoders = ["argmax", "rankseg(metric=iou)", "rankseg(metric=dice)"]
    whole = compare(samples, decoders, risk_coverage=True, extra=Boundaries(1), panels=0)
    chosen = choose(whole, "dice_image", min_cases=0).validated

    def is_of(found, measured, decoder):
        parts = ((getattr(found, name), getattr(measured, name)[decoder]) for name in ("counts", "extra", "expected"))
        return all(np.array_equal(one[1], other, equal_nan=True) for one, other in parts)

    for found, measured in zip(chosen.measurements, whole.measurements, strict=True):
        assert any(is_of(found, measured, decoder) for decoder in range(3))
    assert chosen.expected_scores.shape == (2, 24)
    np.testing.assert_array_equal(chosen.expected_scores[0], whole.expected_scores[0])
