"""RankSEGWrapper around the real metrics of TorchMetrics."""

import copy
import inspect
import warnings
from contextlib import nullcontext

import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")

import references
from batches import CLASSES, make, make_binary, one_hot, run
from torchmetrics import Metric, MetricCollection, classification
from torchmetrics.classification import (
    BinaryAveragePrecision,
    BinaryF1Score,
    BinaryJaccardIndex,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelF1Score,
    MultilabelJaccardIndex,
    MultilabelRankingLoss,
)
from torchmetrics.segmentation import DiceScore, MeanIoU

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG, rankseg
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper
from rankseg_plugins.torchmetrics.presentation import OF_PROBABILITIES


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_scores_the_labels_of_the_plain_api(dtype):
    batches = make(dtype=dtype)
    wrapper = RankSEGWrapper(MeanIoU(num_classes=CLASSES, input_format="index"), RankSEG(metric="iou"))
    plain = MeanIoU(num_classes=CLASSES, input_format="index")
    for probs, target in batches:
        plain.update(rankseg(probs, metric="iou"), target)
    assert torch.equal(run(wrapper, batches), plain.compute())


@pytest.mark.parametrize("input_format", ["index", "one-hot", "mixed"])
def test_every_input_format_gives_the_same(input_format):
    batches = make()
    metric = DiceScore(num_classes=CLASSES, input_format=input_format, average="macro")
    reference = DiceScore(num_classes=CLASSES, input_format="index", average="macro")
    for probs, target in batches:
        reference.update(rankseg(probs), target)
    assert torch.equal(run(RankSEGWrapper(metric), batches), reference.compute())


def test_activation_turns_logits_into_probabilities():
    ((probs, target),) = make(batches=1)
    from_logits = RankSEGWrapper(MeanIoU(CLASSES), activation="softmax")(probs.double().log(), target)
    assert torch.equal(from_logits, RankSEGWrapper(MeanIoU(CLASSES))(probs.double(), target))


@pytest.mark.parametrize("input_format", ["index", "one-hot", "mixed"])
@pytest.mark.parametrize("ignore_index", [255, -1, 2])
def test_ignored_pixels_count_for_no_class(input_format, ignore_index):
    batches = make(ignore=ignore_index)
    metric = DiceScore(num_classes=CLASSES, average="none", aggregation_level="global", input_format=input_format)
    result = run(RankSEGWrapper(metric, RankSEG(), ignore_index=ignore_index), batches)
    predicted = torch.cat([rankseg(probs) for probs, _ in batches])
    true = torch.cat([target for _, target in batches])
    pred_masks = references.masks_of(predicted, CLASSES, ignore_index, truth=true)
    true_masks = references.masks_of(true, CLASSES, ignore_index)
    for c in range(CLASSES):
        both = (pred_masks[:, c] & true_masks[:, c]).sum()
        total = pred_masks[:, c].sum() + true_masks[:, c].sum()
        expected = 2 * both / total if total else float("nan")
        assert float(result[c]) == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_truth_does_not_reach_the_decision():
    """The pixels that the truth ignores still take part in the decision; only their score is left out."""
    ((probs, target),) = make(batches=1, ignore=255)
    seen = []
    decoder = RankSEG()
    decoder.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    RankSEGWrapper(MeanIoU(CLASSES), decoder, ignore_index=255).update(probs, target)
    assert len(seen) == 1
    assert torch.equal(seen[0], probs)


@pytest.mark.parametrize("cls", [MulticlassJaccardIndex, MulticlassF1Score, MulticlassConfusionMatrix])
def test_ignore_index_is_passed_through_to_metrics_that_have_one(cls):
    batches = make(ignore=255)
    own = cls(num_classes=CLASSES, ignore_index=255)
    for probs, target in batches:
        own.update(rankseg(probs), target)
    wrapper = RankSEGWrapper(cls(num_classes=CLASSES), ignore_index=255)
    assert torch.equal(run(wrapper, batches), own.compute())
    assert torch.equal(run(RankSEGWrapper(cls(num_classes=CLASSES, ignore_index=255)), batches), own.compute())


@pytest.mark.parametrize("form", [lambda metric: metric, lambda metric: MetricCollection([metric])])
def test_the_ignore_index_of_the_metric_is_enough(form):
    ((probs, target),) = make_binary(ignore=255)[:1]
    decoder = RankSEG(output_mode="multilabel")
    told = RankSEGWrapper(form(BinaryF1Score()), decoder, ignore_index=255)(probs, target)
    assert RankSEGWrapper(form(BinaryF1Score(ignore_index=255)), decoder)(probs, target) == told


