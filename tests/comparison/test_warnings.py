"""Probabilities on which RankSEG loses are named once, and others are not."""

import warnings

import numpy as np
import pytest
import torch
from places import DATA

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.calibration.reliability import calibration
from rankseg_plugins.comparison import Recorder, Sample, Scoring, compare

CAMVID = DATA / "camvid" / "probs_val.npz"


def drawn(temperature, classes=3, images=4, pixels=900):
    """Labels drawn from softmax(logits), and softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, classes, pixels, generator=generator)
    truth = torch.multinomial(logits.softmax(1).movedim(1, -1).flatten(0, 1), 1, generator=generator)
    return (logits / temperature).softmax(1), truth.view(images, pixels)


def recorded(probs, labels, **options):
    """Messages of all warnings; two comparisons of one recorder are no reason for two."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recorder = Recorder(num_classes=len(probs[0]), ignore_index=255, **options)
        for index, (image, truth) in enumerate(zip(probs, labels, strict=True)):
            recorder.add(Sample(str(index), image, truth))
        recorder.comparison()
        recorder.comparison()
    return [str(each.message) for each in caught]


def test_softmax_twice_is_named_once():
    probs, labels = drawn(1.0)
    (message,) = recorded(probs.softmax(1), labels)
    assert "softmax was applied twice" in message


@pytest.mark.parametrize(("temperature", "unsure"), [(0.5, False), (1.0, False), (2.0, True)])
@pytest.mark.parametrize("form", ["multiclass", "one channel", "masks"])
def test_unsure_probabilities_are_named_once(temperature, unsure, form):
    probs, labels = drawn(temperature, classes=3 if form == "multiclass" else 2)
    options = {}
    if form == "one channel":
        probs = probs[:, 1:]
    elif form == "masks":
        labels = torch.stack([labels == 0, labels == 1], 1)
        options["scoring"] = Scoring("iou")
    found = recorded(probs, labels, **options)
    assert len(found) == unsure
    if unsure:
        assert "too unsure" in found[0]
        assert "softmax was applied twice, label smoothing, or averaged predictions" in found[0]
        assert "temperature below 1" in found[0]


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_underconfidence_is_accuracy_minus_confidence(kind):
    """By hand, pixel by pixel, where every bin lies on one side of 1/2."""
    probs, labels = (each[0] for each in drawn(2.0, classes=2))
    if kind == "labels":
        confidence, decided = probs.double().max(0)
        expected = ((decided == labels).double() - confidence).mean()
        found = calibration(probs, labels).underconfidence(2)
    else:
        masks, p = torch.stack([labels == 0, labels == 1]), probs.double()
        expected = (((p > 0.5) == masks).double() - p.where(p > 0.5, 1 - p)).mean()
        found = calibration(probs, masks, bins=16).underconfidence(2)
    assert found == pytest.approx(float(expected), abs=1e-9)


def test_pixels_without_any_probability_are_no_doubt():
    """Outside of a crop every decision is background, rightly, and nobody was unsure of it."""
    probs, labels = drawn(1.0)
    bare = torch.cat([probs, torch.zeros_like(probs)], 2)
    truth = torch.cat([labels, torch.zeros_like(labels)], 1)
    assert not recorded(bare, truth)
    for image, whole, padded in zip(probs, labels, zip(bare, truth, strict=True), strict=True):
        inside, found = calibration(image, whole), calibration(*padded)
        for name in ("count", "confidence", "correct"):
            np.testing.assert_array_equal(getattr(found, name), getattr(inside, name))


def test_a_handful_of_pixels_says_nothing():
    probs, labels = drawn(3.0, pixels=200)
    assert recorded(probs, labels) == []


@pytest.mark.parametrize(
    ("evidence", "scoring", "named"),
    [
        ({}, Scoring(), None),
        ({"present": "union", "absent": "skip", "excluded": [0, 2]}, Scoring(excluded=(2, 0)), None),
        ({"present": "label"}, Scoring(), ("present=label", "present=union")),
        ({"absent": "one", "excluded": []}, Scoring(excluded=(1,)), ("absent=one, excluded=[]", "absent=skip, excl")),
    ],
)
def test_a_decoder_that_was_tuned_for_another_scoring_is_named_once(evidence, scoring, named):
    decoders = {
        "argmax": TunedDecoder(RankSEG("acc"), 3, evidence={"present": "label", "absent": "zero", "excluded": [1]}),
        "decoder.json": TunedDecoder(RankSEG(), 3, evidence=evidence),
    }
    found = recorded(*drawn(1.0), decoders=decoders, scoring=scoring)
    if named is None:
        assert found == []
    else:
        (message,) = found
        assert message.startswith("decoder.json was tuned with {}, and is scored with {}".format(*named))


def test_decided_elsewhere():
    probs, labels = drawn(2.0)
    recorder = Recorder(num_classes=3)
    with pytest.warns(UserWarning, match="applied twice"):
        recorder.add_decided("a", labels[0], [labels[0], labels[0]], probs[0].softmax(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recorder.add_decided("b", labels[1], [labels[1], labels[1]], probs[1].softmax(0))
        recorder.add_decided("c", labels[2], [labels[2], labels[2]])
        recorder.comparison()


@pytest.mark.parametrize(("temperature", "unsure"), [(1.0, False), (2.0, True)])
def test_street_scenes(temperature, unsure):
    if not CAMVID.exists():
        pytest.skip("the real probabilities of camvid are not beside this checkout")
    with np.load(CAMVID) as file:
        probs, labels = torch.from_numpy(file["probs"][::8]).float(), torch.from_numpy(file["labels"][::8]).long()
    probs = (probs.clamp(1e-12).log() / temperature).softmax(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compare([(str(i), p, t) for i, (p, t) in enumerate(zip(probs, labels, strict=True))], ignore_index=255)
    assert len(caught) == unsure
