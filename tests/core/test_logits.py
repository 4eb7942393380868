"""Decisions from logits are those on the probabilities that these mean, in float64 and plain numpy."""

import itertools
import warnings

import pytest
import torch
from oracles import at_temperature, probabilities
from sweeps import sweep

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG, rankseg
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.core.inputs.pixels import Pixels

CLASSES, SIZE = 4, (11, 13)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ACTIVATIONS = ["softmax", "sigmoid", "normalize", "identity"]
MODES = ["multiclass", "multilabel"]
OPTIONS = [
    *({"metric": metric, "smooth": smooth} for metric in ("dice", "iou") for smooth in (0.0, 1.0)),
    {"metric": "dice", "pruning_prob": 0.1, "solver": "exact"},
    {"metric": "iou", "pruning_prob": 0.1, "solver": "exact"},
    {"metric": "acc"},
]
MULTICLASS = [*OPTIONS, {"unassigned_policy": "void", "void_index": -1}]
MULTILABEL = [
    *OPTIONS,
    {"metric": "acc", "solver": "argmax"},
    *({"solver": name} for name in ("BA", "TRNA", "BA+TRNA")),
]
EVERY = [
    *({"output_mode": "multiclass", **options} for options in MULTICLASS),
    *({"output_mode": "multilabel", **options} for options in MULTILABEL),
]
#: On the rare sums that are not 1, on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:multiclass probabilities must add up to 1")