def test_a_different_ignore_index_of_the_metric_is_an_error():
    with pytest.raises(ValueError, match=r"ignore_index=255 and the ignore_index=0 of MulticlassJaccardIndex differ"):
        RankSEGWrapper(MulticlassJaccardIndex(num_classes=CLASSES, ignore_index=0), ignore_index=255)


class CountPixels(Metric):
    """A metric of the user, neither segmentation nor classification."""

    full_state_update = False
    higher_is_better = False

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds, target):
        assert preds.shape == target.shape
        assert preds.dtype == torch.int64
        self.total = self.total + (preds != target).sum()

    def compute(self):
        return self.total


def test_a_metric_of_the_user():
    batches = make()
    assert run(RankSEGWrapper(CountPixels()), batches) == sum(int((rankseg(p) != t).sum()) for p, t in batches)
    with pytest.raises(ValueError, match="CountPixels has no ignore_index"):
        RankSEGWrapper(CountPixels(), ignore_index=255)


@pytest.mark.parametrize("ignore", [None, 255])
@pytest.mark.parametrize("shape", ["(B, H, W)", "(B, 1, H, W)", "float"])
@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        (lambda: MeanIoU(num_classes=2, per_class=True), lambda: MeanIoU(num_classes=2, per_class=True)),
        (lambda: DiceScore(num_classes=1), lambda: DiceScore(num_classes=1)),
        (BinaryJaccardIndex, BinaryJaccardIndex),
        (BinaryF1Score, BinaryF1Score),
        (lambda: MulticlassJaccardIndex(num_classes=2), lambda: MulticlassJaccardIndex(num_classes=2)),
    ],
)
def test_one_channel(metric, reference, shape, ignore):
    batches = make_binary(ignore)
    wrapper = RankSEGWrapper(metric(), RankSEG(output_mode="multilabel"), ignore_index=ignore)
    plain = reference()
    averaged = pytest.warns(UserWarning, match="2 classes on one channel averages the background in")
    for index, (probs, target) in enumerate(batches):
        given = {"(B, H, W)": target, "(B, 1, H, W)": target.unsqueeze(1), "float": target.float()}[shape]
        with averaged if isinstance(plain, MulticlassJaccardIndex) and index == 0 else nullcontext():
            wrapper.update(probs, given)
        decided, kept = rankseg(probs, output_mode="multilabel")[:, 0].long(), target != 255
        if hasattr(plain, "input_format"):
            classes = range(plain.num_classes) if plain.num_classes == 2 else [1]
            plain.update(*(torch.stack([(x == c) & kept for c in classes], 1) for x in (decided, target)))
        else:
            plain.ignore_index = ignore
            plain.update(decided, target)
    assert torch.equal(wrapper.compute(), plain.compute())


def test_multilabel_masks():
    generator = torch.Generator().manual_seed(1)
    probs = torch.rand(3, CLASSES, 8, 8, generator=generator)
    target = torch.rand(3, CLASSES, 8, 8, generator=generator) < probs
    decided = rankseg(probs, output_mode="multilabel")
    decoder = RankSEG(output_mode="multilabel")
    for metric in (DiceScore(CLASSES, average="macro"), MeanIoU(CLASSES)):
        plain = copy.deepcopy(metric)
        assert torch.equal(RankSEGWrapper(metric, decoder)(probs, target), plain(decided, target))
    for cls in (MultilabelF1Score, MultilabelJaccardIndex):
        expected = cls(num_labels=CLASSES)(decided.long(), target.long())
        assert torch.equal(RankSEGWrapper(cls(num_labels=CLASSES), decoder)(probs, target.int()), expected)


def test_multilabel_metric_on_labels_passes_ignored_pixels_through():
    batches = make(ignore=255)
    own = MultilabelF1Score(num_labels=CLASSES, ignore_index=255)
    for probs, target in batches:
        true = one_hot(target).long().masked_fill((target == 255).unsqueeze(1), 255)
        own.update(one_hot(rankseg(probs)).long(), true)
    wrapper = RankSEGWrapper(MultilabelF1Score(num_labels=CLASSES), ignore_index=255)
    assert torch.equal(run(wrapper, batches), own.compute())


def test_void_predictions_belong_to_no_class():
    batches = make()
    decoder = RankSEG(unassigned_policy="void")
    reference = DiceScore(CLASSES, average="macro")
    for probs, target in batches:
        reference.update(one_hot(decoder(probs)), one_hot(target))
    assert any((decoder(probs) == 255).any() for probs, _ in batches)
    wrapper = RankSEGWrapper(DiceScore(CLASSES, input_format="index", average="macro"), decoder)
    assert torch.equal(run(wrapper, batches), reference.compute())
    with pytest.raises(ValueError, match="MulticlassF1Score needs a class for every pixel"):
        RankSEGWrapper(MulticlassF1Score(num_classes=CLASSES), decoder)


