"""What was found from data stays as it was found: through conversions, inference mode, default devices and graphs."""

import copy
import pickle

import pytest
import torch
from torch import nn

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TemperatureScaling, TunedDecoder
from rankseg_plugins.core.pooled.decoder import RULE
from rankseg_plugins.core.pooled.fit import affine_argmax

CLASSES = 4
MODES = ("multiclass", "multilabel")


def network(mode="multiclass", seed=0, images=8):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, CLASSES, 25, 20, generator=generator)
    logits -= torch.arange(CLASSES).view(-1, 1, 1)
    labels = torch.multinomial(logits.softmax(1).movedim(1, -1).flatten(0, -2), 1, generator=generator)
    return logits.softmax(1) if mode == "multiclass" else logits.sigmoid(), labels.view(images, 25, 20)


def fitted(mode="multiclass", **options):
    decoder = GlobalRankSEG(CLASSES, output_mode=mode, min_gain=0, **options)
    decoder.update(network(mode)[0])
    decoder.fit()
    return decoder


def calibrated(mode="multiclass"):
    scaling = TemperatureScaling(CLASSES, by_class=True, output_mode=mode)
    probs, labels = network(mode)
    scaling.update(probs, labels if mode == "multiclass" else labels.unsqueeze(1) == torch.arange(4).view(-1, 1, 1))
    scaling.fit()
    return scaling


MAKERS = {"rule": fitted, "temperature": calibrated, "tuned": lambda mode: TunedDecoder(fitted(mode), CLASSES, 0.7)}


@pytest.fixture(params=[(name, mode) for name in MAKERS for mode in MODES], ids="-".join)
def module(request):
    name, mode = request.param
    return MAKERS[name](mode), network(mode, seed=1)[0]


