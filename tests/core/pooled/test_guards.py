"""Classes that a decision for a whole data set does not pursue, on images that are made and on real ones."""

import re

import numpy as np
import pytest
import torch
from places import DATA
from pooling import ANY_SPREAD, FREE, fitted, network

from rankseg_plugins.core.pooled.guards import Evidence, evidence_of
from rankseg_plugins.scores.areas import areas
from rankseg_plugins.scores.levels import SCORES, entries, pooled

REAL = {
    "camvid": DATA / "camvid" / "probs_val.npz",
    "horses": DATA / "voc21_horses" / "probs.npz",
    "chips": DATA / "drone_small" / "probs.npz",
}


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
