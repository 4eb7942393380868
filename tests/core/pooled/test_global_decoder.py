"""Decisions for a whole data set, against enumeration and measured counts."""

import itertools

import numpy as np
import pytest
import torch
from pooling import FREE, fitted, network

from rankseg_plugins import GlobalRankSEG
from rankseg_plugins.core.fits.reservoir import Reservoir
from rankseg_plugins.scores.areas import areas
from rankseg_plugins.scores.levels import SCORES, dataset_level


def expected_score(probs, labels, metric):
    """Pooled expected score, mean over classes, in numpy float64."""
    p, decided = probs.movedim(1, -1).flatten(0, 1).double().numpy(), labels.flatten().numpy()
    scores = []
    for c in range(p.shape[1]):
        hits, total = p[decided == c, c].sum(), (decided == c).sum() + p[:, c].sum()
        scores.append(hits / (total - hits) if metric == "iou" else 2 * hits / total)
    return np.mean(scores)


@pytest.mark.parametrize("metric", ["iou", "dice"])
def test_two_classes_reach_the_best_of_all_thresholds(metric):
    probs, _ = network(classes=2, images=1, pixels=60)
    thresholds = [0, *probs[0, 1].tolist()]
    best = max(expected_score(probs, (probs[:, 1] > t).long(), metric) for t in thresholds)
    decoder, found = fitted(probs, metric=metric, **FREE)
    assert found.after == pytest.approx(best, abs=1e-3)
    assert found.after > found.before + 0.001
    assert expected_score(probs, decoder(probs), metric) == pytest.approx(found.after, abs=1e-6)
    assert expected_score(probs, probs.argmax(1), metric) == pytest.approx(found.before, abs=1e-6)


@pytest.mark.parametrize("metric", ["iou", "dice"])
def test_masks_are_the_best_of_all_masks(metric):
    generator = torch.Generator().manual_seed(3)
    probs = torch.rand(2, 2, 5, generator=generator) ** 2
    decoder, _ = fitted(probs, metric=metric, output_mode="multilabel", **FREE)
    decided = decoder(probs)
    for c in range(2):
        p = probs[:, c].flatten().double().numpy()

        def score(mask, p=p):
            hits, total = p[mask].sum(), mask.sum() + p.sum()
            return hits / (total - hits) if metric == "iou" else 2 * hits / total

        best = max(score(np.array(mask)) for mask in itertools.product([False, True], repeat=len(p)))
        assert score(decided[:, c].flatten().numpy()) == pytest.approx(best, abs=1e-6)


def test_one_channel():
    probs = torch.tensor([[[0.9, 0.45, 0.4, 0.1]]])
    decoder, found = fitted(probs, output_mode="multilabel", **FREE)
    assert decoder(probs).tolist() == [[[True, True, True, False]]]  # 2 * 1.75 / (3 + 1.85) beats every other volume
    assert found.before < found.after
    labels = torch.tensor([[1, 0, 0, 0]])
    assert fitted(probs, labels, output_mode="multilabel", **FREE)[0](probs).tolist() == [[[True, False, False, False]]]


@pytest.mark.parametrize("metric", ["iou", "dice"])
@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
def test_labels_give_the_measured_scores(metric, output_mode):
    probs, labels = network()
    labels[:, ::7] = 255
    softened = probs.sqrt() / probs.sqrt().sum(1, keepdim=True)  # no longer what the labels were drawn from
    decoder, found = fitted(softened, labels, 255, metric=metric, output_mode=output_mode)
    decided = decoder(softened)
    counts = areas(decided, labels, 3, ignore_index=255) if output_mode == "multiclass" else None
    if counts is None:
        true = labels.unsqueeze(1) == torch.arange(3).view(1, -1, 1)
        counts = areas(decided & (labels != 255).unsqueeze(1), true, 3)
    assert found.after == pytest.approx(dataset_level(counts, SCORES[metric]).item(), abs=1e-6)
    assert found.after >= found.before
    blind, _ = fitted(softened, metric=metric, output_mode=output_mode)
    assert not torch.equal(blind.offset, decoder.offset)


@pytest.mark.parametrize("numbered", [False, True])
def test_the_sample_is_uniform_over_pixels_of_images_of_all_sizes(numbered):
    images = [torch.zeros(60, 1), torch.ones(20, 1), torch.full((120, 1), 2.0)]
    drawn = torch.zeros(3)
    for seed in range(400):
        reservoir = Reservoir(capacity=10, columns=1, seed=seed)
        for number, image in enumerate(images):
            reservoir.add(image, number if numbered else None)
        assert len(reservoir.rows) == 10
        drawn += torch.bincount(reservoir.rows[:, 0].long(), minlength=3)
    expected = torch.tensor([0.3, 0.1, 0.6]) * 4000
    assert ((drawn - expected).abs() < 4 * expected.sqrt()).all()


