"""What the wrapper says of wrapped metrics whose value is not what it seems, and of shapes that lack a dimension."""

import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")

from batches import CLASSES, make, make_binary, one_hot, run
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    BinaryJaccardIndex,
    F1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelF1Score,
)
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, MeanIoU
from torchmetrics.wrappers import BootStrapper

from rankseg_plugins import GlobalRankSEG, RankSEG, rankseg
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper

MASKS = RankSEG(output_mode="multilabel")


def said(metric, batches, decoder=None):
    """What the wrapper warns of from its making to the second epoch."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrapper = RankSEGWrapper(metric, decoder)
        for _ in range(2):
            run(wrapper, batches)
            wrapper.reset()
    return [str(each.message) for each in caught]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "DiceScore metric currently defaults")  # TorchMetrics itself, when made
        yield


@pytest.mark.parametrize(
    "metric",
    [
        lambda: DiceScore(CLASSES, average="micro"),
        lambda: DiceScore(CLASSES, average="micro", input_format="index"),
        lambda: F1Score("multiclass", num_classes=CLASSES),
        lambda: MultilabelF1Score(CLASSES, average="micro"),
        lambda: MulticlassJaccardIndex(CLASSES, average="micro"),
        lambda: MetricCollection([MeanIoU(CLASSES), DiceScore(CLASSES, average="micro")]),
        lambda: BootStrapper(DiceScore(CLASSES, average="micro"), num_bootstraps=2),
    ],
)
def test_an_average_that_is_pixel_accuracy(metric):
    (text,) = said(metric(), make())
    assert "has average='micro', which over one label per pixel is a form of pixel accuracy" in text
    assert "average='macro'" in text


def test_micro_dice_of_labels_is_pixel_accuracy():
    batches = make()
    with pytest.warns(UserWarning, match="pixel accuracy"):
        value = run(RankSEGWrapper(DiceScore(CLASSES, average="micro")), batches)
    right = torch.cat([rankseg(probs) == target for probs, target in batches])
    assert float(value) == pytest.approx(float(right.float().mean()), abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "decoder"),
    [
        (lambda: DiceScore(CLASSES, average="macro"), None),
        (lambda: DiceScore(CLASSES, average="micro", include_background=False), None),
        (lambda: DiceScore(CLASSES, average="micro"), MASKS),
        (lambda: MultilabelF1Score(CLASSES, average="micro"), MASKS),
        (lambda: MulticlassAccuracy(CLASSES, average="micro"), None),
        (lambda: MulticlassF1Score(CLASSES, average="macro"), None),
        (lambda: MultiLevelScore(CLASSES), None),
        (lambda: MeanIoU(CLASSES), None),
    ],
)
def test_other_averages_are_fine(metric, decoder):
    batches = [(probs, torch.rand(probs.shape).round() if decoder is MASKS else target) for probs, target in make()]
    assert said(metric(), batches, decoder) == []


@pytest.mark.parametrize(
    ("metric", "instead"),
    [
        (lambda: DiceScore(2, average="macro"), "give include_background=False"),
        (lambda: MeanIoU(2), "give include_background=False"),
        (lambda: GeneralizedDiceScore(2), "give include_background=False"),
        (lambda: MulticlassF1Score(2, average="macro"), "use BinaryF1Score"),
        (lambda: MultilabelF1Score(2), "give num_labels=1"),
        (lambda: MultiLevelScore(2), "give num_classes=1"),
    ],
)
def test_the_background_of_one_channel(metric, instead):
    (text,) = said(metric(), make_binary(), MASKS)
    assert "for 2 classes on one channel averages the background in: for the foreground alone " + instead in text


def test_what_is_advised_for_one_channel_is_the_dice_of_the_foreground():
    batches = make_binary()
    foreground = run(RankSEGWrapper(DiceScore(1, average="macro"), MASKS), batches)
    alone = DiceScore(2, average="macro", include_background=False)
    assert said(DiceScore(2, average="macro", include_background=False), batches, MASKS) == []
    assert torch.equal(run(RankSEGWrapper(alone, MASKS), batches), foreground)
    with pytest.warns(UserWarning, match="averages the background in"):
        both = run(RankSEGWrapper(DiceScore(2, average="macro"), MASKS), batches)
    assert abs(float(both) - float(foreground)) > 0.005
    assert said(DiceScore(2, average=None), batches, MASKS) == []
    (text,) = said(DiceScore(2, average="micro"), batches, MASKS)
    assert "pixel accuracy" in text


def test_options_without_effect():
    for metric, decoder in ((BinaryF1Score(0.3), MASKS), (MultilabelF1Score(CLASSES, 0.3), None)):
        with pytest.warns(UserWarning, match=f"threshold=0.3 of {type(metric).__name__} has no effect"):
            RankSEGWrapper(metric, decoder)
    with pytest.warns(UserWarning, match=r"threshold=0\.3") as caught:
        RankSEGWrapper(MetricCollection([BinaryF1Score(0.3), BinaryJaccardIndex(0.3)]), MASKS)
    assert len(caught) == 2
    with pytest.raises(ValueError, match="top_k=2 of MulticlassF1Score needs probabilities"):
        RankSEGWrapper(MulticlassF1Score(CLASSES, top_k=2))


@pytest.mark.parametrize("name", ["dist_sync_on_step", "compute_on_cpu", "sync_on_compute", "compute_with_cache"])
def test_arguments_that_belong_to_the_wrapped_metric(name):
    with pytest.raises(ValueError, match=f"{name} has no effect here.*give it to the metric that is wrapped"):
        RankSEGWrapper(MeanIoU(CLASSES), **{name: True})
    ((probs, target),) = make(batches=1)
    inside = RankSEGWrapper(MeanIoU(CLASSES, **{name: True}))
    assert torch.equal(inside(probs, target), RankSEGWrapper(MeanIoU(CLASSES))(probs, target))


def test_labels_beside_channels_that_overlap():
    """The label of a region's number is not the region."""
    softmax = make()
    sigmoid = [(probs**0.2, target) for probs, target in softmax]
    masks = [(probs, one_hot(target)) for probs, target in sigmoid]
    (text,) = said(MultilabelF1Score(CLASSES, average="macro"), sigmoid, MASKS)
    assert text.startswith("masks are decided, the truth is labels, and multiclass probabilities must add up to 1")
    for batches in (softmax, masks):
        assert not said(MultilabelF1Score(CLASSES, average="macro"), batches, MASKS)