def made(activation="softmax", dtype=torch.float32, batch=2, classes=CLASSES, seed=0):
    """What a network gives: smooth, of classes that are not equally likely."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(batch, classes, 4, 4, generator=generator, dtype=torch.float64)
    logits = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic") - torch.arange(classes).view(1, -1, 1, 1) / 2
    values = {"normalize": logits.exp().clamp(max=1000), "identity": logits.softmax(1)}.get(activation, logits)
    return values.to(dtype)


def meant(logits, activation, temperature=1.0):
    """The probabilities, float64."""
    return torch.from_numpy(probabilities(logits.double().numpy(), activation, temperature))


def presence(mode, **options):
    return PresenceRankSEG(CLASSES, frequencies=[0.9, 0.6, 0.3, 0.2], rule=0.3, output_mode=mode, **options)


def fitted_presence(mode):
    decoder = PresenceRankSEG(CLASSES, "iou", output_mode=mode)
    probs = meant(made(batch=30, seed=1), "softmax")
    decoder.update(probs, probs.argmax(1))
    decoder.fit()
    return decoder


def pooled(mode):
    decoder = GlobalRankSEG(CLASSES, "dice", mode, min_images=0, min_dice=0, min_gain=0)
    decoder.update(meant(made(batch=8, seed=1), "softmax"))
    decoder.fit()
    return decoder


KINDS = {
    "RankSEG": lambda mode: RankSEG(output_mode=mode, pruning_prob=0.3),
    "frequencies": presence,
    "presence": fitted_presence,
    "global": pooled,
    "tuned": lambda mode: TunedDecoder(RankSEG("iou", output_mode=mode), CLASSES),
    "tuned presence": lambda mode: TunedDecoder(fitted_presence(mode), CLASSES),
    "tuned global": lambda mode: TunedDecoder(pooled(mode), CLASSES),
}


@sweep(
    "options, activation, dtype",
    itertools.product(EVERY, ACTIVATIONS, DTYPES),
    lambda options, activation, dtype: dtype == torch.float32 or (activation == "softmax" and "solver" not in options),
)
def test_every_solver_activation_and_precision(options, activation, dtype):
    logits, decoder = made(activation, dtype), RankSEG(**options)
    found = decoder.predict_logits(logits, activation)
    assert torch.equal(found, decoder.predict(meant(logits, activation)))
    assert torch.equal(found, rankseg(logits, activation=activation, **options))
    assert found.any()
    assert not found.all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_decoder(kind, mode, activation):
    for dtype in DTYPES:
        logits, decoder = made(activation, dtype), KINDS[kind](mode)
        found = decoder.predict_logits(logits, activation)
        assert torch.equal(found, decoder.predict(meant(logits, activation))), dtype


@pytest.mark.parametrize("spatial", [(7,), (3, 4, 5)])
@pytest.mark.parametrize("mode", MODES)
def test_lines_and_volumes(mode, spatial):
    logits = 2 * torch.randn(2, CLASSES, *spatial, generator=torch.Generator().manual_seed(0))
    decoder = RankSEG(output_mode=mode)
    assert torch.equal(decoder.predict_logits(logits), decoder(meant(logits, "softmax")))


@pytest.mark.parametrize("layout", ["channels last", "crop"])
def test_layouts(layout):
    logits = made()
    other = {
        "channels last": logits.contiguous(memory_format=torch.channels_last),
        "crop": torch.cat([logits, logits], -1)[..., : SIZE[1]],
    }[layout]
    before = other.clone()
    assert torch.equal(RankSEG().predict_logits(other), RankSEG().predict_logits(logits))
    assert torch.equal(other, before)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_channel(metric, dtype):
    logits = made("sigmoid", dtype, classes=1) - 1
    decoder = RankSEG(metric, output_mode="multilabel")
    found = decoder.predict_logits(logits, "sigmoid")
    assert torch.equal(found, decoder.predict(meant(logits, "sigmoid")))
    assert (found != (logits > 0)).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_no_probabilities(dtype):
    """Where these would be rounded, other pixels would be chosen."""
    logits = torch.randn(4, CLASSES, 60, 60, generator=torch.Generator().manual_seed(0)).to(dtype)
    decoder = RankSEG(pruning_prob=0.1)
    found = decoder.predict_logits(logits)
    assert torch.equal(found, decoder(meant(logits, "softmax")))
    assert (found != decoder(logits.softmax(1))).any()


@pytest.mark.parametrize("whole_batch", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_data_may_be_anything(kind, mode, activation, whole_batch):
    logits, decoder = made(activation), KINDS[kind](mode)
    valid = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0)) < 0.7
    valid = valid[0] if whole_batch else valid
    outside = ~valid.expand(2, *SIZE).unsqueeze(1)
    expected = decoder.predict(meant(logits, activation), valid)
    outcome = expected if mode == "multiclass" else expected.movedim(1, -1)
    assert (outcome[~valid.expand(2, *SIZE)] == (255 if mode == "multiclass" else 0)).all()
    for value in (0.5, -1e4, torch.nan, torch.inf):
        filled = logits.masked_fill(outside, value)
        assert torch.equal(decoder.predict_logits(filled, activation, valid), expected), value


@pytest.mark.parametrize("options", [{"metric": "iou"}, {"metric": "dice", "smooth": 1.0}, {"metric": "acc"}])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("mode", MODES)
def test_only_these_classes(mode, activation, options):
    logits, decoder = made(activation), RankSEG(output_mode=mode, **options)
    for active in (torch.tensor([True, False, True, False]), torch.tensor([[True, True, False, False], [False] * 4])):
        found = decoder.predict_logits(logits, activation, active=active)
        assert torch.equal(found, decoder.predict(meant(logits, activation), active=active))
        assert torch.equal(found, rankseg(logits, output_mode=mode, active=active, activation=activation, **options))
    assert (found != decoder.predict_logits(logits, activation)).any()


def test_presence_that_is_given():
    logits, decoder = made(), presence("multiclass")
    likely = torch.tensor([0.1, 0.9, 0.1, 0.9])
    found = decoder.predict_logits(logits, presence=likely)
    assert torch.equal(found, decoder.predict(meant(logits, "softmax"), presence=likely))
    assert set(found.unique().tolist()) == {1, 3}


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["RankSEG", "frequencies", "presence", "global"])
def test_temperature(kind, mode, temperature):
    """Of logits it divides them; of probabilities it is a power, and their sum stays."""
    decoder = KINDS[kind](mode)
    tuned = TunedDecoder(decoder, CLASSES, temperature)
    for activation in ACTIVATIONS:
        logits = made(activation)
        probs = at_temperature(meant(logits, activation).numpy(), temperature, mode)
        expected = decoder.predict(torch.from_numpy(probs))
        assert torch.equal(tuned.predict_logits(logits, activation), expected), activation
        if activation in ("softmax", "sigmoid"):
            divided = decoder.predict(meant(logits, activation, temperature))
            assert torch.equal(decoder.predict_logits(logits, activation, temperature=temperature), divided)
    assert (expected != decoder.predict(meant(logits, activation))).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_temperature_and_no_data(dtype):
    logits = made(dtype=dtype)
    valid = torch.arange(SIZE[1]).expand(SIZE) < 9
    expected = RankSEG("iou").predict(meant(logits, "softmax", 0.5), valid)
    filled = logits.masked_fill(~valid, torch.nan)
    assert torch.equal(TunedDecoder(RankSEG("iou"), CLASSES, 0.5).predict_logits(filled, valid_mask=valid), expected)


def test_temperature_at_both_ends():
    """The largest logit alone is left, or nothing is told apart."""
    logits = made()
    decoder = RankSEG("iou", pruning_prob=0.0)
    assert torch.equal(decoder.predict_logits(logits, temperature=1e-3), logits.argmax(1))
    flat = meant(logits, "softmax", 1e3)
    assert torch.equal(decoder.predict_logits(logits, temperature=1e3), decoder(flat))


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_logits(shift):
    logits = made(dtype=torch.float64)
    assert torch.equal(RankSEG().predict_logits(logits + shift), RankSEG().predict_logits(logits))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_nan_and_infinity_are_refused(kind, mode):
    decoder = KINDS[kind](mode)
    for activation, value in (*((each, torch.nan) for each in ACTIVATIONS), ("softmax", torch.inf)):
        logits = made(activation)
        logits[1, 2, 3, 4] = value
        with pytest.raises(ValueError, match="finite"):
            decoder.predict_logits(logits, activation)
        with pytest.raises(ValueError, match="finite"):
            decoder.predict_logits(logits, activation, torch.ones(SIZE, dtype=torch.bool))


@pytest.mark.parametrize("options", EVERY)
def test_every_solver_refuses_nan(options):
    with pytest.raises(ValueError, match="finite"):
        RankSEG(**options).predict_logits(made().index_fill(3, torch.tensor([2]), torch.nan))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"logits": [[0.1]]}, TypeError, "logits must be a torch.Tensor, got list"),
        ({"logits": torch.ones(1, 4, 3, dtype=torch.int64)}, TypeError, "logits must be float16.*got torch.int64"),
        ({"logits": torch.ones(4, 3)}, ValueError, r"logits must have shape \(B, C, \*spatial\)"),
        ({"logits": torch.ones(1, 4, 0)}, ValueError, "the spatial size of logits must not be empty"),
        ({"activation": "softmx"}, ValueError, "activation must be one of 'softmax'.*got 'softmx'"),
        ({"activation": "normalize"}, ValueError, "'normalize' needs non-negative scores"),
        ({"activation": "identity"}, ValueError, r"must lie in \[0, 1\]"),
        ({"valid_mask": torch.ones(3, 4)}, TypeError, "valid_mask must be a bool tensor"),
        ({"valid_mask": torch.ones(3, 4) > 0}, ValueError, "valid_mask must have shape"),
        ({"temperature": 0.0}, ValueError, "temperature"),
        ({"temperature": "1"}, TypeError, "temperature"),
        ({"temperature": torch.nan}, ValueError, "temperature"),
        ({"temperature": 2.0, "activation": "normalize"}, ValueError, "temperature=2 divides logits"),
        ({"temperature": 2.0, "activation": "identity"}, ValueError, "temperature=2 divides logits"),
    ],
)
def test_mistakes(given, error, words):
    for decoder in (RankSEG(), presence("multiclass"), pooled("multiclass"), TunedDecoder(RankSEG(), CLASSES)):
        if "temperature" in given and isinstance(decoder, TunedDecoder):
            continue  # it has its own
        with pytest.raises(error, match=words):
            decoder.predict_logits(**{"logits": made(), **given})


@pytest.mark.parametrize("activation", ["softmax", "normalize"])
@pytest.mark.parametrize("kind", [RankSEG, lambda **mode: TunedDecoder(RankSEG(**mode), 1)])
def test_classes_that_compete_with_none(kind, activation):
    with pytest.raises(ValueError, match=f"'{activation}' over a single channel gives 1 everywhere"):
        kind(output_mode="multilabel").predict_logits(torch.ones(1, 1, 3), activation)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "RankSEG"])
def test_another_number_of_classes(kind):
    with pytest.raises(ValueError, match="logits must have 4 classes, got shape"):
        KINDS[kind]("multiclass").predict_logits(made(classes=3))


@pytest.mark.parametrize("decoder", [GlobalRankSEG(CLASSES), PresenceRankSEG(CLASSES)])
def test_without_a_fit(decoder):
    with pytest.raises(RuntimeError, match="is not fitted"):
        decoder.predict_logits(made())


def test_no_image_at_all():
    assert RankSEG().predict_logits(torch.ones(0, 4, 3, 3)).shape == (0, 3, 3)


def test_sigmoids_that_compete_are_told_once():
    decoder = RankSEG()
    with pytest.warns(UserWarning, match="must add up to 1"):
        decoder.predict_logits(made(), "sigmoid")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoder.predict_logits(made(), "sigmoid")


def test_gradients_are_not_recorded():
    assert not RankSEG(output_mode="multilabel").predict_logits(made().requires_grad_()).requires_grad


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("valid_shape", [None, (7, 5), (3, 7, 5)], ids=str)
def test_a_rule_for_a_data_set_never_holds_all_probabilities(mode, valid_shape, monkeypatch):
    """Strips of an image, and the whole at once."""
    decoder = GlobalRankSEG(CLASSES, "dice", mode, min_images=0, min_dice=0, min_gain=0)
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, CLASSES, 7, 5, generator=generator)
    decoder.update(logits.softmax(1))
    decoder.fit()
    valid = None if valid_shape is None else torch.rand(valid_shape, generator=generator) > 0.3
    expected = decoder(logits.softmax(1), valid)
    monkeypatch.setattr("rankseg_plugins.core.pooled.decoder._VALUES", 2 * 3 * 5 * CLASSES)
    seen, made = [], Pixels.probs
    monkeypatch.setattr(Pixels, "probs", lambda pixels: seen.append(pixels.values.shape[2]) or made(pixels))
    assert torch.equal(decoder.predict_logits(logits, valid_mask=valid), expected)
    assert seen == [2, 2, 2, 1]
