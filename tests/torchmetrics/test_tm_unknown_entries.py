"""Multilabel truth in which single masks do not know a pixel: scored as TorchMetrics' multilabel metrics score it."""

import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")

import references
from batches import CLASSES, make, run
from torchmetrics import MetricCollection
from torchmetrics.classification import MultilabelConfusionMatrix, MultilabelF1Score, MultilabelJaccardIndex
from torchmetrics.segmentation import DiceScore

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.calibration import TemperatureScaling
from rankseg_plugins.comparison import compare
from rankseg_plugins.comparison.measuring import calibrate
from rankseg_plugins.scores.areas import areas
from rankseg_plugins.scores.truth import count, to_truth
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper, multi_level_score

MASKS = RankSEG(output_mode="multilabel")
DTYPES = [torch.uint8, torch.int64, torch.float32]


def batches(seed=0):
    """Probabilities, and masks (B, C, H, W) of 0, 1 and 255 in some entries."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for probs, _ in make(seed=seed):
        target = (torch.rand(probs.shape, generator=generator) < probs).long()
        result.append((probs, target.masked_fill(torch.rand(probs.shape, generator=generator) < 0.2, 255)))
    return result


def by_hand(predicted, target, score="dice"):
    """Levels from plain loops, entries of 255 in neither mask."""
    known = (target != 255).flatten(2).numpy()
    return references.levels(predicted.flatten(2).numpy() & known, (target == 1).flatten(2).numpy() & known, score)


@pytest.mark.parametrize("cls", [MultilabelF1Score, MultilabelJaccardIndex, MultilabelConfusionMatrix])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("decoder", [MASKS, RankSEG()], ids=["masks", "labels"])
def test_multilabel_metrics_give_their_own_value(cls, dtype, decoder):
    own = cls(num_labels=CLASSES, ignore_index=255)
    for probs, target in batches():
        decided = decoder(probs)
        if decided.dtype != torch.bool:
            decided = torch.stack([decided == c for c in range(CLASSES)], 1)
        own.update(decided.long(), target)
    given = [(probs, target.to(dtype)) for probs, target in batches()]
    assert torch.equal(run(RankSEGWrapper(cls(num_labels=CLASSES), decoder, ignore_index=255), given), own.compute())
    told = RankSEGWrapper(cls(num_labels=CLASSES, ignore_index=255), decoder)
    assert torch.equal(run(told, given), own.compute())


@pytest.mark.parametrize("decoder", [MASKS, RankSEG()], ids=["masks", "labels"])
def test_every_way_to_the_levels(decoder):
    given = batches()
    probs, target = (torch.cat(parts) for parts in zip(*given, strict=True))
    decided = decoder(probs)
    predicted = decided if decided.dtype == torch.bool else torch.stack([decided == c for c in range(CLASSES)], 1)
    expected = by_hand(predicted, target)
    score = run(RankSEGWrapper(MultiLevelScore(CLASSES, ignore_index=255), decoder), given)
    assert {name: float(value) for name, value in score.items()} == pytest.approx(expected, abs=1e-12)
    function = multi_level_score(decided, target.float(), CLASSES, ignore_index=255)
    assert {name: float(value) for name, value in function.items()} == pytest.approx(expected, abs=1e-12)
    truth = to_truth(target.byte(), CLASSES, tuple(probs.shape[2:]), 255)
    for counted in (count(decided, target, CLASSES, 255), areas(decided, truth, CLASSES, 255)):
        known = target != 255
        assert torch.equal(counted.label, ((target == 1) & known).flatten(2).sum(2))
        assert torch.equal(counted.prediction, (predicted & known).flatten(2).sum(2))


def test_segmentation_metrics_leave_the_entries_out():
    ((probs, target),) = batches()[:1]
    result = RankSEGWrapper(DiceScore(CLASSES, average="macro"), MASKS, ignore_index=255)(probs, target)
    assert float(result) == pytest.approx(by_hand(MASKS(probs), target)["dice_image"], abs=1e-6)


def test_around_a_collection_of_several_forms():
    given = batches()
    collection = MetricCollection(
        {"f1": MultilabelF1Score(CLASSES), "dice": DiceScore(CLASSES, average="macro"), "all": MultiLevelScore(CLASSES)}
    )
    found = run(RankSEGWrapper(collection, MASKS, ignore_index=255), given)
    alone = run(RankSEGWrapper(MultilabelF1Score(CLASSES), MASKS, ignore_index=255), given)
    assert torch.equal(found["f1"], alone)
    probs, target = (torch.cat(parts) for parts in zip(*given, strict=True))
    assert float(found["dice_dataset"]) == pytest.approx(by_hand(MASKS(probs), target)["dice_dataset"], abs=1e-12)


def test_one_channel():
    ((probs, target),) = batches()[:1]
    result = multi_level_score(MASKS(probs[:, :1]), target[:, :1], 1, ignore_index=255)
    expected = by_hand(MASKS(probs[:, :1]), target[:, :1])
    assert {name: float(value) for name, value in result.items()} == pytest.approx(expected, abs=1e-12)


def test_comparison_and_calibration():
    probs, target = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    samples = [(f"{i}", *each) for i, each in enumerate(zip(probs, target, strict=True))]
    found = compare(samples, {"half": lambda p: p > 0.5, "rankseg": MASKS}, ignore_index=255, panels=2)
    for name, decided in (("half", probs > 0.5), ("rankseg", rankseg(probs, output_mode="multilabel"))):
        expected = by_hand(decided, target)
        assert found.level(name, "dice", "image") == pytest.approx(expected["dice_image"], abs=1e-12)
        assert found.level(name, "dice", "dataset") == pytest.approx(expected["dice_dataset"], abs=1e-12)
    for example in (*found.improved, *found.damaged):
        image, truth = target[int(example.name)], example.truth
        assert np.array_equal(truth == -1, ((image == 255).any(0) & ~(image == 1).any(0)).numpy())
    measured = calibrate(probs[0], target[0], 255)
    for label in range(CLASSES):
        known = target[0, label] != 255
        alone = calibrate(probs[0, label][known].view(1, -1), target[0, label][known].view(-1), None)
        assert np.allclose(measured.count[label], alone.count[0])
        assert np.allclose(measured.correct[label], alone.correct[0])
        assert np.allclose(measured.confidence[label], alone.confidence[0])


def test_temperature_of_known_entries():
    """As if every class were fitted with the pixels that it knows."""
    probs, target = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    logits = 3 * probs.double().logit()
    spoilt = logits.masked_fill(target == 255, torch.nan)
    together = TemperatureScaling(CLASSES, by_class=True, activation="sigmoid", output_mode="multilabel")
    together.update(spoilt, target, ignore_index=255)
    found = together.fit()
    for label in range(CLASSES):
        alone = TemperatureScaling(1, activation="sigmoid", output_mode="multilabel")
        alone.update(logits[:, [label]], target[:, label], ignore_index=255)
        assert found.temperature[label] == pytest.approx(float(alone.fit().temperature[0]), rel=1e-3)


def test_what_masks_may_not_hold():
    ((probs, target),) = batches()[:1]
    wrapper = RankSEGWrapper(MultilabelF1Score(CLASSES), MASKS, ignore_index=254)
    with pytest.raises(ValueError, match=r"masks must hold 0 and 1 only, got 255 \(ignore_index=254\)"):
        wrapper.update(probs, target)
    with pytest.raises(ValueError, match=r"got 255 \(no ignore_index was given\)"):
        multi_level_score(MASKS(probs), target, CLASSES)
    with pytest.raises(ValueError, match="ignore_index=0 is a value of the target masks themselves"):
        multi_level_score(MASKS(probs), target == 1, CLASSES, ignore_index=0)


def test_masks_drawn_in_white():
    white = 255 * torch.eye(4, dtype=torch.long)
    for classes in (1, 2):
        with pytest.raises(ValueError, match=r"allowed are 0 to 1 \(no .*; masks drawn 0/255\? Divide them by 255\)$"):
            to_truth(white[None], classes, (4, 4))
    with pytest.raises(ValueError, match=r"allowed are 0 to 2 \(no ignore_index was given\)$"):
        to_truth(white[None], 3, (4, 4))
    with pytest.raises(ValueError, match=r"0 and 1 only, got 255 \(no .*; masks drawn 0/255\? Divide them by 255\)$"):
        to_truth(white[None, None].expand(1, 3, 4, 4), 3, (4, 4))
