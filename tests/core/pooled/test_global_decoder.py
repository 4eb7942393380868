"""Dataset-level decisions against enumeration, measured counts, real data and another process count."""

import itertools
import re

import numpy as np
import processes
import pytest
import torch
from places import DATA

from rankseg_plugins import GlobalRankSEG
from rankseg_plugins.core.pooled.guards import Evidence, evidence_of
from rankseg_plugins.core.reservoir import Reservoir
from rankseg_plugins.scores.areas import areas
from rankseg_plugins.scores.levels import SCORES, dataset_level, entries, pooled

REAL = {
    "camvid": DATA / "camvid" / "probs_val.npz",
    "horses": DATA / "voc21_horses" / "probs.npz",
    "chips": DATA / "drone_small" / "probs.npz",
}

ANY_SPREAD = 1e6
FREE = {"min_images": 0, "min_dice": 0, "max_spread": ANY_SPREAD}


def network(classes=3, images=8, pixels=400, seed=0):
    """Probabilities that are neither sharp nor even, and labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, pixels, generator=generator)
    logits -= torch.arange(classes).view(1, -1, 1)  # some classes are rare
    probs = logits.softmax(1)
    drawn = torch.multinomial(probs.movedim(1, -1).flatten(0, 1), 1, generator=generator)
    return probs, drawn.view(images, pixels)


def fitted(probs, labels=None, ignore_index=None, min_gain=0, **options):
    """However little there is to gain, as on images whose probabilities are right."""
    decoder = GlobalRankSEG(probs.shape[1], min_gain=min_gain, **options)
    decoder.update(probs, labels, ignore_index=ignore_index)
    return decoder, decoder.fit()


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


def test_classes_without_evidence_are_decided_as_by_argmax():
    """Class 2 shows in one image only, and class 3 is a haze over all: neither may be pursued."""
    probs, _ = network(classes=2, images=20)
    haze = torch.full((20, 2, 400), 0.004)
    haze[0, 0, :200] = 0.6
    probs = torch.cat([probs * (1 - haze.sum(1, keepdim=True)), haze], 1)
    decoder, found = fitted(probs)
    assert found.pursued.tolist() == [True, True, False, False]
    largest = int(probs.sum((0, 2)).argmax())
    assert decoder.scale[2:].tolist() == [decoder.scale[largest]] * 2
    assert not (decoder(probs) == 3).any()
    # What is sure to be class 2 in another image is still decided so.
    assert decoder(torch.tensor([[[0.02], [0.02], [0.95], [0.01]]])).item() == 2
    _, plain = fitted(probs, **FREE)
    assert plain.pursued.all()


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_a_class_that_argmax_never_shows_is_not_pursued_without_labels(mode):
    """A haze of 0.2 promises a Dice of 1/3; whether the class is there, only labels can say."""
    probs, labels = network(classes=2, images=20)
    probs = torch.cat([0.8 * probs, torch.full((20, 1, 400), 0.2)], 1)
    probs[:4, :, 0] = torch.tensor([0.2, 0.2, 0.6])  # shown in 4 images, of 5 that are wanted
    labels = torch.where(torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)) < 0.2, 2, labels)
    assert fitted(probs, output_mode=mode)[1].pursued.tolist() == [True, True, False]
    assert fitted(probs, output_mode=mode, min_images=4)[1].pursued.all()
    assert fitted(probs, labels, output_mode=mode)[1].pursued.all()


def hazy(output_mode="multiclass", **options):
    """24 images with a third class that is in 6 of them, and somewhat likely in all others."""
    probs, labels = network(classes=2, images=24)
    third = torch.full((24, 1, 400), 0.002)
    third[:, :, :40] = 0.3
    third[:6, :, :90] = 0.55
    probs = torch.cat([probs * (1 - third), third], 1)
    labels[:6, :90] = 2
    return probs, labels, *fitted(probs, output_mode=output_mode, **options)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_a_class_is_not_pursued_into_images_without_evidence_of_it(mode):
    probs, labels, free, everywhere = hazy(mode, max_spread=ANY_SPREAD)
    assert everywhere.pursued.all()
    _, _, decoder, found = hazy(mode)
    assert found.pursued.tolist() == [True, True, False]
    held = probs[:, 2].double().square().mean(1)
    effective = (held.sum() ** 2 / held.square().sum()).item()

    def masks(decided):
        return decided if mode == "multilabel" else torch.stack([decided == c for c in range(3)], 1)

    shown = masks(free(probs))[:, 2].any(1).sum().item()
    assert shown == 24 > 1.2 * 6
    assert effective < 12
    plain = {"multiclass": "argmax", "multilabel": "the threshold 1/2"}[mode]
    assert found.left_out == {
        2: f"a rule fitted to it shows it in 24 images, {plain} in 6, and an effective number of {effective:.1f} of 24 "
        "holds it; max_spread=1.2"
    }
    truth = torch.stack([labels == c for c in range(3)], 1)
    scores = [image_dice(masks(each(probs)), truth) for each in (decoder, free)]
    assert scores[0] > scores[1] + 0.1
    assert hazy(mode, max_spread=4)[3].pursued.all()


def image_dice(decided, truth):
    """Mean over the classes of truth or decision, then over images."""
    return entries(areas(decided, truth, 3), SCORES["dice"]).nanmean(1).mean().item()


def test_images_above_a_threshold_are_counted():
    probs = torch.rand(30, 4, 50, generator=torch.Generator().manual_seed(0)) ** 40
    probs[:2, 1, 7] = 1
    found = Evidence.of(sum(evidence_of(each.T, each.T, masks=True) for each in probs))
    for least in (0, 0.25, 0.5, 0.75, 1, 2):
        assert found.spread(torch.full((4,), least)).tolist() == (probs.amax(2) >= least).sum(0).tolist()
    assert found.shown.tolist() == (probs.amax(2) > 0.5).sum(0).tolist()
    assert 0 < found.shown.min() < found.shown.max() < 30


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_a_rule_that_promises_little_is_not_taken_without_labels(mode):
    probs, labels = network()
    _, taken = fitted(probs, output_mode=mode)
    gain = taken.after - taken.before
    assert gain > 0
    said = f"pursues no class .* Classes 0, 1, 2: the rule promises {gain:.4f} over"
    with pytest.warns(UserWarning, match=said):
        decoder, found = fitted(probs, output_mode=mode, min_gain=gain + 1e-4)
    assert found.before == found.after
    assert torch.equal(decoder(probs), probs.argmax(1) if mode == "multiclass" else probs > 0.5)
    assert fitted(probs, output_mode=mode, min_gain=gain)[1].pursued.all()
    assert fitted(probs, labels, output_mode=mode, min_gain=0.5)[1].pursued.all()


def test_each_class_that_is_not_pursued_has_a_reason():
    probs, _ = network(classes=2, images=20)
    others = torch.zeros(20, 4, 400)
    others[0, 0, :200] = 0.6
    others[:, 1] = 0.002
    others[:, 2] = 0.3
    probs = torch.cat([probs * (1 - others.sum(1, keepdim=True)), others], 1)
    _, found = fitted(probs)
    reasons = ["an effective number of 1.0 images", "its best mask .* Dice of 0.004", "argmax shows it in [0-4] images"]
    assert list(found.left_out) == [2, 3, 4, 5]
    for reason, said in zip([*reasons, "it does not occur"], found.left_out.values(), strict=True):
        assert re.match(reason, said)


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


def load(name):
    path = REAL[name]
    if not path.exists():
        pytest.skip(f"the real probabilities of {name} are not beside this checkout")
    with np.load(path) as file:
        return torch.from_numpy(file["probs"]), torch.from_numpy(file["labels"]).long()


def measured(labels, truth, classes, kept=slice(None)):
    """Pooled IoU in percent, by class, of classes in the truth or the decision."""
    return 100 * entries(pooled(areas(labels, truth, classes, ignore_index=255)), SCORES["iou"])[kept].nanmean()


def test_street_scenes_gain_three_points_without_labels():
    probs, truth = load("camvid")
    decoder, _ = fitted(probs[::2])
    argmax, decided = (measured(labels, truth[1::2], 11) for labels in (probs[1::2].argmax(1), decoder(probs[1::2])))
    assert argmax == pytest.approx(49.92, abs=0.01)
    assert decided >= argmax + 3


@pytest.mark.parametrize("seed", [4, 17])
def test_halves_of_aerial_chips_lose_nothing(seed):
    """Those where a class of a few chips, pursued, would be shown in most, for 8 and 10 points of image Dice."""
    probs, truth = load("chips")
    mine, others = np.array_split(np.random.default_rng(seed).permutation(len(probs)), 2)
    free, found = fitted(probs[mine], max_spread=ANY_SPREAD, max_pixels=50_000)
    assert found.pursued[0]
    _, found = fitted(probs[mine], max_pixels=50_000)
    assert not found.pursued[0]
    with pytest.warns(UserWarning, match="pursues no class"):
        decoder, _ = fitted(probs[mine], min_gain=0.005, max_pixels=50_000)
    plain, guarded, pursued = (
        entries(areas(each, truth[others], 6, ignore_index=255), SCORES["dice"]).nanmean(1).mean()
        for each in (probs[others].argmax(1), decoder(probs[others]), free(probs[others]))
    )
    assert guarded == plain > pursued + 0.05


def test_photographs_of_two_of_21_classes_keep_their_score():
    probs, truth = load("horses")
    present = truth[truth != 255].unique()
    fewer = {"max_pixels": 20_000}
    plain, guarded = (fitted(probs, **options)[0](probs) for options in ({**FREE, **fewer}, {}))
    argmax = measured(probs.argmax(1), truth, 21, present)
    assert argmax == pytest.approx(84.35, abs=0.01)
    assert measured(plain, truth, 21, present) < argmax - 1.5
    assert measured(guarded, truth, 21, present) > argmax - 0.3
    assert measured(guarded, truth, 21) > measured(probs.argmax(1), truth, 21) - 0.3
    half = fitted(probs[::2], **fewer)[0](probs[1::2])
    assert measured(half, truth[1::2], 21, present) > measured(probs[1::2].argmax(1), truth[1::2], 21, present) - 0.3


SETTINGS = [*itertools.product((100_000, 2000), ("multiclass", "multilabel"), (True, False))]


#: Images of both processes: of different numbers, and none for one of them.
SHARES = {"uneven": (slice(0, 9), slice(9, 12)), "none": (slice(0, 12), slice(0, 0))}


def _one_process(rank, folder):
    probs, labels = network(images=12)
    found = {}
    for name, numbered, setting in itertools.product(SHARES, (False, True), SETTINGS):
        share = SHARES[name][rank]
        found[(name, numbered, *setting)] = fitted_to_share(probs, labels, share, numbered, *setting)
    torch.save(found, f"{folder}/{rank}.pt")


def fitted_to_share(probs, labels, share, numbered, max_pixels, output_mode, blind):
    decoder = GlobalRankSEG(3, max_pixels=max_pixels, output_mode=output_mode, min_gain=0)
    if len(probs[share]):
        number = share.start if numbered else None
        decoder.update(probs[share], None if blind else labels[share], number=number)
    fit = decoder.fit()
    return decoder.scale, decoder.offset, fit.after


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    processes.run(_one_process, 2, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("shares", SHARES)
def test_two_processes_give_what_one_gives(shares, of_two_processes):
    ours, theirs = of_two_processes
    probs, labels = network(images=12)
    for max_pixels, output_mode, blind in SETTINGS:
        values = ours[shares, False, max_pixels, output_mode, blind]
        torch.testing.assert_close(values, theirs[shares, False, max_pixels, output_mode, blind], rtol=0, atol=0)
        decoder, found = fitted(probs, None if blind else labels, output_mode=output_mode)
        tolerance = 1e-6 if max_pixels == 100_000 else 0.1
        torch.testing.assert_close(values, (decoder.scale, decoder.offset, found.after), rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
@pytest.mark.parametrize("shares", SHARES)
def test_of_numbered_images_two_processes_keep_the_sample_of_one(shares, of_two_processes):
    probs, labels = network(images=12)
    for setting in SETTINGS:
        expected = fitted_to_share(probs, labels, slice(0, 12), True, *setting)
        for each in of_two_processes:
            torch.testing.assert_close(each[(shares, True, *setting)], expected, rtol=0, atol=0)


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
