"""Boundaries and lesions as a metric: against MONAI, and against loops over images and classes."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from rankseg_plugins import RankSEG
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.extra import columns_of
from rankseg_plugins.scores.lesions import Lesions, count_lesions
from rankseg_plugins.torchmetrics import ExtraScores, RankSEGWrapper

CLASSES, IGNORE = 3, 255
BOTH = (Boundaries((1, 2)), Lesions())


def labels(images=4, size=(12, 14), seed=0):
    """Decisions and truths of large pieces; the last class is in every other image."""
    generator = torch.Generator().manual_seed(seed)
    grid = [-(-length // 4) for length in size]
    found = []
    for index in range(images):
        coarse = torch.randint(0, 2 + index % 2, grid, generator=generator)
        for axis in range(len(size)):
            coarse = coarse.repeat_interleave(4, axis)
        truth = coarse[tuple(slice(length) for length in size)]
        noise = torch.rand(size, generator=generator) < 0.2
        found.append((truth.where(~noise, torch.randint(0, CLASSES, size, generator=generator)), truth))
    return [torch.stack(each) for each in zip(*found, strict=True)]


# MONAI calls its own functions with deprecated arguments.
@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class")
def test_figures_are_those_of_monai():
    """One test, as the import takes longest."""
    metrics = pytest.importorskip("monai.metrics")
    for size, spacing in (((12, 14), (1.0, 1.0)), ((12, 14), (0.75, 2.5)), ((6, 8, 9), (0.75, 2.5, 1.25))):
        preds, target = labels(size=size)
        ours = ExtraScores(Boundaries(1.5, "mm"), CLASSES, spacing=spacing)
        ours.update(preds, target)
        masks = [torch.stack([each == label for label in range(CLASSES)], 1) for each in (preds, target)]
        background = {"include_background": True}
        theirs = {
            "nsd_1.5mm": metrics.SurfaceDiceMetric([1.5] * CLASSES, reduction="none", **background),
            "hd95_mm": metrics.HausdorffDistanceMetric(percentile=95, reduction="none", **background),
            "assd_mm": metrics.SurfaceDistanceMetric(symmetric=True, reduction="none", **background),
        }
        found = ours.compute()
        for name, metric in theirs.items():
            metric(*masks, spacing=spacing)
            table = metric.aggregate().double()
            table = table.where(table.isfinite(), torch.nan)  # a distance to nothing
            torch.testing.assert_close(found[f"{name}_image"], table.nanmean(1).nanmean(), rtol=1e-5, atol=0)
            torch.testing.assert_close(found[f"{name}_class"], table.nanmean(0).nanmean(), rtol=1e-5, atol=0)


def expected(preds, target, extra, present, absent):
    """Both levels of all figures, by loops."""
    columns = columns_of(extra)
    table = np.full((len(columns), len(preds), CLASSES), np.nan)
    for (image, label), _ in np.ndenumerate(table[0]):
        kept = target[image] != IGNORE
        ours, theirs = ((each[image] == label) & kept for each in (preds, target))
        counts = bool(theirs.any() or (present == "union" and ours.any()))
        figures = [figure for score in extra for figure in score.measure(ours.numpy(), theirs.numpy())]
        for row, (column, figure) in enumerate(zip(columns, figures, strict=True)):
            if column.is_share:
                fill = {"skip": np.nan, "zero": 0, "one": 1}[absent]
                table[row, image, label] = np.nan_to_num(figure) if counts else fill
            elif counts and np.isfinite(figure):
                table[row, image, label] = figure
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(RuntimeWarning)
        images, classes = np.nanmean(np.nanmean(table, 2), 1), np.nanmean(np.nanmean(table, 1), 1)
    return {
        f"{column.name}_{level}": pytest.approx(values[row], abs=1e-12, nan_ok=True)
        for row, column in enumerate(columns)
        for level, values in (("image", images), ("class", classes))
    }


@pytest.mark.parametrize("present", ["union", "label"])
@pytest.mark.parametrize("absent", ["skip", "zero", "one"])
def test_levels_against_loops(present, absent):
    preds, target = labels()
    target[:, :2, 3:7] = IGNORE
    metric = ExtraScores(BOTH, CLASSES, IGNORE, present, absent)
    for batch in ([0], [1, 2, 3]):
        metric.update(preds[batch], target[batch])
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == expected(preds, target, BOTH, present, absent)
    other = ExtraScores(BOTH, CLASSES, IGNORE, present, absent)
    other.update(preds[3:], target[3:])
    merged = ExtraScores(BOTH, CLASSES, IGNORE, present, absent)
    merged.update(preds[:3], target[:3])
    merged.merge_state(other)
    assert {name: value.item() for name, value in merged.compute().items()} == expected(
        preds, target, BOTH, present, absent
    )


def test_a_single_channel_and_a_wrapper():
    _, target = labels()
    target = (target == 1).long()
    probs = (0.2 + 0.6 * target + 0.2 * torch.rand(target.shape, generator=torch.Generator().manual_seed(3)))[:, None]
    metric = RankSEGWrapper(ExtraScores(Lesions(0.5), 1), RankSEG("dice", output_mode="multilabel"), "identity")
    found = metric(probs, target)
    decided = RankSEG("dice", output_mode="multilabel")(probs)[:, 0]
    f1 = [count_lesions(*(each.bool().numpy() for each in both), 0.5).f1 for both in zip(decided, target, strict=True)]
    assert found["lesion_f1_image"].item() == pytest.approx(np.nanmean(f1))


def test_spacing_of_a_batch():
    preds, target = labels(images=1)
    metric = ExtraScores(Boundaries(2, "mm"), CLASSES, spacing=(1, 3))
    plain = metric(preds, target)
    assert metric(preds, target, spacing=(2, 6))["assd_mm_image"] == pytest.approx(2 * plain["assd_mm_image"].item())
    with pytest.raises(ValueError, match="boundaries in mm need the spacing"):
        ExtraScores(Boundaries(2, "mm"), CLASSES).update(preds, target)


def test_no_image():
    metric = ExtraScores(BOTH, CLASSES)
    metric.update(*(torch.zeros(0, 4, 4, dtype=torch.long) for _ in range(2)))
    assert all(value.isnan() for value in metric.compute().values())


def test_sums_of_other_options_stay_apart():
    one, other = ExtraScores(Lesions(), CLASSES), ExtraScores(Lesions(0.5), CLASSES)
    with pytest.raises(ValueError, match="sums of other options cannot be merged: extra is"):
        one.merge_state(other)
    with pytest.raises(ValueError, match="must be the metric_state of a ExtraScores like this, lacks"):
        one.merge_state({})
    one.persistent(True), other.persistent(True)
    with pytest.raises(RuntimeError, match="ExtraScores: the sums are of other options"):
        one.load_state_dict(other.state_dict())
    collection = MetricCollection({"one": one, "other": other})
    preds, target = labels()
    collection.update(preds, target)
    assert len(collection.compute_groups) == 2
    copied = pickle.loads(pickle.dumps(copy.deepcopy(one)))
    assert copied.compute() == one.compute()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"extra": ()}, ValueError, "extra must hold at least one score, got none"),
        ({"extra": "nsd"}, TypeError, "extra must hold values of type ExtraScore, got 'nsd'"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"present": "both"}, ValueError, "present must be one of"),
        ({"absent": "nan"}, ValueError, "absent must be one of"),
        ({"spacing": (1, -1)}, ValueError, "spacing must be finite numbers above 0"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index must be an integer"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        ExtraScores(**{"extra": Lesions(), "num_classes": 2, **options})
