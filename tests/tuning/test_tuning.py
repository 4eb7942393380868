"""Tuning gains where there is something to gain, keeps argmax where there is not, and survives a file."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import DATA

from benchmarks.tuning import softened
from rankseg_plugins import GlobalRankSEG, RankSEG
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison.sample import Sample
from rankseg_plugins.tuning.choosing import choose
from rankseg_plugins.tuning.racing import tune
from rankseg_plugins.tuning.tuner import Tuner

# Softened images are what tuning is for.
pytestmark = pytest.mark.filterwarnings("ignore:the probabilities are too unsure")

CAMVID = DATA / "camvid" / "probs_val.npz"


def images(count, temperature=1.0, seed=0, size=24):
    """Smooth probabilities of a rare foreground, labels drawn from them, then softened by ``temperature``."""
    return softened(count, seed, temperature, size)


def image_dice(decoder, samples):
    scores = []
    for sample in samples:
        decided = decoder(sample.probs[None])[0]
        for c in range(len(sample.probs)):
            a, b = decided == c, sample.labels == c
            scores.append(2 * (a & b).sum() / max(int(a.sum() + b.sum()), 1))
    return float(torch.stack(scores).mean())


def test_softened_probabilities_lose_plainly_and_not_when_tuned():
    """The image Dice of images that had no part in tuning."""
    found = tune(images(60, 2.0, seed=1), temperatures=[0.5, 0.7, 1.0])
    fresh = images(60, 2.0, seed=2)
    argmax, plain = (image_dice(decoder, fresh) for decoder in (RankSEG("acc"), RankSEG()))
    assert plain < argmax - 0.01
    assert image_dice(found.decoder, fresh) > argmax - 0.002
    assert not found.decoder.is_argmax
    assert found.decoder.temperature < 1


def test_keeps_argmax_where_nothing_can_be_gained():
    """Labels that argmax already gives, but for noise: every other decision can only lose."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for i in range(20):
        labels = torch.randint(0, 3, (100,), generator=generator)
        probs = 0.8 * torch.nn.functional.one_hot(labels, 3).T + 0.2 / 3
        samples.append(Sample(str(i), probs, labels))
    found = tune(samples)
    assert found.decoder.is_argmax
    assert found.verdict.startswith("keep argmax")
    assert torch.equal(found.decoder(samples[0].probs[None]), samples[0].probs.argmax(0)[None])


def test_chance_is_no_gain():
    """Labels that have nothing to do with the probabilities: the best of many candidates is luck."""
    generator = torch.Generator().manual_seed(4)
    kept = 0
    for _ in range(10):
        probs = (3 * torch.randn(12, 3, 60, generator=generator)).softmax(1)
        labels = probs.argmax(1)
        swapped = torch.rand(labels.shape, generator=generator) < 0.02
        labels[swapped] = torch.randint(0, 3, (int(swapped.sum()),), generator=generator)
        found = tune(
            [Sample(str(i), p, t) for i, (p, t) in enumerate(zip(probs, labels, strict=True))],
            min_cases=0,
        )
        kept += found.decoder.is_argmax
    assert kept == 10


def test_chosen_scores_are_of_images_that_had_no_part():
    samples = images(12, seed=3)
    found = tune(samples, folds=12, temperatures=[0.5, 1.0])
    for left_out, measured in enumerate(found.validated.measurements):
        others = tuple(each for index, each in enumerate(found.comparison.measurements) if index != left_out)
        winner = choose(replace(found.comparison, measurements=others), "dice_image").winner
        best = found.comparison.decoders.index(winner)
        assert (measured.counts == found.comparison.measurements[left_out].counts[[0, best]]).all()


def test_a_handful_of_images_is_not_enough():
    samples = images(60, 2.0, seed=1)
    few, enough = (tune(samples[:n], temperatures=[0.5]) for n in (19, 60))
    assert few.decoder.is_argmax
    assert "too few cases (19 below min_cases=20)" in few.verdict
    assert not enough.decoder.is_argmax


def test_cases_stay_in_one_fold():
    samples = [Sample(s.name, s.probs, s.labels, case=f"patient {i // 4}") for i, s in enumerate(images(12))]
    assert tune(samples, folds=3).decoder.num_classes == 2
    by_case, by_more_folds = (tune(samples, folds=folds) for folds in (3, 4))
    assert by_case.decoder.evidence == by_more_folds.decoder.evidence