@pytest.mark.parametrize("size", [(11,), (4, 5, 6)])
def test_one_and_three_spatial_dimensions(size):
    batches = make(size=size, ignore=255)
    predicted = references.masks_of(
        torch.cat([rankseg(p) for p, _ in batches]), CLASSES, 255, torch.cat([t for _, t in batches])
    )
    true = references.masks_of(torch.cat([t for _, t in batches]), CLASSES, 255)
    expected = references.levels(predicted, true, "dice")
    result = run(RankSEGWrapper(MultiLevelScore(CLASSES, ignore_index=255), ignore_index=255), batches)
    assert {name: float(value) for name, value in result.items()} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(metric="dice"), TypeError, "wrapped metric"),
        (dict(decoder="dice"), FileNotFoundError, "decoder='dice': no such file; decoder must be a RankSEG"),
        (dict(decoder=3), TypeError, "decoder must be a RankSEG"),
        (dict(decoder=RankSEG), TypeError, r"decoder must be an object, got the class RankSEG: write RankSEG\(...\)"),
        (dict(metric=RankSEGWrapper(MeanIoU(CLASSES))), ValueError, "metric holds a RankSEGWrapper already"),
        (dict(ignore_index="255"), TypeError, "ignore_index must be an integer or None, got '255'"),
        (dict(activation="relu"), ValueError, "activation must be one of"),
        (dict(metric=MetricCollection([])), ValueError, "metric is a MetricCollection without any metric"),
        (dict(unknown=1), ValueError, "Unexpected keyword arguments: `unknown`"),
    ],
)
def test_bad_options(arguments, error, message):
    with pytest.raises(error, match=message):
        RankSEGWrapper(**{"metric": MeanIoU(CLASSES), **arguments})


def test_bad_input():
    ((probs, target),) = make(batches=1)
    wrapper = RankSEGWrapper(MeanIoU(CLASSES))
    with pytest.raises(
        TypeError, match=r"preds must be floating point, got torch\.int64: decided labels go to the metric itself"
    ):
        wrapper.update(target, target)
    with pytest.raises(TypeError, match=r"target must be a torch\.Tensor"):
        wrapper.update(probs, target.tolist())
    with pytest.raises(ValueError, match=r"target must be labels \(B, 9, 7\) or masks \(B, 4, 9, 7\).*\(3, 9, 6\)"):
        wrapper.update(probs, target[..., :-1])
    with pytest.raises(ValueError, match="the same images, got 3 and 2"):
        wrapper.update(probs, target[:2])
    for given in (target + 0.5, target * torch.nan, target.cfloat()):
        with pytest.raises(ValueError, match="target must hold whole numbers"):
            wrapper.update(probs, given)
    with pytest.raises(ValueError, match=r"turn logits into probabilities first .* activation='softmax'"):
        wrapper.update(probs.log(), target)
    with pytest.raises(ValueError, match="MeanIoU was made for 4 classes, got probabilities of 5"):
        wrapper.update(torch.full((3, 5, 9, 7), 0.2), target)
    with pytest.raises(ValueError, match="BinaryF1Score scores one foreground class, got probabilities of 4"):
        RankSEGWrapper(BinaryF1Score()).update(probs, target)
    with pytest.raises(ValueError, match="MulticlassF1Score takes one label per pixel, the decoder gives 4 masks"):
        RankSEGWrapper(MulticlassF1Score(num_classes=4), RankSEG(output_mode="multilabel")).update(probs, target)
    with pytest.raises(ValueError, match=r"target holds the label 3, allowed are 0 to 1 \(no ignore_index was given\)"):
        RankSEGWrapper(BinaryF1Score(), RankSEG(output_mode="multilabel")).update(probs[:, :1], target.clamp(min=3))
    with pytest.raises(ValueError, match="target masks must hold 0 and 1 only, got 7"):
        wrapper.update(probs, torch.full((3, 4, 9, 7), 7))
    unknown = target.masked_fill(target == 1, 255)
    for metric in (MeanIoU(CLASSES), MeanIoU(CLASSES, input_format="index"), MulticlassJaccardIndex(CLASSES)):
        with pytest.raises(ValueError, match=r"target holds the label 255, allowed are 0 to 3 \(no ignore_index"):
            RankSEGWrapper(metric).update(probs, unknown)
    assert wrapper.update_count == 0


@pytest.mark.parametrize(
    "metric", [MulticlassAUROC(3), MulticlassCalibrationError(3), BinaryAveragePrecision(), MultilabelRankingLoss(3)]
)
def test_metrics_of_probabilities_are_refused(metric):
    name = type(metric).__name__
    for wrapped in (metric, MetricCollection([MeanIoU(3), metric])):
        with pytest.raises(ValueError, match=f"{name} scores probabilities, and a decision has none"):
            RankSEGWrapper(wrapped)


