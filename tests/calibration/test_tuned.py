"""A tuned decoder beside checkpoints, and its file: nothing but a whole and valid one is taken."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TemperatureScaling, TunedDecoder
from rankseg_plugins.calibration.temperature import probs_at

CLASSES = 3


def probabilities(mode="multiclass", count=8, seed=0):
    logits = 2 * torch.randn(count, CLASSES, 20, 20, generator=torch.Generator().manual_seed(seed))
    logits -= torch.arange(CLASSES).view(-1, 1, 1)
    return logits.softmax(1) if mode == "multiclass" else logits.sigmoid()


def fitted(mode="multiclass"):
    decoder = GlobalRankSEG(CLASSES, output_mode=mode, min_gain=0)
    decoder.update(probabilities(mode))
    decoder.fit()
    return decoder


def knowing(mode="multiclass", **options):
    decoder = PresenceRankSEG(CLASSES, output_mode=mode, **options)
    probs = probabilities(mode)
    decoder.update(probs, probs > 0.6)
    decoder.fit()
    return decoder


INNER = {
    "samplewise": lambda: RankSEG("iou", pruning_prob=0.1),
    "global": fitted,
    "masks": lambda: fitted("multilabel"),
    "presence": lambda: knowing(excluded=[0], solver="exact"),
    "presence above a threshold": lambda: knowing(rule=0.3),
    "presence by labels": lambda: knowing(present="label"),
    "presence of masks": lambda: knowing("multilabel", level="class"),
    "frequencies": lambda: PresenceRankSEG(CLASSES, "iou", frequencies=[0.9, 0.5, 0.1]),
}


@pytest.fixture(params=INNER)
def decoder(request):
    return TunedDecoder(INNER[request.param](), CLASSES, 0.7)


def test_a_checkpoint_neither_holds_nor_changes_it(decoder):
    """Weights that were saved beside any other decision load, and its own decision stays."""
    probs = probabilities(decoder.output_mode, seed=1)
    before = decoder(probs)
    assert decoder.state_dict() == {}
    inside, plain = (nn.ModuleList([nn.Linear(2, 2), each]) for each in (decoder, RankSEG()))
    other = nn.ModuleList([nn.Linear(2, 2), TunedDecoder(RankSEG("acc"), CLASSES, 1.4)])
    for each in (plain, other):
        inside.load_state_dict(each.state_dict())
        each.load_state_dict(inside.state_dict())
    assert torch.equal(decoder(probs), before)
    assert decoder.temperature == 0.7


def test_the_decoder_that_was_given_keeps_its_own_state():
    inner = fitted()
    rule = inner.offset.clone()
    tuned = TunedDecoder(inner, CLASSES)
    assert set(inner.state_dict()) == {"scale", "offset", "multilabel"}
    inner.offset.zero_()
    assert torch.equal(tuned.decoder.offset, rule)


def test_no_conversion_rounds_it(decoder):
    probs = probabilities(decoder.output_mode, seed=1)
    before, found = decoder(probs), decoder.to_dict()
    module = nn.ModuleList([nn.Linear(2, 2), decoder])
    for convert in (module.half, module.double, module.bfloat16):
        convert()
        assert decoder.to_dict() == found
        assert torch.equal(decoder(probs), before)


def test_it_goes_to_the_device_of_the_module_around_it():
    decoder = TunedDecoder(fitted(), CLASSES)
    nn.Sequential(decoder).to("meta")
    assert decoder.decoder.scale.device.type == decoder.decoder.offset.device.type == "meta"


def wrapped_again(decoder):
    return TunedDecoder(decoder.decoder, CLASSES, decoder.temperature)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each)), wrapped_again])
def test_copies_decide_alike(decoder, copied):
    probs = probabilities(decoder.output_mode, seed=1)
    twin = copied(decoder)
    assert torch.equal(twin(probs), decoder(probs))
    assert twin.state_dict() == {}


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_function_is_the_formula_and_what_the_module_gives(mode, dtype):
    probs = probabilities(mode)
    scaling = TemperatureScaling(CLASSES, output_mode=mode)
    scaling.temperature.fill_(0.7)
    found = probs_at(probs.to(dtype), 0.7, mode)
    assert torch.equal(found, scaling(probs.to(dtype)))
    assert torch.equal(found, TunedDecoder(RankSEG(output_mode=mode), CLASSES, 0.7).scaling(probs.to(dtype)))
    powers = probs.double() ** (1 / 0.7)
    rest = powers.sum(1, keepdim=True) if mode == "multiclass" else powers + (1 - probs.double()) ** (1 / 0.7)
    torch.testing.assert_close(found.double(), powers / rest, atol=2e-3 if dtype == torch.float16 else 1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": {}}, "options must hold metric, .*; got nothing"),
        ({"options": []}, "options must be a JSON object"),
        ({"options": {"solver": None}}, "solver must be one of"),
        ({"options": {"pruning_prob": True}}, "pruning_prob must be a real number"),
        ({"options": {"pruning_prob": "0.5"}}, "pruning_prob must be a real number"),
        ({"options": {"seed": 0}}, "options must hold metric, .*; got metric, .*seed"),
        ({"evidence": None}, "evidence must be a JSON object, got None"),
        ({"evidence": []}, "evidence must be a JSON object"),
        ({"temperature": True}, "temperature must be a real number, got bool"),
        ({"temperature": "1"}, "temperature must be a real number"),
        ({"temperature": 10**400}, "int too large"),
        ({"temperature": None}, "temperature must be a real number"),
        ({"temperature": float("nan")}, r"temperature must be in \[0\.001, 1000\], got nan"),
        ({"temperature": 1e-300}, "temperature must be in"),
        ({"temperature": 1e9}, "temperature must be in"),
        ({"num_classes": True}, "num_classes must be an integer"),
        ({"num_classes": 3.0}, "num_classes must be an integer"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"num_classes": 1}, "a single channel cannot compete with itself"),
        ({"options": {"void_index": 2}}, "void_index must lie outside the class range 0 to 2, got 2"),
        ({"version": True}, "version True of the format is not known"),
        ({"version": 0}, r"version 0 of the format is not known here \(this is 2\)$"),
        ({"version": None}, r"version None of the format is not known here \(this is 2\)$"),
        ({"version": 3}, "version 3 of the format .*; a newer rankseg_plugins reads it"),
        ({"rule": {}}, "options must hold metric, output_mode, void_index"),
    ],
)
def test_values_that_are_missing_or_of_the_wrong_type(tmp_path, change, words):
    found = TunedDecoder(RankSEG("iou"), CLASSES, 0.7).to_dict()
    if change.get("options"):
        change = {"options": {**found["options"], **change["options"]}}
    refused(tmp_path, {**found, **change}, words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "rule must hold scale, offset; got nothing"),
        ([], "rule must be a JSON object"),
        ({"scale": [1.0] * CLASSES}, "rule must hold scale, offset; got scale"),
        ({"scale": [True] * CLASSES, "offset": [0.0] * CLASSES}, "scale of the rule must be a list of finite"),
        (
            {"scale": [float("inf")] * CLASSES, "offset": [0.0] * CLASSES},
            "scale of the rule must be a list of finite",
        ),
        ({"scale": 1.0, "offset": [0.0] * CLASSES}, "scale of the rule must be a list of finite numbers, got 1.0"),
        ({"scale": ["1"] * CLASSES, "offset": [0.0] * CLASSES}, "scale of the rule must be a list of finite"),
        ({"scale": [1.0], "offset": [0.0]}, "size mismatch for scale"),
        ({"scale": [1e39] * CLASSES, "offset": [0.0] * CLASSES}, "scale of the rule must be finite in float32"),
        ({"scale": [1.0] * CLASSES, "offset": [-1e39] * CLASSES}, "offset of the rule must be finite in float32"),
        ({"scale": [0, 1, 1], "offset": [0.0] * CLASSES}, "scale of the rule must be above 0"),
        ({"scale": [1e-60, 1, 1], "offset": [0.0] * CLASSES}, "scale of the rule must be above 0"),
    ],
)
def test_rules_that_are_none(tmp_path, change, words):
    found = TunedDecoder(fitted(), CLASSES).to_dict()
    refused(tmp_path, {**found, "rule": change}, words)
    options = {"options": TunedDecoder(RankSEG(), CLASSES).to_dict()["options"]}
    refused(tmp_path, {**found, **options}, "options must hold metric, output_mode, void_index; got metric, smooth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": None}, "weight of the presence must be a list of finite numbers, got None"),
        ({"weight": [1.0]}, "size mismatch for weight"),
        ({"offset": [None] * CLASSES}, "offset of the presence must be a list of finite numbers"),
        ({"mean_score": [None, 0.5, 0.5]}, "mean_score of the presence must be a list of finite numbers"),
        ({"below": [7.0]}, "below of the presence must be finite and lie in"),
        ({"other": [1.0]}, "presence must hold weight, offset, floor, below, slope, intercept, mean_score; got"),
    ],
)
def test_presence_that_is_none(tmp_path, change, words):
    found = TunedDecoder(knowing(), CLASSES).to_dict()
    refused(tmp_path, {**found, "presence": {**found["presence"], **change}}, words)
    rule = TunedDecoder(fitted(), CLASSES).to_dict()["rule"]
    refused(tmp_path, {**found, "rule": rule}, "has a rule for the whole data set or knows of presence, not both")


@pytest.mark.parametrize("inner", ["samplewise", "global"])
def test_files_of_the_first_version_load(tmp_path, inner):
    """It knew no presence."""
    decoder = TunedDecoder(INNER[inner](), CLASSES, 0.7)
    found = {**decoder.to_dict(), "version": 1}
    del found["presence"]
    (tmp_path / "decoder.json").write_text(json.dumps(found))
    probs = probabilities()
    assert torch.equal(TunedDecoder.load(tmp_path / "decoder.json")(probs), decoder(probs))
    refused(tmp_path, {**found, "presence": None}, "a decoder holds format, version")


def test_one_that_is_not_fitted_is_refused():
    with pytest.raises(ValueError, match="decoder is a PresenceRankSEG that is not fitted"):
        TunedDecoder(PresenceRankSEG(CLASSES), CLASSES)


def refused(folder, found, words):
    (folder / "decoder.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=rf"(?s)decoder\.json: .*{words}"):
        TunedDecoder.load(folder / "decoder.json")


@pytest.mark.parametrize("content", ["", "{", b"\xff\xfe"])
def test_what_is_not_json_is_called_so(tmp_path, content):
    path = tmp_path / "decoder.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"decoder\.json: not JSON: "):
        TunedDecoder.load(path)


@pytest.mark.parametrize(("gain", "error"), [(float("nan"), ValueError), ({1}, TypeError)])
def test_evidence_that_json_does_not_hold_is_not_written(tmp_path, gain, error):
    decoder = TunedDecoder(RankSEG(), CLASSES, evidence={"gain": gain})
    with pytest.raises(error, match="evidence must hold values of JSON, and None for NaN: "):
        decoder.save(tmp_path / "decoder.json")
    assert not list(tmp_path.iterdir())


def test_a_rule_for_other_classes_is_refused():
    with pytest.raises(ValueError, match="decoder is for num_classes=3, got num_classes=4"):
        TunedDecoder(fitted(), 4)


def test_a_write_that_is_cut_off_leaves_the_file_as_it_was(tmp_path):
    """The disk takes no more than some bytes of any file."""
    resource = pytest.importorskip("resource", reason="this system sets no limits")
    path = tmp_path / "decoder.json"
    TunedDecoder(RankSEG(), CLASSES).save(path)
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    larger = TunedDecoder(RankSEG(), CLASSES, evidence={"verdict": "x" * 5000})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"decoder\.json") as error:
            larger.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.filename == str(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["decoder.json"]
    larger.save(path)
    assert TunedDecoder.load(path).evidence == larger.evidence


def test_pixels_without_data(decoder):
    """They may be NaN, as for the decoder inside."""
    probs = probabilities("multiclass" if decoder.output_mode == "multiclass" else "multilabel", count=2)
    valid = torch.ones(20, 20, dtype=torch.bool)
    valid[:, 15:] = False
    nothing = probs.masked_fill(~valid, float("nan"))
    assert torch.equal(decoder(nothing, valid), decoder(probs, valid))


def test_evidence_is_a_dict():
    with pytest.raises(TypeError, match=r"evidence must be a dict of values that JSON holds, got \[1\]"):
        TunedDecoder(RankSEG(), CLASSES, evidence=[1])