def test_a_single_case_keeps_argmax():
    found = tune([Sample(s.name, s.probs, s.labels, case="one patient") for s in images(4, 2.0)])
    assert found.decoder.is_argmax
    assert found.decoder.evidence["interval"] is None
    with pytest.raises(ValueError, match="folds must be an integer of at least 2, got 1"):
        tune(images(4), folds=1)


def test_image_by_image_is_the_same():
    """The order of the images does not matter once they are gathered, as it is with several processes."""
    samples = images(24, 2.0, seed=1)
    whole = tune(sorted(samples, key=lambda sample: sample.name), "iou_image", temperatures=[0.5, 1.0])
    tuner = Tuner(2, "iou_image", temperatures=[0.5, 1.0])
    for sample in reversed(samples):
        tuner.add(sample)
    tuner.gather()
    found = tuner.finish()
    assert found.decoder.to_dict() == whole.decoder.to_dict()
    with pytest.raises(ValueError, match=r"bad: probs must lie in \[0, 1\]"):
        tuner.add(Sample("bad", 2 * samples[0].probs, samples[0].labels))


def test_dataset_level_and_one_channel():
    samples = images(12, seed=5)
    found = tune(samples, "iou_dataset", aggregation_levels=["samplewise", "global"], temperatures=[1.0])
    assert "global(metric=iou)" in found.comparison.decoders
    single = [Sample(s.name, s.probs[1:], s.labels) for s in samples]
    assert tune(iter(single), temperatures=[1.0]).decoder.output_mode == "multilabel"
    with pytest.raises(TypeError, match="gone through twice"):
        tune(iter(samples), aggregation_levels=["global"])


@pytest.mark.parametrize("kind", ["samplewise", "global", "argmax"])
def test_file(tmp_path, kind):
    samples = images(8)
    probs = torch.stack([each.probs for each in samples])
    if kind == "global":
        inner = GlobalRankSEG(2, min_gain=0)
        inner.update(probs)
        inner.fit()
    else:
        inner = RankSEG("acc") if kind == "argmax" else RankSEG("iou", smooth=1.0, pruning_prob=0.2)
    decoder = TunedDecoder(inner, 2, 0.7, {"verdict": "made by hand"})
    decoder.save(tmp_path / "decoder.json")
    loaded = TunedDecoder.load(tmp_path / "decoder.json")
    assert torch.equal(loaded(probs), decoder(probs))
    assert loaded.to_dict() == decoder.to_dict()
    assert loaded.is_argmax == (kind == "argmax")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 3}, "a newer rankseg_plugins reads it"),
        ({"format": "else"}, "no decoder of rankseg_plugins"),
        ({"options": {"metrik": "dice"}}, "not a valid decoder"),
        ({"temperature": -1}, "temperature must be in"),
        ({"extra": 1}, "a decoder holds"),
    ],
)
def test_refuses_other_files(tmp_path, change, error):
    path = tmp_path / "decoder.json"
    path.write_text(json.dumps({**TunedDecoder(RankSEG(), 2).to_dict(), **change}))
    with pytest.raises(ValueError, match=f"decoder.json: .*{error}"):
        TunedDecoder.load(path)


def test_bad_options():
    with pytest.raises(ValueError, match="objective must be one of"):
        tune(images(4), "dice")
    with pytest.raises(ValueError, match="at least one image"):
        tune([])


def test_street_scenes_gain_on_the_half_that_was_not_tuned_on():
    if not CAMVID.exists():
        pytest.skip("the real probabilities of camvid are not beside this checkout")
    with np.load(CAMVID) as file:
        probs, labels = torch.from_numpy(file["probs"][::2]), torch.from_numpy(file["labels"][::2]).long()
    samples = [Sample(str(i), p, t) for i, (p, t) in enumerate(zip(probs, labels, strict=True))]
    found = tune(samples[::2], temperatures=[1.0], min_cases=12, ignore_index=255)
    assert found.decoder.evidence["interval"][0] > 4
    assert image_dice(found.decoder, samples[1::2]) > image_dice(RankSEG("acc"), samples[1::2]) + 0.03