def test_every_metric_of_probabilities_is_known():
    """Whatever TorchMetrics calls by a name that speaks of scores or thresholds."""
    words = ("auroc", "precisionrecallcurve", "roc", "averageprecision", "calibration", "hinge", "ranking", "atfixed")
    words += ("coverage", "logauc")
    for name in dir(classification):
        cls = getattr(classification, name)
        if name.startswith(("Binary", "Multiclass", "Multilabel")):
            of_thresholds = "thresholds" in inspect.signature(cls.__init__).parameters
            if of_thresholds or any(word in name.lower() for word in words):
                assert issubclass(cls, OF_PROBABILITIES), name


@pytest.mark.parametrize(
    "decoder",
    [RankSEG("iou", pruning_prob=0.2), PresenceRankSEG(CLASSES, frequencies=[0.9, 0.1, 0.9, 0.1])],
    ids=["samplewise", "presence"],
)
def test_a_tuned_decoder_is_read_from_its_file(tmp_path, decoder):
    tuned = TunedDecoder(decoder, CLASSES, 0.7)
    tuned.save(tmp_path / "decoder.json")
    batches = make(ignore=255)
    plain = MulticlassJaccardIndex(CLASSES, ignore_index=255)
    for probs, target in batches:
        plain.update(tuned(probs), target)
    for path in (tmp_path / "decoder.json", str(tmp_path / "decoder.json")):
        wrapper = RankSEGWrapper(MulticlassJaccardIndex(CLASSES), path, ignore_index=255)
        assert torch.equal(run(wrapper, batches), plain.compute())


def test_void_pixels_of_a_tuned_decoder_are_known():
    void = TunedDecoder(RankSEG(unassigned_policy="void"), CLASSES)
    with pytest.raises(ValueError, match="needs a class for every pixel"):
        RankSEGWrapper(MulticlassF1Score(CLASSES), void)
    fitted = GlobalRankSEG(CLASSES, min_gain=0)
    for probs, _ in make():
        fitted.update(probs)
    fitted.fit()
    for decoder in (void.decoder, fitted):
        tuned = TunedDecoder(decoder, CLASSES)
        assert tuned.void_index == decoder.void_index
        assert (tuned.unassigned_policy == "void") == (decoder is void.decoder)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_tuned_decoder_of_other_classes_is_refused(tmp_path, temperature):
    TunedDecoder(RankSEG(), CLASSES + 1, temperature).save(tmp_path / "decoder.json")
    wrapper = RankSEGWrapper(MultiLevelScore(CLASSES), tmp_path / "decoder.json")
    with pytest.raises(ValueError, match=f"must have {CLASSES + 1} classes, got shape"):
        wrapper.update(*make(batches=1)[0])


def test_probabilities_softened_twice_are_warned_of_once():
    def said(wrapper, batches):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for probs, target in batches:
                wrapper.update(probs[:0], target[:0])
                wrapper.update(probs, target)
            wrapper.reset()
            wrapper(*batches[0])
        return [str(each.message) for each in caught if "twice" in str(each.message)]

    batches = make()
    assert said(RankSEGWrapper(MultiLevelScore(CLASSES)), batches) == []
    softened = [(probs.softmax(1), target) for probs, target in batches]
    assert len(said(RankSEGWrapper(MultiLevelScore(CLASSES)), softened)) == 1
    # The likely cause: probabilities, and an activation as if they were logits.
    assert len(said(RankSEGWrapper(MultiLevelScore(CLASSES), activation="softmax"), batches)) == 1
    binary = [(probs[:, 1:2].sigmoid(), target == 1) for probs, target in batches]
    assert len(said(RankSEGWrapper(MultiLevelScore(1), RankSEG(output_mode="multilabel")), binary)) == 1


def test_checkpoints_fit_whatever_the_decoder():
    """A module with a tuned decoder in it loads what was saved with another, and goes on deciding by its own."""
    fitted = GlobalRankSEG(CLASSES, min_gain=0)
    for probs, _ in make():
        fitted.update(probs)
    fitted.fit()
    decoders = [RankSEG(), *(TunedDecoder(each, CLASSES, t) for each in (RankSEG(), fitted) for t in (0.7, 1.4))]
    batches = make()
    for decoder in decoders:
        module = torch.nn.ModuleDict({"m": RankSEGWrapper(MultiLevelScore(CLASSES), decoder)})
        expected = run(RankSEGWrapper(MultiLevelScore(CLASSES), decoder), batches)
        for other in decoders:
            state = torch.nn.ModuleDict({"m": RankSEGWrapper(MultiLevelScore(CLASSES), other)}).state_dict()
            assert not state
            module.load_state_dict(state)
        assert run(module.half()["m"], batches) == expected
