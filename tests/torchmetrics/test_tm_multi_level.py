"""MultiLevelScore and its functional twin against plain loops, over several batches and processes."""

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")

import references
from torchmetrics import MetricCollection

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper, multi_level_score

CLASSES = 4
OPTIONS = dict(score=("dice", "iou"), worst=(0.05, 0.5))


def make(images=13, ignore=None, seed=0, classes=CLASSES, size=(6, 5)):
    """Labels with some classes absent from some images, and decisions that are often right."""
    generator = torch.Generator().manual_seed(seed)
    top = torch.randint(1, classes + 1, (images, 1, 1), generator=generator)
    target = (torch.rand(images, *size, generator=generator) * top).long()
    preds = torch.where(torch.rand(target.shape, generator=generator) < 0.7, target, (target + 1) % classes)
    if ignore is not None:
        target[torch.rand(target.shape, generator=generator) < 0.2] = ignore
    return preds, target


def expected_levels(preds, target, ignore=None, absent="skip", classes=CLASSES):
    predicted = references.masks_of(preds, classes, ignore, target)
    true = references.masks_of(target, classes, ignore)
    result, worst = {}, {}
    for score in OPTIONS["score"]:
        result |= references.levels(predicted, true, score, absent)
        for share, name in ((0.05, "5"), (0.5, "50")):
            lowest = references.worst(predicted, true, score, share, absent)
            worst |= {f"{score}_{level}_worst{name}": value for level, value in lowest.items()}
    return result, worst


def values(result):
    return {name: float(value) for name, value in result.items()}


@pytest.mark.parametrize("ignore", [None, 255, 1])
@pytest.mark.parametrize("absent", ["skip", "zero", "one"])
@pytest.mark.parametrize("batch_size", [1, 5, 13])
def test_class_and_function_against_plain_loops(ignore, absent, batch_size):
    preds, target = make(ignore=ignore)
    levels, worst = expected_levels(preds, target, ignore, absent)
    function = values(multi_level_score(preds, target, CLASSES, ignore_index=ignore, absent=absent, **OPTIONS))
    assert function == pytest.approx(levels | worst, abs=1e-12)
    metric = MultiLevelScore(CLASSES, ignore_index=ignore, absent=absent, **OPTIONS)
    for batch in zip(preds.split(batch_size), target.split(batch_size), strict=True):
        metric.update(*batch)
    result = values(metric.compute())
    assert list(result) == metric.names == list(function)
    assert {name: result[name] for name in levels} == pytest.approx(levels, abs=1e-12)
    for name in worst:
        assert result[name] == pytest.approx(worst[name], abs=1e-5 if "image" in name else 1e-3)


def test_forward_is_the_value_of_the_batch():
    metric, whole = MultiLevelScore(CLASSES, **OPTIONS), MultiLevelScore(CLASSES, **OPTIONS)
    preds, target = make()
    for batch in zip(preds.split(4), target.split(4), strict=True):
        alone, _ = expected_levels(*batch)
        step = values(metric(*batch))
        assert {name: step[name] for name in alone} == pytest.approx(alone, abs=1e-12)
        whole.update(*batch)
    assert values(metric.compute()) == pytest.approx(values(whole.compute()), abs=1e-15)


def test_the_state_does_not_grow():
    metric = MultiLevelScore(CLASSES, **OPTIONS)
    sizes = []
    for seed in range(3):
        metric.update(*make(seed=seed))
        # Tensors, not a pickle: its length depends on what happens to be the same object.
        sizes.append({name: (state.dtype, state.shape) for name, state in metric.metric_state.items()})
    assert sizes[0] == sizes[1] == sizes[2]
    assert not any(isinstance(state, list) for state in metric.metric_state.values())


