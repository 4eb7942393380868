"""Candidates that know which classes are there: never judged on images that they were fitted to."""

import json

import numpy as np
import pytest
import torch

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison import Sample, Scoring, compare
from rankseg_plugins.tuning import Tuner, tune
from rankseg_plugins.tuning.choosing import deal
from rankseg_plugins.tuning.presence import PresenceCandidates

CLASSES = 4


def images(count, seed=0, size=16, cases=None):
    """Classes that are often absent, where the network shows some of each."""
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(count, CLASSES, generator=generator) < 0.4
    there[:, 0] = True
    logits = 3 * torch.randn(count, CLASSES, 4, 4, generator=generator)
    logits[:, 1:] -= 2.5 * (~there[:, 1:])[..., None, None]
    probs = torch.nn.functional.interpolate(logits, size, mode="bilinear").softmax(1)
    drawn = torch.multinomial(
        (probs * there[..., None, None]).movedim(1, -1).reshape(-1, CLASSES), 1, generator=generator
    )
    labels = drawn.view(count, size, size)
    groups = [None] * count if cases is None else [f"case {index % cases}" for index in range(count)]
    return [Sample(str(i), p, t, group) for i, (p, t, group) in enumerate(zip(probs, labels, groups, strict=True))]


QUICK = {"temperatures": [1.0], "pruning_probs": [0.5, 0.1]}


@pytest.mark.parametrize("cases", [None, 7])
def test_each_image_is_decided_by_a_fit_to_the_other_folds(cases):
    samples = images(20, cases=cases)
    tuner = Tuner(CLASSES, temperatures=[0.7, 1.0], pruning_probs=[0.5], folds=3, ignore_index=255)
    fitting = tuner.fitting(presence=["score", 0.3], seed=5)
    for sample in samples:
        fitting.update(sample)
    tuner.enter(fitting.fit())
    fold = deal([sample.case or sample.name for sample in samples], 3, 5)
    for sample in samples:
        measured = tuner.add(sample)
        others = [each for each in samples if fold[each.case or each.name] != fold[sample.case or sample.name]]
        for rule in ("score", 0.3):
            expected = PresenceRankSEG(CLASSES, rule=rule)
            for each in others:
                expected.update(each.probs[None], each.labels[None], ignore_index=255)
            expected.fit()
            decided = TunedDecoder(expected, CLASSES)(sample.probs[None])[0]
            index = list(tuner.candidates).index(f"presence(metric=dice,rule={rule})")
            assert measured.counts[index, 1].tolist() == decided.flatten().bincount(minlength=CLASSES).tolist()


def test_what_is_tuned_in_the_end_is_fitted_to_all():
    samples = images(60)
    found = tune(samples, presence=["score"], **QUICK)
    assert isinstance(found.decoder.decoder, PresenceRankSEG)
    expected = PresenceRankSEG(CLASSES)
    for sample in samples:
        expected.update(sample.probs[None], sample.labels[None])
    expected.fit()
    torch.testing.assert_close(found.decoder.decoder.weight, expected.weight)
    gain = compare(images(60, seed=1), {"argmax": RankSEG("acc"), "tuned": found.decoder}).paired("tuned")
    assert gain.interval[0] > 0


def test_it_is_chosen_for_the_scoring_that_counts():
    samples = images(60)
    union = tune(samples, presence=["score"], **QUICK).decoder.decoder
    one = tune(samples, presence=["score"], scoring=Scoring(absent="one"), **QUICK).decoder.decoder
    by_class = tune(samples, "dice_class", presence=["score"], **QUICK).comparison
    assert (union.present, union.absent, union.level) == ("union", "skip", "image")
    assert one.absent == "one"
    assert "presence(metric=dice,rule=score)" in by_class.decoders
    excluding = tune(samples, presence=["score"], scoring=Scoring(excluded=(0,)), **QUICK).decoder.decoder
    assert excluding.excluded == (0,)