def test_a_missing_dimension_is_named():
    ((probs, target),) = make_binary()[:1]
    for metric in (BinaryF1Score(), DiceScore(1, average="macro"), DiceScore(2, average="macro"), MultiLevelScore(1)):
        wrapper = RankSEGWrapper(metric, MASKS)
        with pytest.raises(ValueError, match=r"9 classes.*preds\.unsqueeze\(1\) adds the channel dimension"):
            wrapper.update(probs[:, 0], target)
    ((probs, target),) = make(batches=1)
    with pytest.raises(ValueError, match=r"preds\.unsqueeze\(0\) adds the batch dimension"):
        RankSEGWrapper(MeanIoU(CLASSES)).update(probs[0], target[0])
    with pytest.raises(ValueError, match=r"target\.unsqueeze\(0\) adds the batch dimension"):
        RankSEGWrapper(MeanIoU(CLASSES)).update(probs[:1], target[0])
    with pytest.raises(ValueError, match=r"preds\[None, None\] adds batch and channel"):
        RankSEGWrapper(BinaryF1Score(), MASKS).update(probs[0, 0], target[0])


def test_decided_labels_and_masks_in_another_form():
    ((probs, target),) = make(batches=1)
    decided = rankseg(probs)
    score = MultiLevelScore(CLASSES)
    with pytest.raises(ValueError, match=r"look like one-hot masks of 4 classes: give preds\.bool\(\)"):
        score.update(one_hot(decided).long(), one_hot(target).long())
    with pytest.raises(ValueError, match=r"target\.unsqueeze\(0\) adds the batch dimension"):
        score.update(decided, target[0])
    with pytest.raises(ValueError, match=r"one for each of 4 classes; or the prediction lacks a dimension"):
        score.update(decided[0], target)
    with pytest.raises(ValueError, match=r"4 classes.*preds\.unsqueeze\(0\) adds the batch dimension"):
        score.update(one_hot(decided)[0], target[0])
    with pytest.raises(ValueError, match=r"1 classes.*preds\.unsqueeze\(1\) adds the channel dimension"):
        MultiLevelScore(1).update(decided > 0, target)
    volumes = torch.randint(0, 2, (3, CLASSES, 5, 5))
    MultiLevelScore(CLASSES).update(volumes, volumes)


def test_labels_of_as_many_rows_as_classes_are_no_one_hot_masks():
    rows = torch.tensor([[[0, 1, 0], [1, 0, 1]]])  # 1 image of 2 rows, each column of which holds 0 and 1
    masks = torch.stack([rows == 0, rows == 1], 1).long()
    score = MultiLevelScore(num_classes=2)
    score.update(rows, masks)
    score.update(rows[:0], rows[:0])
    assert score.compute()["dice_dataset"] == 1


def test_truth_in_floats_of_eight_bits_is_scored():
    rows = torch.tensor([[[0, 1, 0], [1, 1, 1]]])
    score = MultiLevelScore(num_classes=2)
    score.update(rows, rows.float().to(torch.float8_e4m3fn))
    assert score.compute()["dice_dataset"] == 1


def test_arrays_of_numpy_are_refused_with_the_way_to_make_tensors():
    ((probs, target),) = make(batches=1)
    array, labels = probs.numpy(), target.numpy()
    fitted = GlobalRankSEG(CLASSES, min_images=0, min_gain=0)
    fitted.update(probs)
    fitted.fit()
    for decoder in (RankSEG(), fitted, TunedDecoder(RankSEG(), CLASSES), TunedDecoder(fitted, CLASSES, 0.7)):
        with pytest.raises(TypeError, match=r"must be a torch\.Tensor, got ndarray: torch\.from_numpy\(probs\)"):
            decoder(array)
        with pytest.raises(TypeError, match=r"got list: torch\.as_tensor\(probs\) makes one"):
            decoder(array.tolist())
        if not isinstance(decoder, RankSEG):
            with pytest.raises(ValueError, match=r"probs\.unsqueeze\(0\) adds the batch dimension"):
                decoder(probs[0])
    with pytest.raises(TypeError, match=r"torch\.from_numpy\(labels\) makes one"):
        fitted.update(probs, labels)
    for wrapper in (RankSEGWrapper(MeanIoU(CLASSES)),):
        with pytest.raises(TypeError, match=r"torch\.from_numpy\(preds\) makes one"):
            wrapper.update(array, target)
        with pytest.raises(TypeError, match=r"torch\.from_numpy\(target\) makes one"):
            wrapper.update(probs, labels)
    decided = rankseg(probs)
    with pytest.raises(TypeError, match=r"torch\.from_numpy\(preds\) makes one"):
        MultiLevelScore(CLASSES).update(decided.numpy().astype(np.int64), target)
