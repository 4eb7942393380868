"""RankSEGWrapper is a whole Metric, also inside and around other wrappers of TorchMetrics."""

import copy
import pickle

import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")

from batches import CLASSES, make, one_hot, run
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassF1Score,
    MulticlassJaccardIndex,
)
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, HausdorffDistance, MeanIoU
from torchmetrics.wrappers import (
    BootStrapper,
    ClasswiseWrapper,
    MetricTracker,
    MinMaxMetric,
    MultioutputWrapper,
    Running,
)

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper


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
    stepwise, whole = (
        RankSEGWrapper(DiceScore(CLASSES, average="macro")),
        RankSEGWrapper(DiceScore(CLASSES, average="macro")),
    )
    for probs, target in batches:
        value = stepwise(probs, target)
        assert torch.equal(value, RankSEGWrapper(DiceScore(CLASSES, average="macro"))(probs, target))
    assert torch.equal(stepwise.compute(), run(whole, batches))


@pytest.mark.parametrize(
    "metric",
    [
        lambda: MeanIoU(CLASSES),
        lambda: DiceScore(CLASSES, average="macro"),
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
    first, second = (
        RankSEGWrapper(BootStrapper(DiceScore(CLASSES, average="macro"), num_bootstraps=3, raw=True)) for _ in range(2)
    )
    first.update(*batches[0])
    second.update(*batches[1])
    states = [[copy.deepcopy(m.metric_state) for m in w.wrapped_metric.metrics] for w in (first, second)]
    first.merge_state(second)
    for merged, mine, theirs in zip(first.wrapped_metric.metrics, *states, strict=True):
        assert sum(map(len, merged.numerator)) == sum(map(len, mine["numerator"] + theirs["numerator"]))


def test_merge_state_of_another_kind():
    with pytest.raises(ValueError, match="Expected incoming state to be an instance of MeanIoU"):
        RankSEGWrapper(MeanIoU(CLASSES)).merge_state(RankSEGWrapper(DiceScore(CLASSES, average="macro")))
    with pytest.raises(ValueError, match="can only merge its like"):
        RankSEGWrapper(MetricCollection([MeanIoU(CLASSES)])).merge_state(RankSEGWrapper(MeanIoU(CLASSES)))


@pytest.mark.parametrize(
    "other", [dict(decoder=RankSEG("acc")), dict(activation="softmax"), dict(ignore_index=255), dict()]
)
def test_only_what_was_decided_alike_is_merged(other):
    first, second = RankSEGWrapper(MeanIoU(CLASSES)), RankSEGWrapper(MeanIoU(CLASSES), **other)
    if not other:
        first.merge_state(second)
        return
    with pytest.raises(ValueError, match=f"only what was decided alike can be merged: {next(iter(other))} is"):
        first.merge_state(second)


def test_what_was_computed_is_forgotten_where_a_state_is_loaded():
    first, second = (RankSEGWrapper(MeanIoU(CLASSES)) for _ in range(2))
    for each, seed in ((first, 1), (second, 2)):
        each.persistent(True)
        run(each, make(seed=seed))
    assert first.compute() != second.compute()
    first.load_state_dict(second.state_dict())
    assert first.compute() == second.compute()


def test_higher_is_better():
    assert RankSEGWrapper(MeanIoU(CLASSES)).higher_is_better is True
    assert RankSEGWrapper(HausdorffDistance(CLASSES)).higher_is_better is False
    both = MetricCollection([MeanIoU(CLASSES), HausdorffDistance(CLASSES)])
    assert RankSEGWrapper(both).higher_is_better is None
    assert (
        RankSEGWrapper(MetricCollection([MeanIoU(CLASSES), DiceScore(CLASSES, average="macro")])).higher_is_better
        is True
    )


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
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
    for wrapped in (MeanIoU(CLASSES), MetricCollection([MeanIoU(CLASSES), DiceScore(CLASSES, average="macro")])):
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
            "rankseg": RankSEGWrapper(MulticlassJaccardIndex(CLASSES), RankSEG(metric="iou")),
            "argmax": RankSEGWrapper(MulticlassJaccardIndex(CLASSES), RankSEG(metric="acc")),
            "plain": MulticlassJaccardIndex(CLASSES),
        }
    )
    alone = {name: metric.clone() for name, metric in collection.items()}
    for probs, target in batches:
        collection.update(probs, target)
        for metric in alone.values():
            metric.update(probs, target)
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
    "dice": lambda: DiceScore(CLASSES, input_format="index", average="macro"),
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
    both = run(RankSEGWrapper(MeanIoU(CLASSES) + DiceScore(CLASSES, average="macro")), batches)
    assert torch.equal(
        both,
        run(RankSEGWrapper(MeanIoU(CLASSES)), batches)
        + run(RankSEGWrapper(DiceScore(CLASSES, average="macro")), batches),
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


def test_metric_tracker_of_a_wrapped_collection():
    """It needs a collection around what gives several values; the page says so."""
    scores = MetricCollection([MeanIoU(CLASSES), GeneralizedDiceScore(CLASSES)])
    tracker = MetricTracker(MetricCollection([RankSEGWrapper(scores.clone())]), maximize=True)
    expected = []
    for seed in range(3):
        tracker.increment()
        for batch in make(seed=seed):
            tracker.update(*batch)
        expected.append(run(RankSEGWrapper(scores.clone()), make(seed=seed)))
    best, step = tracker.best_metric(return_step=True)
    for name in scores:
        values = [float(each[name]) for each in expected]
        assert (best[name], step[name]) == (max(values), values.index(max(values)))


def test_running():
    with pytest.raises(ValueError, match=r"Running cannot look into RankSEGWrapper: write RankSEGWrapper\(Running"):
        Running(RankSEGWrapper(MeanIoU(CLASSES)), window=2)
    batches = make()
    inside = RankSEGWrapper(Running(MeanIoU(CLASSES), window=2))
    for batch in batches:
        inside.update(*batch)
    torch.testing.assert_close(inside.compute(), run(RankSEGWrapper(MeanIoU(CLASSES)), batches[-2:]))


@pytest.mark.parametrize("inside", [True, False])
def test_minimum_and_maximum(inside):
    metric = (
        RankSEGWrapper(MinMaxMetric(MeanIoU(CLASSES))) if inside else MinMaxMetric(RankSEGWrapper(MeanIoU(CLASSES)))
    )
    so_far, values = RankSEGWrapper(MeanIoU(CLASSES)), []
    for batch in make():
        for each in (metric, so_far):
            each.update(*batch)
        values.append(so_far.compute())
        assert metric.compute() == {"raw": values[-1], "max": max(values), "min": min(values)}


def test_several_outputs():
    batches = make()
    both = [
        (torch.stack([probs, probs.roll(1, 0)], -1), torch.stack([target, target], -1)) for probs, target in batches
    ]
    metric = MultioutputWrapper(RankSEGWrapper(MeanIoU(CLASSES)), num_outputs=2)
    expected = [run(RankSEGWrapper(MeanIoU(CLASSES)), batches)]
    expected.append(run(RankSEGWrapper(MeanIoU(CLASSES)), [(probs.roll(1, 0), target) for probs, target in batches]))
    assert torch.equal(run(metric, both), torch.stack(expected))


def test_clone_takes_a_prefix_for_a_collection():
    batches = make()
    wrapper = RankSEGWrapper(MetricCollection([MeanIoU(CLASSES)]), RankSEG("iou"))
    twin = wrapper.clone(prefix="val/", postfix="_x")
    assert run(twin, batches) == {"val/MeanIoU_x": run(wrapper, batches)["MeanIoU"]}
    with pytest.raises(ValueError, match="prefix and postfix are for collections, this wraps MeanIoU"):
        RankSEGWrapper(MeanIoU(CLASSES)).clone(prefix="val/")


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
        metric = RankSEGWrapper(BootStrapper(DiceScore(CLASSES, average="macro"), num_bootstraps=5, raw=True))
    else:
        metric = BootStrapper(RankSEGWrapper(DiceScore(CLASSES, average="macro")), num_bootstraps=5, raw=True)
    torch.manual_seed(3)
    metric.update(probs, target)
    torch.manual_seed(3)
    expected = BootStrapper(DiceScore(CLASSES, average="macro"), num_bootstraps=5, raw=True)
    expected.update(one_hot(rankseg(probs)), one_hot(target))
    assert torch.equal(metric.compute()["raw"], expected.compute()["raw"])


def _assert_close(result, expected):
    if isinstance(expected, dict):
        assert result.keys() == expected.keys()
        for name in expected:
            _assert_close(result[name], expected[name])
    else:
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