def test_where_every_class_is_always_there_nothing_changes():
    generator = torch.Generator().manual_seed(0)
    probs = (2 * torch.randn(30, 3, 60, generator=generator)).softmax(1)
    labels = torch.multinomial(probs.movedim(1, -1).reshape(-1, 3), 1, generator=generator).view(30, 60)
    samples = [Sample(str(i), *both) for i, both in enumerate(zip(probs, labels, strict=True))]
    found = tune(samples, presence=["score", 0.2, 0.5], temperatures=[1.0], pruning_probs=[0.1])
    counts = np.stack([each.counts for each in found.comparison.measurements])
    for index in range(2, 5):
        assert np.array_equal(counts[:, index], counts[:, 1])
    assert not isinstance(found.decoder.decoder, PresenceRankSEG)


def test_one_channel():
    samples = [Sample(each.name, each.probs[1:2], (each.labels == 1).long(), None) for each in images(60)]
    found = tune(samples, presence=["score", 0.5], **QUICK)
    assert found.comparison.decoders[-1] == "presence(metric=dice,rule=0.5)"
    assert found.decoder(samples[0].probs[None]).dtype == torch.bool


def test_masks_with_ignored_pixels():
    samples = []
    for each in images(30):
        masks = torch.stack([each.labels == label for label in range(CLASSES)]).long()
        masks[:, 0, 0] = 255
        samples.append(Sample(each.name, each.probs, masks))
    found = tune(samples, presence=["score"], output_mode="multilabel", ignore_index=255, **QUICK)
    assert found.comparison.decoders[-1] == "presence(metric=dice,rule=score)"


def test_images_that_count_for_nothing_are_not_fitted_to():
    samples = images(12)
    candidates = PresenceCandidates(CLASSES, [1.0], rules=["score"], ignore_index=255)
    for sample in (*samples, Sample("nothing", samples[0].probs, torch.full((16, 16), 255))):
        candidates.update(sample)
    assert len(candidates._held) == 12
    with pytest.raises(ValueError, match="presence cannot be learnt, as no image holds a pixel whose class is known"):
        PresenceCandidates(CLASSES).fit()


def test_a_single_case_has_no_others():
    found = tune(images(6, cases=1), presence=["score"], **QUICK)
    assert found.decoder.is_argmax
    assert "all images are of a single case" in found.verdict


def test_an_iterator_comes_only_once():
    samples = images(6)
    found = tune(iter(samples), **QUICK)
    assert all("presence" not in name for name in found.comparison.decoders)
    assert found.verdict.endswith("they need the images twice, as a list")
    assert "they need the images twice" not in tune(iter(samples), presence=[], **QUICK).verdict
    with pytest.raises(TypeError, match="gone through twice for presence and 'global', got an iterator"):
        tune(iter(samples), presence=["score"], **QUICK)


def test_the_file_says_how_reliable_presence_is(tmp_path):
    found = tune(images(60), presence=["score"], **QUICK)
    found.decoder.save(tmp_path / "decoder.json")
    about = json.loads((tmp_path / "decoder.json").read_text())["evidence"]["presence"]
    often = (
        torch.stack([torch.stack([(s.labels == c).any() for c in range(CLASSES)]) for s in images(60)]).double().mean(0)
    )
    assert about["frequency"] == pytest.approx(often.tolist())
    assert sum(number for _, _, number in about["bins"]) == 60 * CLASSES
    assert 0 < about["error"] < 0.1


def test_cases_are_dealt_evenly_and_stay_together():
    cases = [f"{index % 13}" for index in range(40)]
    found = deal(cases, 5, seed=1)
    assert sorted(np.bincount(list(found.values()))) == [2, 2, 3, 3, 3]
    assert found == deal(cases, 5, seed=1) != deal(cases, 5, seed=2)
    assert set(deal(["a", "b"], 5, seed=0).values()) == {0, 1}