CONVERSIONS = {
    "half": nn.Module.half,
    "bfloat16": nn.Module.bfloat16,
    "float": nn.Module.float,
    "double": nn.Module.double,
    "to": lambda each: each.to(torch.float16),
    "type": lambda each: each.type(torch.float16),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
@pytest.mark.parametrize("around", [False, True])
def test_no_conversion_rounds_it(module, convert, around):
    module, probs = module
    wanted, before = module(probs), [each.clone() for each in module.buffers()]
    convert(nn.ModuleList([nn.Linear(2, 2), module]) if around else module)
    for found, each in zip(module.buffers(), before, strict=True):
        assert found.dtype == each.dtype
        assert torch.equal(found, each)
    assert torch.equal(module(probs), wanted)


def test_a_rule_is_float64_from_the_fit_to_the_file(tmp_path):
    decoder = fitted()
    assert decoder.scale.dtype == decoder.offset.dtype == torch.float64
    assert not torch.equal(decoder.offset, decoder.offset.float().double())  # there are digits to lose
    tuned = TunedDecoder(decoder, CLASSES)
    tuned.save(tmp_path / "decoder.json")
    other = GlobalRankSEG(CLASSES).half()
    other.load_state_dict(decoder.state_dict())
    for copied in (tuned.decoder, TunedDecoder.load(tmp_path / "decoder.json").decoder, other):
        for name in RULE:
            assert torch.equal(getattr(copied, name), getattr(decoder, name))


@pytest.mark.parametrize("metric", ["iou", "dice"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_decided_is_what_was_scored(metric, dtype):
    """The score of the decisions on the sample itself, from the counts in float64."""
    probs = network(images=16)[0].to(dtype)
    decoder = GlobalRankSEG(CLASSES, metric=metric, min_gain=0)
    decoder.update(probs)
    found = decoder.fit()
    masks = nn.functional.one_hot(decoder(probs), CLASSES).movedim(-1, 1).double()
    p = probs.float().double()
    hits, total = (p * masks).sum((0, 2, 3)), p.sum((0, 2, 3)) + masks.sum((0, 2, 3))
    score = hits / (total - hits) if metric == "iou" else 2 * hits / total
    assert score[found.pursued].mean().item() == pytest.approx(found.after, abs=1e-12)


def test_rules_of_earlier_versions():
    """They were held and saved in float32."""
    decoder = fitted()
    state = {
        name: value.float() if value.is_floating_point() else value for name, value in decoder.state_dict().items()
    }
    found = TunedDecoder(decoder, CLASSES).to_dict()
    found["rule"] = {name: state[name].tolist() for name in RULE}
    other = GlobalRankSEG(CLASSES)
    other.load_state_dict(state)
    probs = network(seed=1)[0]
    wanted = affine_argmax(probs, state["scale"], state["offset"])
    assert torch.equal(other(probs), wanted)
    assert torch.equal(TunedDecoder.from_dict(found)(probs), wanted)


BROKEN = {
    "scale of the rule must be finite in float32": {"scale": [1, torch.inf, 1, 1]},
    "scale of the rule must be finite": {"scale": [1, torch.nan, 1, 1]},
    "offset of the rule must be finite in float32": {"offset": [0, 0, 1e39, 0]},
    "offset of the rule must be finite": {"offset": [torch.nan] * 4},
    "scale of the rule must be above 0 in float32": {"scale": [1, 0, 1, 1]},
    "scale of the rule must be above 0": {"scale": [1, -1, 1, 1]},
}


@pytest.mark.parametrize("words", BROKEN)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("around", [False, True])
def test_rules_that_cannot_decide_are_not_loaded(words, strict, around):
    decoder, before = fitted(), fitted().state_dict()
    change = {name: torch.tensor(value, dtype=torch.float64) for name, value in BROKEN[words].items()}
    state = {f"{'0.' * around}{name}": value for name, value in {**before, **change}.items()}
    with pytest.raises(RuntimeError, match=words):
        (nn.Sequential(decoder) if around else decoder).load_state_dict(state, strict=strict)
    assert torch.equal(decoder.scale, before["scale"])
    assert torch.equal(decoder.offset, before["offset"])


def test_half_a_rule_is_not_loaded():
    decoder = fitted()
    with pytest.raises(RuntimeError, match="a rule holds scale and offset, got scale alone"):
        decoder.load_state_dict({"scale": torch.ones(CLASSES)}, strict=False)
    decoder.load_state_dict({}, strict=False)
    assert decoder.fitted
    decoder.load_state_dict(GlobalRankSEG(CLASSES).state_dict())
    assert not decoder.fitted


@pytest.mark.parametrize("bad", [0.0, -1.0, torch.inf, torch.nan])
def test_temperatures_that_are_none_are_not_loaded(bad):
    with pytest.raises(RuntimeError, match="temperature must be finite and above 0"):
        TemperatureScaling(2).load_state_dict({"temperature": torch.tensor([bad])})


@pytest.mark.parametrize("name", ["rule", "temperature"])
@pytest.mark.parametrize("where", ["all", "made", "updated", "fitted", "outside", "no_grad"])
def test_inference_mode_leaves_no_mark(name, where):
    """Made, updated and fitted in and out of it, in every order: the same, and usable on either side."""
    probs, labels = network()
    make = {"rule": GlobalRankSEG, "temperature": TemperatureScaling}[name]
    wanted = make(CLASSES)
    wanted.update(probs, labels)
    score = wanted.fit()

    def mode(step):
        return torch.no_grad() if where == "no_grad" else torch.inference_mode(where in ("all", step))

    with mode("made"):
        found = make(CLASSES)
    with mode("updated"):
        found.update(probs + 0, labels + 0)
        found.update(probs[:0], labels[:0])
    with mode("fitted"):
        assert str(found.fit()) == str(score)
    for inside in (True, False):
        with torch.inference_mode(inside):
            for copied in (found, copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
                assert torch.equal(copied(probs), wanted(probs))
    with torch.inference_mode():
        twin = copy.deepcopy(found).half()
        again = make(CLASSES)
        again.load_state_dict(found.state_dict())
    for other in (twin, again):
        other.load_state_dict(wanted.state_dict())
        other.update(probs, labels)
        other.fit()
        assert torch.equal(other(probs), wanted(probs))


def test_gradients_are_not_recorded():
    probs, labels = network()
    inputs = probs.clone().requires_grad_()
    for make in (GlobalRankSEG, TemperatureScaling):
        module = make(CLASSES)
        module.update(inputs, labels)
        module.fit()
        assert not module(inputs).requires_grad
        assert not any(buffer.requires_grad for buffer in module.buffers())
    assert not TunedDecoder(RankSEG(), CLASSES, 0.7).scaling(inputs).requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_another_default_device(mode):
    """A default device where nothing has a value: everything is worked out where the probabilities are."""
    probs, labels = network(mode)
    truth = labels if mode == "multiclass" else labels.unsqueeze(1) == torch.arange(CLASSES).view(-1, 1, 1)
    for make in (GlobalRankSEG, PresenceRankSEG, TemperatureScaling):
        wanted = make(CLASSES, output_mode=mode)
        wanted.update(probs, truth)
        score = wanted.fit()
        with torch.device("meta"):
            found = make(CLASSES, output_mode=mode)
            found.update(probs, truth)
            assert str(found.fit()).replace(", device='cpu'", "") == str(score)
            assert torch.equal(found(probs).cpu(), wanted(probs))
            if make is GlobalRankSEG:
                tuned = TunedDecoder(found, CLASSES, 0.7)
                copied = TunedDecoder.from_dict(tuned.to_dict())(probs)
        if make is GlobalRankSEG:
            assert torch.equal(copied, TunedDecoder(wanted, CLASSES, 0.7)(probs))


#: What is made, with a mask or without one, and whether the quick run takes it: each with one, each without one.
GRAPHS = [
    ("rule", "multiclass", 0, True),
    ("rule", "multiclass", 1, False),
    ("rule", "multilabel", 0, False),
    ("rule", "multilabel", 1, True),
    ("temperature", "multiclass", 0, True),
    ("temperature", "multilabel", 0, True),
    ("tuned", "multiclass", 0, False),
    ("tuned", "multiclass", 1, True),
    ("tuned", "multilabel", 0, True),
    ("tuned", "multilabel", 1, False),
]


class TestGraphs:
    """The decisions of a module that is exported, compiled, mapped or traced, with and without a mask."""

    @pytest.fixture(
        autouse=True,
        params=[
            pytest.param((name, mode, masked), marks=() if quick else pytest.mark.exhaustive)
            for name, mode, masked, quick in GRAPHS
        ],
        ids=lambda each: "-".join(map(str, each)),
    )
    def arguments(self, request):
        torch._dynamo.reset()
        name, mode, masked = request.param
        probs = network(mode, seed=1)[0]
        valid = torch.rand(probs.shape[0], 25, 20, generator=torch.Generator().manual_seed(2)) > 0.3
        self.module, self.given = MAKERS[name](mode), (probs, valid)[: 1 + masked]
        self.wanted = self.module(*self.given)

    def agree(self, found):
        torch.testing.assert_close(found, self.wanted, rtol=1e-6, atol=1e-7)

    def test_exported_for_any_number_of_images(self, tmp_path):
        sizes = tuple({0: torch.export.Dim("images", min=1)} for _ in self.given)
        program = torch.export.export(self.module, tuple(each[:3] for each in self.given), dynamic_shapes=sizes)
        torch.export.save(program, tmp_path / "decoder.pt2")
        self.agree(torch.export.load(tmp_path / "decoder.pt2").module()(*self.given))

    def test_compiled(self):
        self.agree(torch.compile(self.module, fullgraph=True, backend="aot_eager")(*self.given))

    def test_mapped(self):
        stacked = [torch.stack([each, each.flip(0)]) for each in self.given]
        self.agree(torch.func.vmap(self.module)(*stacked)[0])

    @pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
    def test_traced(self):
        self.agree(torch.jit.trace(self.module, self.given)(*self.given))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_graph_of_what_is_not_fitted_is_refused():
    probs, _ = network()
    for attempt in (
        lambda: torch.export.export(GlobalRankSEG(CLASSES), (probs,)),
        lambda: torch.func.vmap(GlobalRankSEG(CLASSES))(probs[None]),
        lambda: torch.jit.trace(GlobalRankSEG(CLASSES), probs),
    ):
        with pytest.raises(RuntimeError, match="GlobalRankSEG is not fitted"):
            attempt()


def test_a_graph_still_refuses_bad_values():
    for module in (fitted(), TunedDecoder(RankSEG(), CLASSES, 0.7)):
        torch._dynamo.reset()
        with pytest.raises(RuntimeError, match="probs must be finite"):
            torch.compile(module, fullgraph=True, backend="aot_eager")(torch.full((1, CLASSES, 9), 7.0))


def test_it_goes_to_other_devices_and_can_be_emptied_there():
    decoder = nn.Sequential(fitted()).to("meta")
    assert decoder[0].scale.is_meta
    assert decoder.to_empty(device="cpu")[0].scale.dtype == torch.float64


def test_a_device_without_float64():
    """As MPS: conversion of a float64 tensor raises a TypeError there."""

    def to_device(tensor):
        if tensor.dtype == torch.float64:
            raise TypeError("this device does not support float64")
        return tensor.clone()

    decoder, probs = fitted(), network(seed=1)[0]
    wanted = decoder(probs)
    decoder._apply(to_device)
    assert decoder.scale.dtype == torch.float32
    assert torch.equal(decoder(probs), wanted)