@pytest.mark.parametrize("form", ["labels", "masks"])
@pytest.mark.parametrize("target_form", ["labels", "channel", "masks"])
def test_forms_of_prediction_and_truth(form, target_form):
    preds, target = make()
    levels, _ = expected_levels(preds, target)

    def masks(labels):
        return torch.stack([labels == c for c in range(CLASSES)], 1)

    given_preds = preds if form == "labels" else masks(preds)
    given_target = {"labels": target, "channel": target.unsqueeze(1), "masks": masks(target).float()}[target_form]
    result = values(multi_level_score(given_preds, given_target, CLASSES, score=("dice", "iou")))
    assert result == pytest.approx(levels, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("ignore", [None, 255])
def test_in_the_wrapper_from_half_and_single_precision(dtype, ignore):
    generator = torch.Generator().manual_seed(5)
    probs = (2 * torch.randn(9, CLASSES, 8, 8, generator=generator)).softmax(1).to(dtype)
    target = make(9, ignore, size=(8, 8))[1]
    wrapper = RankSEGWrapper(
        MultiLevelScore(CLASSES, score=("dice", "iou")), RankSEG(metric="iou"), ignore_index=ignore
    )
    for batch in zip(probs.split(4), target.split(4), strict=True):
        wrapper.update(*batch)
    levels, _ = expected_levels(rankseg(probs, metric="iou"), target, ignore)
    assert values(wrapper.compute()) == pytest.approx(levels, abs=1e-12)


@pytest.mark.parametrize("copied", [lambda m: m.clone(), lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_and_reset(copied):
    first, second = make(seed=1), make(seed=2)
    metric = MultiLevelScore(CLASSES, **OPTIONS)
    metric.update(*first)
    before = values(metric.compute())
    twin = copied(metric)
    twin.update(*second)
    assert values(metric.compute()) == before
    both = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    levels, _ = expected_levels(*both)
    result = values(twin.compute())
    assert {name: result[name] for name in levels} == pytest.approx(levels, abs=1e-12)
    metric.reset()
    metric.update(*first)
    assert values(metric.compute()) == before


def test_merge_state():
    first, second = make(seed=1), make(seed=2)
    metric, other = MultiLevelScore(CLASSES, **OPTIONS), MultiLevelScore(CLASSES, **OPTIONS)
    metric.update(*first)
    other.update(*second)
    metric.merge_state(other)
    levels, _ = expected_levels(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
    result = values(metric.compute())
    assert {name: result[name] for name in levels} == pytest.approx(levels, abs=1e-12)


def test_what_was_computed_is_forgotten_where_the_state_changes():
    right, wrong = torch.tensor([[0, 1, 1]]), torch.tensor([[1, 0, 0]])
    for through_dict in (False, True):
        metric, other = (MultiLevelScore(2, levels="image") for _ in range(2))
        metric.update(right, right)
        other.update(wrong, right)
        assert float(metric.compute()["dice_image"]) == 1.0
        metric.merge_state(other.metric_state if through_dict else other)
        assert float(metric.compute()["dice_image"]) == 0.5
        metric.persistent(True)
        other.persistent(True)
        assert float(other.compute()["dice_image"]) == 0.0
        other.load_state_dict(metric.state_dict())
        assert float(other.compute()["dice_image"]) == 0.5


@pytest.mark.filterwarnings("error")
def test_a_fresh_one_takes_over_the_images_of_another():
    metric, fresh = MultiLevelScore(CLASSES), MultiLevelScore(CLASSES)
    metric.update(*make())
    fresh.merge_state(metric)
    assert values(fresh.compute()) == values(metric.compute())
    assert fresh.update_count == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("num_classes", dict(num_classes=CLASSES + 1)),
        ("scores", dict(score="iou")),
        ("scores", dict(score=("iou", "dice"))),
        ("levels", dict(levels="image")),
        ("ignore_index", dict(ignore_index=255)),
        ("absent", dict(absent="zero")),
        ("worst", dict(worst=0.2)),
    ],
)
def test_sums_of_other_options_are_not_merged(name, options):
    metric, other = MultiLevelScore(CLASSES), MultiLevelScore(**{"num_classes": CLASSES, **options})
    for each in (metric, other):
        each.update(*make())
        each.persistent(True)
    before = values(metric.compute())
    with pytest.raises(ValueError, match=f"cannot be merged: {name} is"):
        metric.merge_state(other)
    if name not in ("levels", "worst"):  # of which the sums are a part, or the same
        with pytest.raises((ValueError, RuntimeError), match=r"cannot be added up|equal size"):
            metric.merge_state(other.metric_state)
        with pytest.raises(RuntimeError, match="the sums are of other options"):
            metric.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="must be the metric_state of a MultiLevelScore like this, lacks"):
        metric.merge_state({"intersection": metric.intersection})
    assert values(metric.compute()) == before


@pytest.mark.parametrize(
    "options", [dict(score="iou"), dict(absent="zero"), dict(ignore_index=255), dict(ignore_index=CLASSES - 1)]
)
def test_a_collection_keeps_apart_what_agrees_on_the_first_batch(options):
    """All is right there, in images that hold every class, so that all sums are the same."""
    everything = torch.arange(CLASSES).repeat(6)[None] if "ignore_index" not in options else torch.zeros(1, 24).long()
    preds, target = make(size=(4, 6))
    batches = [(everything, everything), (preds.flatten(1), target.flatten(1))]
    members = {"plain": MultiLevelScore(CLASSES), "other": MultiLevelScore(CLASSES, **options)}
    collection = MetricCollection({name: metric.clone() for name, metric in members.items()})
    for batch in batches:
        collection.update(*batch)
        for metric in members.values():
            metric.update(*batch)
    for name, metric in members.items():
        assert values(collection[name].compute()) == values(metric.compute())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_anything_to_score():
    metric = MultiLevelScore(CLASSES, worst=0.5, ignore_index=255)
    assert all(np.isnan(value) for value in values(metric.compute()).values())
    preds, target = make()
    metric.update(preds, torch.full_like(target, 255))
    metric.update(preds[:0], target[:0])
    assert all(np.isnan(value) for value in values(metric.compute()).values())
    metric.update(preds, target)
    levels, _ = expected_levels(preds, target)
    assert float(metric.compute()["dice_image"]) == pytest.approx(levels["dice_image"], abs=1e-12)


def test_plot():
    pytest.importorskip("matplotlib")
    metric = MultiLevelScore(CLASSES)
    history = [metric(*make(seed=seed)) for seed in range(3)]
    _, axes = metric.plot(history)
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines if not line.get_label().startswith("_")}
    assert lines == {name: [float(step[name]) for step in history] for name in metric.names}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(num_classes=2.0), TypeError, "num_classes must be an integer"),
        (dict(num_classes=0), ValueError, "num_classes must be at least 1"),
        (dict(score="f1"), ValueError, "score must be one of 'iou', 'dice'"),
        (dict(levels=("image", "image")), ValueError, "levels must name each choice once"),
        (dict(levels=("pixel",)), ValueError, "levels must be one of"),
        (dict(absent="nan"), ValueError, "absent must be one of"),
        (dict(worst=1.5), ValueError, r"worst must be a share in \(0, 1\], got 1\.5"),
        (dict(worst="5%"), TypeError, "worst must hold values of type int or float, got '5%'"),
        (dict(score=None), TypeError, "score must hold values of type str, got None"),
        (dict(ignore_index=255.0), TypeError, r"ignore_index must be an integer or None, got 255\.0"),
        (dict(levels="dataset", worst=0.5), ValueError, "worst needs the level 'image' or 'class'"),
    ],
)
def test_bad_options(options, error, message):
    options = {"num_classes": CLASSES, **options}
    with pytest.raises(error, match=message):
        MultiLevelScore(**options)
    with pytest.raises(error, match=message):
        multi_level_score(*make(), **options)


def test_bad_input():
    preds, target = make()
    for score in (MultiLevelScore(CLASSES).update, lambda p, t: multi_level_score(p, t, CLASSES)):
        with pytest.raises(TypeError, match="must be integer labels"):
            score(preds.float(), target)
        with pytest.raises(TypeError, match=r"got torch\.float32: decode probabilities first"):
            score(torch.full((len(preds), CLASSES, 6, 5), 0.25), target)
        with pytest.raises(TypeError, match=r"preds must be a torch\.Tensor, got list"):
            score(preds.tolist(), target)
        with pytest.raises(
            ValueError, match=r"target holds the label 4, allowed are 0 to 3 \(no ignore_index was given\)"
        ):
            score(preds, target.clamp(min=4))
        with pytest.raises(ValueError, match="target must be labels"):
            score(preds, target[:, :3])
