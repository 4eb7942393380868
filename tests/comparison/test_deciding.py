"""Decoders of one image share what they can: each decides what it decides alone."""

import time

import pytest
import torch

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison.deciding import decide_each
from rankseg_plugins.core.sharing import Clock, Once

CLASSES = 6


def image(mode, dtype=torch.float32, seed=0):
    """Some classes are everywhere, some hardly anywhere, one nowhere; and a pixel without any probability."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, CLASSES, 6, 7), generator=generator) * 3 - torch.tensor([0, 0, 1, 3, 5, 50])[:, None, None]
    logits = torch.nn.functional.interpolate(coarse, size=(30, 44), mode="bilinear").to(dtype)
    probs = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
    probs[..., 0, 0] = 0
    return probs


def decoders(mode):
    """Of every kind that shares, at several temperatures, and some that do not."""
    void = {"unassigned_policy": "void"} if mode == "multiclass" else {}
    frequencies = [1.0, 0.9, 0.5, 0.3, 0.2, 0.1]
    several = [
        *(
            RankSEG(metric, output_mode=mode, pruning_prob=each)
            for metric in ("dice", "iou")
            for each in (0.5, 0.3, 0.0)
        ),
        RankSEG("dice", 10.0, output_mode=mode),
        RankSEG("dice", 1e20, output_mode=mode, solver="exact"),
        RankSEG("iou", output_mode=mode, pruning_prob=0.3, **void),
        *(
            PresenceRankSEG(CLASSES, rule=each, output_mode=mode, frequencies=frequencies)
            for each in ("score", 0.2, 0.95)
        ),
        RankSEG("acc", output_mode=mode),
    ]
    found = {f"{index} alone": each for index, each in enumerate(several)}
    for temperature in (0.7, 1.0, 1.4):
        for index, each in enumerate(several):
            found[f"{index} at {temperature}"] = TunedDecoder(each, CLASSES, temperature)
    return found


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_decides_as_alone(mode, dtype):
    probs = image(mode, dtype)
    found = decide_each(decoders(mode), probs)
    assert list(found) == list(decoders(mode))
    by_key = {}
    for name, decoder in decoders(mode).items():
        assert torch.equal(found[name].decision, decoder(probs)), name
        assert torch.equal(by_key.setdefault(found[name].key, found[name].decision), found[name].decision), name
    # Some of them agree, and were not decided again.
    assert len(by_key) < len(found)
    assert torch.equal(probs, image(mode, dtype))


def test_what_a_user_adds_is_called():
    calls = []

    class Own(RankSEG):
        def forward(self, probs, valid_mask=None, active=None):
            calls.append("class")
            return super().forward(probs, valid_mask, active)

    hooked = TunedDecoder(RankSEG(), CLASSES, 0.7)
    hooked.decoder.register_forward_hook(lambda *_: calls.append("hook"))
    given = {
        "a": RankSEG(),
        "b": RankSEG(),
        "own": Own(),
        "hooked": hooked,
        "other": TunedDecoder(RankSEG(), CLASSES, 0.7),
    }
    found = decide_each(given, image("multiclass"))
    assert sorted(calls) == ["class", "hook"]
    assert found["a"].key == found["b"].key
    assert len({each.key for each in found.values()}) == 4


def test_sums_are_looked_at():
    decoders = {"a": RankSEG(pruning_prob=0.3), "b": RankSEG()}
    with pytest.warns(UserWarning, match="must add up to 1"):
        decide_each(decoders, torch.full((1, 3, 4, 5), 0.6))


def test_everybody_is_charged(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def work(seconds, *before):
        for each in before:
            each()
        now[0] += seconds
        return seconds

    clock = Clock()
    image, first, second = Once(clock), Once(clock), Once(clock)

    def charged(once, seconds):
        start = clock.now()
        once("scaled", lambda: work(2, lambda: image("logits", lambda: work(5))))
        work(seconds)
        return clock.now() - start

    assert [charged(*each) for each in ((first, 1), (first, 10), (second, 1), (second, 0))] == [8, 17, 8, 7]
    assert now[0] == 5 + 2 + 1 + 10 + 2 + 1
