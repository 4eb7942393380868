"""RankSEGWrapper around the real metrics of TorchMetrics."""

import copy
import pickle

import pytest
import torch

pytest.importorskip("torchmetrics")

import references
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    BinaryJaccardIndex,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelF1Score,
    MultilabelJaccardIndex,
)
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, HausdorffDistance, MeanIoU
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper, MetricTracker

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper

CLASSES = 4


def make(batches=3, classes=CLASSES, size=(9, 7), ignore=None, seed=0, dtype=torch.float32):
    """Batches of smooth probabilities and labels drawn from them, a few pixels ignored."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(batches):
        logits = 2 * torch.randn(3, classes, *size, generator=generator)
        probs = logits.softmax(1).to(dtype)
        flat = probs.float().flatten(2).transpose(1, 2).reshape(-1, classes)
        labels = torch.multinomial(flat, 1, generator=generator).view(3, *size)
        if ignore is not None:
            labels[torch.rand(labels.shape, generator=generator) < 0.2] = ignore
        result.append((probs, labels))
    return result


def make_binary(ignore=None, seed=0):
    return [
        (p[:, 1:], torch.where(t == 255, 255, (t == 1).long())) for p, t in make(classes=2, ignore=ignore, seed=seed)
    ]


def run(metric, batches):
    for probs, target in batches:
        metric.update(probs, target)
    return metric.compute()


def one_hot(labels, classes=CLASSES):
    return torch.stack([labels == c for c in range(classes)], 1)


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
    metric = DiceScore(num_classes=CLASSES, input_format=input_format)
    reference = DiceScore(num_classes=CLASSES, input_format="index")
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
    for probs, target in batches:
        given = {"(B, H, W)": target, "(B, 1, H, W)": target.unsqueeze(1), "float": target.float()}[shape]
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
    for metric in (DiceScore(CLASSES), MeanIoU(CLASSES)):
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
    reference = DiceScore(CLASSES)
    for probs, target in batches:
        reference.update(one_hot(decoder(probs)), one_hot(target))
    assert any((decoder(probs) == 255).any() for probs, _ in batches)
    wrapper = RankSEGWrapper(DiceScore(CLASSES, input_format="index"), decoder)
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
        (dict(decoder="dice"), TypeError, "decoder must be a RankSEG"),
        (dict(activation="relu"), ValueError, "activation must be one of"),
        (dict(unknown=1), ValueError, "Unexpected keyword arguments: `unknown`"),
    ],
)
def test_bad_options(arguments, error, message):
    with pytest.raises(error, match=message):
        RankSEGWrapper(**{"metric": MeanIoU(CLASSES), **arguments})


def test_bad_input():
    ((probs, target),) = make(batches=1)
    wrapper = RankSEGWrapper(MeanIoU(CLASSES))
    with pytest.raises(TypeError, match="preds must be float"):
        wrapper.update(target, target)
    with pytest.raises(TypeError, match=r"target must be a torch\.Tensor"):
        wrapper.update(probs, target.tolist())
    with pytest.raises(ValueError, match=r"target must be labels \(B, 9, 7\) or masks \(B, 4, 9, 7\).*\(3, 9, 6\)"):
        wrapper.update(probs, target[..., :-1])
    with pytest.raises(ValueError, match="the same images, got 3 and 2"):
        wrapper.update(probs, target[:2])
    with pytest.raises(ValueError, match="target must hold whole numbers"):
        wrapper.update(probs, target + 0.5)
    with pytest.raises(ValueError, match="turn logits into probabilities"):
        wrapper.update(probs.log(), target)
    with pytest.raises(ValueError, match="MeanIoU was made for 4 classes, got probabilities of 5"):
        wrapper.update(torch.full((3, 5, 9, 7), 0.2), target)
    with pytest.raises(ValueError, match="BinaryF1Score scores one foreground class, got probabilities of 4"):
        RankSEGWrapper(BinaryF1Score()).update(probs, target)
    with pytest.raises(ValueError, match="MulticlassF1Score takes one label per pixel, the decoder gives 4 masks"):
        RankSEGWrapper(MulticlassF1Score(num_classes=4), RankSEG(output_mode="multilabel")).update(probs, target)
    with pytest.raises(ValueError, match=r"binary target must hold 0, 1 only, got 3"):
        RankSEGWrapper(BinaryF1Score(), RankSEG(output_mode="multilabel")).update(probs[:, :1], target.clamp(min=3))
    with pytest.raises(ValueError, match=r"target masks must hold 0, 1 only, got 7"):
        wrapper.update(probs, torch.full((3, 4, 9, 7), 7))
    assert wrapper.update_count == 0


# The rest of the Metric interface.


def test_keyword_update_and_forward():
    ((probs, target),) = make(batches=1)
    by_position, by_name = RankSEGWrapper(MeanIoU(CLASSES)), RankSEGWrapper(MeanIoU(CLASSES))
    by_position.update(probs, target)
    by_name.update(target=target, preds=probs)
    assert torch.equal(by_position.compute(), by_name.compute())
    assert torch.equal(by_name(preds=probs, target=target), by_position(probs, target))
    with pytest.raises(TypeError):
        by_name.update(probs, target, weight=probs)


def test_forward_gives_the_batch_and_adds_to_the_whole():
    batches = make()
    stepwise, whole = RankSEGWrapper(DiceScore(CLASSES)), RankSEGWrapper(DiceScore(CLASSES))
    for probs, target in batches:
        value = stepwise(probs, target)
        assert torch.equal(value, RankSEGWrapper(DiceScore(CLASSES))(probs, target))
    assert torch.equal(stepwise.compute(), run(whole, batches))


@pytest.mark.parametrize(
    "metric",
    [
        lambda: MeanIoU(CLASSES),
        lambda: DiceScore(CLASSES),
        lambda: MultiLevelScore(CLASSES, worst=0.5),
        lambda: ClasswiseWrapper(MeanIoU(CLASSES, per_class=True)),
        lambda: MetricCollection([MeanIoU(CLASSES), GeneralizedDiceScore(CLASSES)], prefix="val_"),
        lambda: MetricCollection({"iou": MeanIoU(CLASSES), "jaccard": MulticlassJaccardIndex(CLASSES)}),
    ],
)
def test_merge_state(metric):
    batches = make(batches=4)
    whole, first, second = (RankSEGWrapper(metric()) for _ in range(3))
    expected = run(whole, batches)
    run(first, batches[:2])
    run(second, batches[2:])
    from_dict = first.clone()
    if not isinstance(metric(), ClasswiseWrapper):
        from_dict.merge_state(second.metric_state)
        _assert_close(from_dict.compute(), expected)
    first.merge_state(second)
    _assert_close(first.compute(), expected)


def test_merge_state_of_bootstraps():
    batches = make(batches=2)
    torch.manual_seed(0)
    first, second = (RankSEGWrapper(BootStrapper(DiceScore(CLASSES), num_bootstraps=3, raw=True)) for _ in range(2))
    first.update(*batches[0])
    second.update(*batches[1])
    states = [[copy.deepcopy(m.metric_state) for m in w.wrapped_metric.metrics] for w in (first, second)]
    first.merge_state(second)
    for merged, mine, theirs in zip(first.wrapped_metric.metrics, *states, strict=True):
        assert sum(map(len, merged.numerator)) == sum(map(len, mine["numerator"] + theirs["numerator"]))


def test_merge_state_of_another_kind():
    with pytest.raises(ValueError, match="Expected incoming state to be an instance of MeanIoU"):
        RankSEGWrapper(MeanIoU(CLASSES)).merge_state(RankSEGWrapper(DiceScore(CLASSES)))
    with pytest.raises(ValueError, match="can only merge its like"):
        RankSEGWrapper(MetricCollection([MeanIoU(CLASSES)])).merge_state(RankSEGWrapper(MeanIoU(CLASSES)))


def test_higher_is_better():
    assert RankSEGWrapper(MeanIoU(CLASSES)).higher_is_better is True
    assert RankSEGWrapper(HausdorffDistance(CLASSES)).higher_is_better is False
    both = MetricCollection([MeanIoU(CLASSES), HausdorffDistance(CLASSES)])
    assert RankSEGWrapper(both).higher_is_better is None
    assert RankSEGWrapper(MetricCollection([MeanIoU(CLASSES), DiceScore(CLASSES)])).higher_is_better is True


def test_persistent_state_travels_in_state_dict():
    batches = make()
    wrapper = RankSEGWrapper(MetricCollection([MeanIoU(CLASSES), GeneralizedDiceScore(CLASSES)]))
    run(wrapper, batches)
    assert wrapper.state_dict() == {}
    wrapper.persistent(True)
    other = RankSEGWrapper(MetricCollection([MeanIoU(CLASSES), GeneralizedDiceScore(CLASSES)]))
    other.load_state_dict(wrapper.state_dict())
    for name, value in wrapper.compute().items():
        assert torch.equal(getattr(other.wrapped_metric, name).compute(), value)
    wrapper.persistent(False)
    assert wrapper.state_dict() == {}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_update_count_and_reset():
    batches = make()
    for wrapped in (MeanIoU(CLASSES), MetricCollection([MeanIoU(CLASSES), DiceScore(CLASSES)])):
        wrapper = RankSEGWrapper(wrapped)
        assert (wrapper.update_count, wrapper.update_called) == (0, False)
        run(wrapper, batches)
        assert (wrapper.update_count, wrapper.update_called) == (len(batches), True)
        wrapper.reset()
        assert (wrapper.update_count, wrapper.update_called) == (0, False)
    fresh, used = RankSEGWrapper(MeanIoU(CLASSES)), RankSEGWrapper(MeanIoU(CLASSES))
    run(used, batches)
    used.reset()
    assert torch.equal(run(used, batches[:1]), run(fresh, batches[:1]))


@pytest.mark.parametrize("copied", [lambda m: m.clone(), copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_their_own_way(copied):
    batches = make()
    original = RankSEGWrapper(MeanIoU(CLASSES), RankSEG(metric="iou", smooth=1.0), ignore_index=255)
    run(original, batches[:1])
    twin = copied(original)
    assert torch.equal(twin.compute(), original.compute())
    before = original.compute()
    run(twin, batches[1:])
    assert torch.equal(original.compute(), before)
    assert torch.equal(run(original, batches[1:]), twin.compute())
    assert (twin.update_count, repr(twin.decoder)) == (3, repr(original.decoder))


def test_moves_to_a_device_and_dtype():
    wrapper = RankSEGWrapper(MeanIoU(CLASSES)).to("meta")
    assert wrapper.device.type == "meta"
    assert wrapper.wrapped_metric.score.device.type == "meta"
    wrapper = RankSEGWrapper(MeanIoU(CLASSES))
    assert wrapper.half().wrapped_metric.score.dtype == torch.float32
    assert wrapper.set_dtype(torch.float64).wrapped_metric.score.dtype == torch.float64


def test_plot():
    plt = pytest.importorskip("matplotlib.pyplot")
    batches = make()
    wrapper = RankSEGWrapper(MeanIoU(CLASSES))
    values = [wrapper(*batch) for batch in batches]
    _, axes = wrapper.plot()
    assert axes.lines[0].get_ydata()[0] == pytest.approx(float(wrapper.compute()))
    _, axes = wrapper.plot(values)
    assert list(axes.lines[0].get_ydata()) == pytest.approx([float(v) for v in values])
    collection = RankSEGWrapper(MetricCollection([MeanIoU(CLASSES), MulticlassF1Score(CLASSES)]))
    run(collection, batches)
    assert len(collection.plot()) == 2
    assert len(collection.plot(together=True)) == 2
    plt.close("all")


# Inside and around other wrappers.


def test_a_collection_never_merges_the_wrapper_with_its_argmax_twin():
    """On the first batch both may agree; on the others they do not."""
    sure = torch.zeros(1, CLASSES, 4, 4)
    sure[:, 0] = 1.0
    batches = [(sure, torch.zeros(1, 4, 4, dtype=torch.long)), *make(seed=3)]
    collection = MetricCollection(
        {
            "rankseg": RankSEGWrapper(MeanIoU(CLASSES), RankSEG(metric="iou")),
            "argmax": RankSEGWrapper(MeanIoU(CLASSES), RankSEG(metric="acc")),
            "plain": MeanIoU(CLASSES),
        }
    )
    alone = {name: metric.clone() for name, metric in collection.items()}
    for probs, target in batches:
        collection.update(probs, one_hot(target))
        for metric in alone.values():
            metric.update(probs, one_hot(target))
    result = collection.compute()
    assert all(len(group) == 1 for group in collection.compute_groups.values())
    for name, metric in alone.items():
        assert torch.equal(result[name], metric.compute())
    assert torch.equal(result["argmax"], result["plain"])
    assert not torch.equal(result["rankseg"], result["plain"])


def test_a_collection_filters_keywords_by_the_wrapped_metric():
    ((probs, target),) = make(batches=1)
    collection = MetricCollection({"rankseg": RankSEGWrapper(MeanIoU(CLASSES))})
    result = collection(preds=probs, target=target, indexes=torch.zeros(3))
    assert torch.equal(result["rankseg"], RankSEGWrapper(MeanIoU(CLASSES))(probs, target))


# Same state as the macro-averaged one, another way to compute.
F1_MICRO = MulticlassF1Score(CLASSES, average="weighted")
MIXED = {
    "iou": lambda: MeanIoU(CLASSES),
    "dice": lambda: DiceScore(CLASSES, input_format="index"),
    "f1": lambda: MulticlassF1Score(CLASSES),
    "precise": lambda: MulticlassJaccardIndex(CLASSES),
}


@pytest.mark.parametrize("ignore", [None, 255])
def test_around_a_collection_it_decodes_once(ignore):
    batches = make(ignore=ignore)
    calls = []
    decoder = RankSEG(metric="iou")
    decoder.register_forward_hook(lambda *_: calls.append(1))
    collection = MetricCollection({name: metric() for name, metric in MIXED.items()}, prefix="val/", postfix="_x")
    result = run(RankSEGWrapper(collection, decoder, ignore_index=ignore), batches)
    assert len(calls) == len(batches)
    assert set(result) == {f"val/{name}_x" for name in MIXED}
    for name, metric in MIXED.items():
        alone = RankSEGWrapper(metric(), RankSEG(metric="iou"), ignore_index=ignore)
        assert torch.equal(result[f"val/{name}_x"], run(alone, batches))


def test_a_wrapped_collection_keeps_its_compute_groups():
    batches = make()
    wrapper = RankSEGWrapper(MetricCollection({"macro": MulticlassF1Score(CLASSES), "micro": F1_MICRO.clone()}))
    result = run(wrapper, batches)
    assert [len(group) for group in wrapper.wrapped_metric.compute_groups.values()] == [2]
    assert torch.equal(result["macro"], run(RankSEGWrapper(MulticlassF1Score(CLASSES)), batches))
    assert torch.equal(result["micro"], run(RankSEGWrapper(F1_MICRO.clone()), batches))


def test_given_groups_of_metrics_in_different_forms_are_refused():
    collection = MetricCollection(
        {name: metric() for name, metric in MIXED.items()}, compute_groups=[["iou", "dice", "f1", "precise"]]
    )
    with pytest.raises(ValueError, match="compute_groups=False"):
        RankSEGWrapper(collection)


def test_parts_in_different_forms_are_refused():
    with pytest.raises(ValueError, match="want predictions in different forms"):
        RankSEGWrapper(MeanIoU(CLASSES) + MulticlassF1Score(CLASSES))


def test_composition():
    batches = make()
    both = run(RankSEGWrapper(MeanIoU(CLASSES) + DiceScore(CLASSES)), batches)
    assert torch.equal(
        both, run(RankSEGWrapper(MeanIoU(CLASSES)), batches) + run(RankSEGWrapper(DiceScore(CLASSES)), batches)
    )


def test_metric_tracker():
    epochs = [make(seed=seed) for seed in range(3)]
    tracker = MetricTracker(RankSEGWrapper(MeanIoU(CLASSES)))
    values = []
    for batches in epochs:
        tracker.increment()
        for batch in batches:
            tracker.update(*batch)
        values.append(float(run(RankSEGWrapper(MeanIoU(CLASSES)), batches)))
    assert tracker.compute_all().tolist() == pytest.approx(values)
    best, step = tracker.best_metric(return_step=True)
    assert (best, step) == (pytest.approx(max(values)), values.index(max(values)))
    distance = MetricTracker(RankSEGWrapper(HausdorffDistance(CLASSES)))
    assert distance.maximize is False


def test_metric_tracker_of_a_collection():
    tracker = MetricTracker(MetricCollection({"a": RankSEGWrapper(MeanIoU(CLASSES))}))
    for seed in range(2):
        tracker.increment()
        for batch in make(seed=seed):
            tracker.update(*batch)
    assert tracker.best_metric()["a"] == max(tracker.compute_all()["a"].tolist())


@pytest.mark.parametrize("inside", [True, False])
def test_classwise(inside):
    batches = make()
    per_class = MeanIoU(CLASSES, per_class=True)
    if inside:
        metric = RankSEGWrapper(ClasswiseWrapper(per_class, prefix="iou_"))
    else:
        metric = ClasswiseWrapper(RankSEGWrapper(per_class), prefix="iou_")
    result = run(metric, batches)
    expected = run(RankSEGWrapper(MeanIoU(CLASSES, per_class=True)), batches)
    assert result.keys() == {f"iou_{c}" for c in range(CLASSES)}
    assert torch.equal(torch.stack(list(result.values())), expected)


@pytest.mark.parametrize("inside", [True, False])
def test_bootstrapper(inside):
    ((probs, target),) = make(batches=1)
    if inside:
        metric = RankSEGWrapper(BootStrapper(DiceScore(CLASSES), num_bootstraps=5, raw=True))
    else:
        metric = BootStrapper(RankSEGWrapper(DiceScore(CLASSES)), num_bootstraps=5, raw=True)
    torch.manual_seed(3)
    metric.update(probs, target)
    torch.manual_seed(3)
    expected = BootStrapper(DiceScore(CLASSES), num_bootstraps=5, raw=True)
    expected.update(one_hot(rankseg(probs)), one_hot(target))
    assert torch.equal(metric.compute()["raw"], expected.compute()["raw"])


def _assert_close(result, expected):
    if isinstance(expected, dict):
        assert result.keys() == expected.keys()
        for name in expected:
            _assert_close(result[name], expected[name])
    else:
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