def test_memory_stays_and_the_sample_represents_the_data():
    probs, _ = network(images=40)
    decoder, whole = fitted(probs)
    small = GlobalRankSEG(3, max_pixels=2000, min_gain=0)
    for batch in probs.split(3):
        small.update(batch)
    assert small.fit().after == pytest.approx(whole.after, abs=0.03)
    assert small._sample.rows.shape == (2000, 3)
    assert small._sample.seen == 40 * 400
    agree = (small(probs) == decoder(probs)).float().mean()
    assert agree > 0.97


def test_a_fit_that_cannot_gain_keeps_argmax():
    labels = torch.arange(12).view(4, 3) % 3
    probs = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    decoder, found = fitted(probs, min_images=2)
    assert (found.before, found.after) == (1.0, 1.0)
    assert torch.equal(decoder(probs), labels)


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("metric", ["iou", "dice"])
@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
def test_the_rule_scores_what_the_fit_says_and_never_below_plain(metric, output_mode, with_labels):
    """Also where there is hardly anything to gain: a few pixels, many of them equal, some exactly 1/2."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(25):
        halves = torch.rand(6, 2, 3, generator=generator).mul(4).round() / 4
        probs = torch.stack([halves[:, 0] / 2, halves[:, 1] / 2, 1 - halves.mean(1)], 1)
        labels = torch.randint(3, (6, 3), generator=generator) if with_labels else None
        truth = probs if labels is None else torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
        decoder, found = fitted(probs, labels, metric=metric, output_mode=output_mode, **{**FREE, "min_dice": 0.3})
        plain = probs > 0.5 if output_mode == "multilabel" else probs.argmax(1)
        for decision, value in ((plain, found.before), (decoder(probs), found.after)):
            masks = decision if output_mode == "multilabel" else torch.stack([decision == c for c in range(3)], 1)
            hits, total = ((each).double().sum((0, 2)) for each in (truth * masks, truth + masks.double()))
            scores = hits / (total - hits) if metric == "iou" else 2 * hits / total
            counted = found.pursued if found.pursued.any() else truth.sum((0, 2)) > 0
            assert scores[counted].mean().item() == pytest.approx(value, abs=1e-6)
        assert found.after >= found.before


@pytest.mark.parametrize("metric", ["iou", "dice"])
@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
def test_without_any_class_to_pursue_the_plain_decision_is_scored(metric, output_mode):
    probs, labels = network()
    plainly = {"multiclass": "argmax", "multilabel": "the threshold 1/2"}[output_mode]
    with pytest.warns(
        UserWarning, match=rf"pursues no class and decides as {plainly} does\. Class 0: its best mask .* min_dice=1"
    ):
        decoder, found = fitted(probs, labels, metric=metric, output_mode=output_mode, min_images=0, min_dice=1)
    assert not found.pursued.any()
    assert found.before == found.after
    plain = probs > 0.5 if output_mode == "multilabel" else probs.argmax(1)
    assert torch.equal(decoder(probs), plain)
    truth = labels if output_mode == "multiclass" else torch.stack([labels == c for c in range(3)], 1)
    assert found.before == pytest.approx(dataset_level(areas(plain, truth, 3), SCORES[metric]).item(), abs=1e-6)
    nothing = torch.zeros(6, 1, 5)
    with pytest.warns(UserWarning, match="pursues no class"):
        assert np.isnan(fitted(nothing, torch.zeros(6, 5).long(), output_mode="multilabel")[1].before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("inside", [0.3, 0.5, 0.9999, 1.0])
def test_no_pixel_changes_sides_by_rounding(dtype, inside):
    """Neighbouring probabilities, the upper one of the class and the lower one not, the mantissa even or odd."""
    upper = torch.tensor(inside, dtype=dtype)
    for _ in range(4):
        # The sample is kept in float32, so that nearer neighbours are one value to it.
        near = dtype if dtype != torch.float64 else torch.float32
        lower = torch.nextafter(upper.to(near), torch.zeros((), dtype=near)).to(dtype)
        probs = torch.stack([upper.to(near).to(dtype), lower]).expand(6, 1, 2)
        labels = torch.tensor([1, 0]).expand(6, 2)
        decoder, found = fitted(probs, labels, output_mode="multilabel")
        assert found.after == 1
        assert decoder(probs).tolist() == [[[True, False]]] * 6
        upper = lower


def test_float64_probabilities_are_decided_as_they_were_sampled():
    upper = torch.tensor(0.3, dtype=torch.float32)
    lower = torch.nextafter(upper, torch.tensor(0.0))
    # Nearer to the upper float32 than to the lower one, and below the upper one: the sample holds the upper one.
    between = 0.75 * upper.double() + 0.25 * lower.double()
    probs = torch.stack([between, lower.double()]).expand(6, 1, 2)
    decoder, found = fitted(probs, torch.tensor([1, 0]).expand(6, 2), output_mode="multilabel")
    assert found.after == 1
    assert decoder(probs).tolist() == [[[True, False]]] * 6


@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
def test_state_dict_carries_the_decision(output_mode):
    probs, _ = network()
    decoder, _ = fitted(probs, output_mode=output_mode)
    other = GlobalRankSEG(3, output_mode=output_mode)
    assert not other.fitted
    other.load_state_dict(decoder.state_dict())
    assert other.fitted
    assert torch.equal(other(probs), decoder(probs))
    assert sum(value.numel() for value in decoder.state_dict().values()) == 7
    earlier = {name: value for name, value in decoder.state_dict().items() if name != "multilabel"}
    older = GlobalRankSEG(3, output_mode=output_mode)
    older.load_state_dict(earlier)
    assert torch.equal(older(probs), decoder(probs))
    wrong = GlobalRankSEG(3, output_mode="multiclass" if output_mode == "multilabel" else "multilabel")
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=f"what was fitted is for output_mode='{output_mode}', this decoder has"):
            torch.nn.Sequential(wrong).load_state_dict(torch.nn.Sequential(decoder).state_dict(), strict=strict)
    assert not wrong.fitted


def test_refuses_before_a_fit():
    probs, _ = network()
    decoder = GlobalRankSEG(3)
    with pytest.raises(RuntimeError, match=r"not fitted: call update\(probs\)"):
        decoder(probs)
    with pytest.raises(RuntimeError, match="no images to fit"):
        decoder.fit()
    decoder.update(probs, valid_mask=torch.zeros(400, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="none with a valid pixel"):
        decoder.fit()
    decoder.update(probs[:3])
    with pytest.raises(ValueError, match=r"3 images give no evidence .* min_images=5"):
        decoder.fit()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_decides_by_the_affine_rule(dtype):
    probs, _ = network(classes=5)
    decoder, _ = fitted(probs)
    probs = probs.to(dtype)
    scores = probs.double() * decoder.scale.double().view(1, -1, 1) - decoder.offset.double().view(1, -1, 1)
    chosen = scores.gather(1, decoder(probs).unsqueeze(1))[:, 0]
    assert (chosen >= scores.amax(1) - 1e-6).all()
    decoder.scale.fill_(1), decoder.offset.fill_(0)
    assert decoder(torch.full((1, 5, 2), 0.2, dtype=dtype)).tolist() == [[0, 0]]


def test_invalid_pixels():
    probs, labels = network()
    valid = torch.rand(8, 400, generator=torch.Generator().manual_seed(1)) > 0.3
    broken = probs.masked_fill(~valid.unsqueeze(1), torch.nan)
    with_mask, masked_labels = GlobalRankSEG(3), GlobalRankSEG(3)
    with_mask.update(broken, labels, valid_mask=valid)
    masked_labels.update(probs, labels.masked_fill(~valid, 255), ignore_index=255)
    assert with_mask.fit().after == masked_labels.fit().after
    decided = with_mask(broken, valid_mask=valid)
    assert torch.equal(decided == 255, ~valid)
    assert torch.equal(decided[valid], masked_labels(probs)[valid])
    masks = fitted(probs, output_mode="multilabel")[0]
    assert not masks(broken, valid_mask=valid).movedim(1, -1)[~valid].any()
    assert torch.equal(masks(probs, valid[0])[0], masks(broken, valid)[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -5.0])
def test_ignored_pixels_may_be_anything(bad):
    probs, labels = network()
    ignored = torch.rand(8, 400, generator=torch.Generator().manual_seed(1)) < 0.3
    marked = labels.masked_fill(ignored, 255)
    found, wanted = GlobalRankSEG(3), GlobalRankSEG(3)
    found.update(probs.masked_fill(ignored.unsqueeze(1), bad), marked, ignore_index=255)
    wanted.update(probs, marked, ignore_index=255)
    assert found.fit().after == wanted.fit().after
    assert torch.equal(found(probs), wanted(probs))


def test_bad_input():
    probs, labels = network()
    for options, error in (
        ({"num_classes": 1}, "num_classes=1 needs output_mode='multilabel'"),
        ({"metric": "acc"}, "metric must be one of 'iou', 'dice'"),
        ({"min_dice": 2}, r"min_dice must be in \[0, 1\]"),
        ({"max_pixels": 0}, "max_pixels must be at least 1"),
        ({"void_index": 2}, "void_index is a class"),
    ):
        with pytest.raises(ValueError, match=error):
            GlobalRankSEG(**{"num_classes": 3, **options})
    decoder = GlobalRankSEG(3)
    decoder.update(probs)
    for arguments, error in (
        ((probs, labels), "for every batch or for none"),
        ((probs[:, :2],), "must have 3 classes"),
        ((2 * probs,), "must lie in"),
    ):
        with pytest.raises(ValueError, match=error):
            decoder.update(*arguments)
    decoder.reset()
    with pytest.raises(ValueError, match="0 to 2 or be ignore_index=None, got 7"):
        decoder.update(probs, labels.masked_fill(labels == 1, 7))
    for given, kind, error in (
        (labels[:, :5], ValueError, r"labels must be labels \(8, 400\) or masks \(8, 3, 400\), got shape"),
        (labels.numpy(), TypeError, r"labels must be a torch\.Tensor, got ndarray"),
        (labels + 0.5, ValueError, "labels must hold whole numbers"),
        (torch.full(probs.shape, 2), ValueError, "labels that are masks must hold 0 and 1 only"),
    ):
        with pytest.raises(kind, match=error):
            decoder.update(probs, given)
    with pytest.raises(TypeError, match="ignore_index must be an integer, got str"):
        decoder.update(probs, labels, ignore_index="255")


@pytest.mark.parametrize("form", [lambda white: white, lambda white: white.unsqueeze(1).byte()])
def test_masks_drawn_in_white(form):
    probs, labels = network()
    decoder = GlobalRankSEG(1, output_mode="multilabel")
    said = r"0 to 1 or be ignore_index=None, got 255; masks drawn 0/255\? Divide them by 255"
    with pytest.raises(ValueError, match=said):
        decoder.update(probs[:, :1], form(255 * (labels == 0)))
    masks = 255 * (labels.unsqueeze(1) == torch.arange(3).view(1, -1, 1))
    with pytest.raises(ValueError, match=r"masks must hold 0 and 1 only, got 255; masks drawn 0/255\? Divide them"):
        GlobalRankSEG(3, output_mode="multilabel").update(probs, masks)


@pytest.mark.parametrize("form", [lambda labels: labels.unsqueeze(1).byte(), lambda labels: labels.float()])
def test_labels_of_other_forms(form):
    probs, labels = network()
    labels[:, ::7] = 255
    assert torch.equal(fitted(probs, form(labels), 255)[0].offset, fitted(probs, labels, 255)[0].offset)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_masks_of_other_dtypes(dtype):
    probs, labels = network()
    masks = labels.unsqueeze(1) == torch.arange(3).view(1, -1, 1)
    assert torch.equal(fitted(probs, masks.to(dtype))[0].offset, fitted(probs, masks)[0].offset)


def test_a_refused_batch_leaves_nothing_behind():
    probs = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0)).softmax(1)
    bad = probs.clone()
    bad[2, 0, 0] = float("nan")
    refused, clean = (GlobalRankSEG(2, min_images=0, min_gain=0) for _ in range(2))
    with pytest.raises(ValueError, match="probs must be finite"):
        refused.update(bad)
    for decoder in (refused, clean):
        decoder.update(probs)
    assert refused.fit().before == clean.fit().before
    assert refused._sample.seen == clean._sample.seen == 15


@pytest.mark.parametrize("labels", [None, torch.zeros(1, 2, 5, dtype=torch.bool)])
def test_ignore_index_needs_integer_labels(labels):
    with pytest.raises(ValueError, match="ignore_index=255 has no effect with"):
        GlobalRankSEG(2).update(torch.full((1, 2, 5), 0.5), labels, ignore_index=255)


@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("with_labels", [True, False])
def test_a_sample_of_one_pixel(output_mode, with_labels):
    probs, labels = network()
    options = {"max_pixels": 1, "output_mode": output_mode, **FREE}
    _, found = fitted(probs, labels if with_labels else None, **options)
    assert found.after >= found.before
