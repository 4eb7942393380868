"""Temperature scaling against a grid, known temperatures and the one-channel form."""

import math
import warnings

import numpy as np
import pytest
import torch

from rankseg_plugins.calibration.scaling import TemperatureScaling
from rankseg_plugins.calibration.temperature import probs_at, warn_if_softened
from rankseg_plugins.core.inputs.probabilities import to_probabilities


def drawn(temperature, classes=4, images=4, pixels=2500, seed=0):
    """Logits, and labels drawn from softmax(logits / temperature)."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, classes, pixels, generator=generator)
    probs = (logits / temperature).softmax(1).movedim(1, -1).flatten(0, 1)
    return logits, torch.multinomial(probs, 1, generator=generator).view(images, pixels)


def fit(values, labels, ignore_index=None, **options):
    scaling = TemperatureScaling(values.shape[1], **options)
    for batch, truth in zip(values.split(2), labels.split(2), strict=True):
        scaling.update(batch, truth, ignore_index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return scaling, scaling.fit()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("activation", ["softmax", "identity"])
def test_finds_the_temperature_of_logits_and_probabilities(temperature, activation):
    logits, labels = drawn(temperature)
    values = logits if activation == "softmax" else logits.softmax(1)
    scaling, found = fit(values, labels, activation=activation)
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.loss[1] <= found.loss[0]
    assert found.error[1] < 0.012
    torch.testing.assert_close(scaling(values), (logits / scaling.temperature).softmax(1), rtol=1e-4, atol=1e-6)
    assert (found.error[0] > 3 * found.error[1]) == (temperature != 1)


def test_no_other_temperature_is_likelier():
    logits, labels = drawn(1.7, pixels=300)
    _, found = fit(logits, labels, activation="softmax")

    def loss(temperature):
        return torch.nn.functional.cross_entropy(logits.double() / temperature, labels).item()

    grid = np.geomspace(0.3, 6, 400)
    assert found.loss[1] <= min(map(loss, grid)) + 1e-9
    assert found.loss[0] == pytest.approx(loss(1), abs=1e-6)


def test_one_temperature_for_each_class():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4, 2, 20_000, generator=generator)
    true = torch.tensor([0.5, 2.0]).view(1, 2, 1)
    masks = torch.rand(logits.shape, generator=generator) < (logits / true).sigmoid()
    scaling, found = fit(logits, masks, activation="sigmoid", output_mode="multilabel", by_class=True)
    assert found.temperature == pytest.approx([0.5, 2.0], rel=0.06)
    torch.testing.assert_close(scaling(logits), (logits / scaling.temperature.view(1, 2, 1)).sigmoid())
    multiclass, labels = drawn(1.0)
    single, split = (fit(multiclass, labels, activation="softmax", by_class=each)[1] for each in (False, True))
    assert split.temperature.shape == (4,)
    assert split.loss[1] <= single.loss[1] + 1e-9


def test_one_channel_equals_two():
    logits, labels = drawn(2.0, classes=2, pixels=500)
    _, two = fit(logits.softmax(1), labels)
    _, one = fit(logits.softmax(1)[:, 1:], labels, output_mode="multilabel")
    assert one.temperature == pytest.approx(two.temperature, rel=1e-3)
    assert one.loss == pytest.approx(two.loss, abs=1e-5)


def test_ignored_pixels_and_a_bounded_sample():
    logits, labels = drawn(2.0)
    labels[:, ::2] = 255
    _, ignoring = fit(logits, labels, 255, activation="softmax")
    _, without = fit(logits[:, :, 1::2], labels[:, 1::2], activation="softmax")
    assert ignoring.temperature == pytest.approx(without.temperature, rel=1e-4)
    scaling, small = fit(logits, labels, 255, activation="softmax", max_pixels=1000)
    assert len(scaling._sample.rows) == 1000
    assert small.temperature == pytest.approx(2.0, rel=0.2)


def test_a_class_that_never_occurs_leaves_the_others_alone():
    logits, labels = drawn(2.0, classes=3)
    absent = torch.full((len(logits), 1, logits.shape[2]), -4.0)
    scaling, found = fit(torch.cat([logits, absent], 1), labels, activation="softmax", by_class=True)
    assert found.temperature[:3] == pytest.approx(2.0, rel=0.1)
    assert 0.04 < found.temperature[3] < 21
    assert scaling(torch.cat([logits, absent], 1)).isfinite().all()


def at_temperature(probs, temperatures, mode):
    """In NumPy's float64, where no power is formed that could vanish: only ratios to the largest one."""
    p = probs.double().numpy()
    exponent = 1 / np.resize(temperatures, p.shape[1]).reshape(-1, *[1] * (p.ndim - 2))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        logs = np.log(p) * exponent
        if mode == "multilabel":
            return 1 / (1 + np.exp(np.log1p(-p) * exponent - logs))
        powers = np.exp(logs - logs.max(1, keepdims=True))
        powers *= p.sum(1, keepdims=True) / powers.sum(1, keepdims=True)
    return np.where(p.sum(1, keepdims=True) == 0, 0, powers).clip(max=1)


def awkward(mode, dtype):
    """Usual pixels, then zeros, certainties, ties, hardly anything, and pixels that do not sum to 1."""
    usual = 4 * torch.randn(1, 3, 60, generator=torch.Generator().manual_seed(0))
    pixels = [(0, 0, 0), (1, 0, 0), (0.5, 0.5, 0), (0.3, 0.3, 0.3), (6e-8, 0, 0), (0.2, 0.1, 0), (0.9, 0.8, 0.7)]
    usual = usual.softmax(1) if mode == "multiclass" else usual.sigmoid()
    return torch.cat([usual, torch.tensor(pixels).T[None]], 2).to(dtype)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.001, 0.03, 0.5, 0.999, 1.0, 1.0001, 1.7, 10.0, 1000.0])
def test_probabilities_at_a_temperature_are_those_of_the_formula(mode, dtype, temperature):
    probs = awkward(mode, dtype)
    scaling = TemperatureScaling(3, output_mode=mode)
    scaling.temperature.fill_(temperature)
    found, wanted = scaling(probs), at_temperature(probs, temperature, mode)
    # A logarithm's last digit is divided by the temperature.
    close = {"rtol": 2e-5, "atol": 1e-6 * max(1, 0.5 / temperature)}
    np.testing.assert_allclose(found.double().numpy(), wanted, **close)
    assert ((found >= 0) & (found <= 1)).all()  # no NaN either
    assert (found[probs == 0] == 0).all()
    if mode == "multilabel":
        assert (found[probs == 1] == 1).all()
    if temperature == 1:
        torch.testing.assert_close(found.double(), probs.double(), rtol=0, atol=1e-6)
    assert torch.equal(probs_at(probs, temperature, mode), probs if temperature == 1 else found)
    by_class = TemperatureScaling(3, by_class=True, output_mode=mode)
    temperatures = [temperature, 1.0, 0.5]
    by_class.temperature.copy_(torch.tensor(temperatures))
    np.testing.assert_allclose(by_class(probs).double().numpy(), at_temperature(probs, temperatures, mode), **close)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "normalize", "identity"])
def test_without_a_temperature_every_activation_is_left_alone(mode, activation):
    values = awkward("multilabel", torch.float32)
    found = TemperatureScaling(3, activation=activation, output_mode=mode)(values)
    wanted = to_probabilities(values, activation)
    if (activation, mode) == ("sigmoid", "multiclass"):
        assert (wanted.sum(1) > 1).any()  # these do not sum to 1, and need not
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan"), 1e9])
def test_temperatures_that_are_none(temperature):
    with pytest.raises(ValueError, match=r"temperature must be in \[0\.001, 1000\]"):
        probs_at(torch.full((1, 2, 3), 0.5), temperature)


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_only_a_zero_of_what_is_true_counts_against_a_temperature(mode):
    """Pixels that are certain and right change nothing; one that is certain and wrong costs as much as its floor."""
    logits, labels = drawn(2.0, classes=3, images=2, pixels=400)
    truth = labels if mode == "multiclass" else labels.unsqueeze(1) == torch.arange(3).view(-1, 1)
    probs = logits.softmax(1)
    _, expected = fit(probs, truth, output_mode=mode)
    right = torch.zeros(2, 3, 50)
    right[:, 1] = 1
    certain = torch.ones(2, 50).long() if mode == "multiclass" else right.bool()
    _, found = fit(torch.cat([probs, right], 2), torch.cat([truth, certain], -1), output_mode=mode)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-4)
    assert found.loss == pytest.approx(np.multiply(expected.loss, 400 / 450), rel=1e-6)
    wrong = certain * 2 if mode == "multiclass" else ~certain
    scaling, worse = fit(torch.cat([probs, right], 2), torch.cat([truth, wrong], -1), output_mode=mode)
    floor = -math.log(1e-12 if mode == "multiclass" else 1e-7)
    assert worse.loss[0] == pytest.approx(found.loss[0] + floor * 50 / 450, rel=1e-6)
    assert np.isfinite(worse.loss).all()
    assert worse.temperature > 2 * found.temperature
    assert torch.equal(scaling(right), right)


def test_pixels_without_any_probability_do_not_count():
    logits, labels = drawn(2.0)
    nothing = torch.zeros(4, 4, 100)
    more = torch.cat([logits.softmax(1), nothing], 2), torch.cat([labels, torch.ones(4, 100).long()], 1)
    scaling, found = fit(*more)
    assert found.loss == fit(logits.softmax(1), labels)[1].loss
    assert torch.equal(scaling(nothing), nothing)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "normalize", "identity"])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_values_at_ignored_pixels_may_be_anything(activation, mode):
    logits, labels = drawn(2.0, classes=3, pixels=300)
    values = logits if activation in ("softmax", "sigmoid") else logits.softmax(1)
    ignoring = labels.clone()
    ignoring[:, 100:] = 255
    options = {"activation": activation, "output_mode": mode}
    for bad in (-5.0, torch.inf, -torch.inf, torch.nan):
        broken = values.clone()
        broken[:, :, 100:] = bad
        scaling, found = fit(broken, ignoring, 255, **options)
        assert found.loss == fit(values[:, :, :100], labels[:, :100], **options)[1].loss
    with pytest.raises(ValueError, match="must be finite"):
        scaling.update(broken, labels)


def test_state_dict():
    logits, labels = drawn(2.0)
    scaling, _ = fit(logits, labels, activation="softmax")
    other = TemperatureScaling(4, activation="softmax")
    other.load_state_dict(scaling.state_dict())
    assert torch.equal(other(logits), scaling(logits))


def test_warns_of_probabilities_that_are_too_unsure():
    logits, labels = drawn(1.0)
    twice = TemperatureScaling(4)
    twice.update(logits.softmax(1).softmax(1), labels)
    with pytest.warns(UserWarning, match="softmax was applied twice"):
        assert twice.fit().temperature < 0.5
    sure = TemperatureScaling(4)
    sure.update(logits.softmax(1), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sure.fit()


@pytest.mark.parametrize("classes", [1, 2, 3, 19])
def test_recognises_what_was_activated_twice(classes):
    logits = 4 * torch.randn(2, classes, 50, generator=torch.Generator().manual_seed(1))
    activate = torch.sigmoid if classes == 1 else lambda values: values.softmax(1)
    with pytest.warns(UserWarning, match="applied twice"):
        assert warn_if_softened(activate(activate(logits)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_if_softened(activate(logits))
        assert not warn_if_softened(torch.full((1, 3, 4), 1 / 3))
        assert not warn_if_softened(torch.full((1, 1, 4), 0.5))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("activation", "classes"), [("softmax", 3), ("sigmoid", 1), ("normalize", 3)])
def test_recognises_it_from_what_it_is_made_of(activation, classes, layout, monkeypatch):
    """Piece by piece: a single pixel that is surer, in any of them, is enough to clear the image."""
    monkeypatch.setattr("rankseg_plugins.calibration.temperature.PIXELS_AT_ONCE", 64)
    twice = (4 * torch.randn(1, classes, 40, 30, generator=torch.Generator().manual_seed(1))).sigmoid()
    twice = (twice.exp() if activation == "normalize" else twice).contiguous(memory_format=layout)
    assert layout == torch.contiguous_format or classes == 1 or not twice.is_contiguous()
    with pytest.warns(UserWarning, match="applied twice"):
        assert warn_if_softened(twice, activation)
    for row in (0, 20, 39):
        cleared = twice.clone()
        cleared[0, 0, row, 7] = 20.0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not warn_if_softened(cleared, activation)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_values_that_are_not_finite_are_refused_and_leave_nothing_behind(mode, bad):
    logits, labels = drawn(2.0)
    activation = "softmax" if mode == "multiclass" else "sigmoid"
    truth = labels if mode == "multiclass" else labels.unsqueeze(1) == torch.arange(4).view(-1, 1)
    scaling, plain = (TemperatureScaling(4, activation=activation, output_mode=mode) for _ in range(2))
    broken = logits.clone()
    broken[1, 2, 3] = bad
    with pytest.raises(ValueError, match="values must be finite where they count"):
        scaling.update(broken, truth)
    for each in (scaling, plain):
        each.update(logits, truth)
    assert scaling.fit().loss == plain.fit().loss
    if mode == "multiclass":
        ignoring = labels.clone()
        ignoring[1, 3] = 255
        assert np.isfinite(fit(broken, ignoring, 255, activation="softmax")[1].loss).all()


def test_classes_that_are_ruled_out_change_nothing():
    """A fifth class whose logit is -inf everywhere, and pixels where only one class is left."""
    logits, labels = drawn(2.0)
    more = torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], 1)
    _, expected = fit(logits, labels, activation="softmax")
    scaling, found = fit(more, labels, activation="softmax")
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-6)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert (scaling(more)[:, 4] == 0).all()
    assert scaling(more).isfinite().all()
    with pytest.raises(ValueError, match="values hold -inf for the class of a label"):
        fit(more, labels.masked_fill(labels == 1, 4), activation="softmax")
    with pytest.raises(ValueError, match="values must be finite where they count"):
        fit(torch.full_like(logits, -torch.inf), labels, activation="softmax")
    masks = torch.ones_like(logits, dtype=torch.bool)
    with pytest.raises(ValueError, match="values must be finite where they count"):
        fit(torch.full_like(logits, -torch.inf), masks, activation="sigmoid", output_mode="multilabel")


def test_a_loss_that_is_not_finite_is_no_fit():
    scaling = TemperatureScaling(2)
    scaling.update(torch.full((1, 2, 5), 0.5), torch.zeros(1, 5, dtype=torch.int64))
    scaling._sample.rows[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the loss of the sample must be finite, got nan before the fit"):
        scaling.fit()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"num_classes": 3.0}, TypeError, "num_classes must be an integer, got float"),
        ({"num_classes": "3"}, TypeError, "num_classes must be an integer, got str"),
        ({"num_classes": 0}, ValueError, "num_classes and max_pixels must be at least 1, got 0"),
        ({"num_classes": 3, "max_pixels": 1.5}, TypeError, "max_pixels must be an integer, got float"),
        ({"num_classes": 3, "seed": "a"}, TypeError, "seed must be an integer, got str"),
    ],
)
def test_bad_options(options, kind, message):
    with pytest.raises(kind, match=message):
        TemperatureScaling(**options)


def test_batches_that_do_not_fit():
    scaling, values = TemperatureScaling(2), torch.full((2, 2, 9), 0.5)
    labels = torch.zeros(2, 9, dtype=torch.int64)
    with pytest.raises(ValueError, match="labels must hold one image for each of 2 in values, got 1"):
        scaling.update(values, labels[:1])
    with pytest.raises(TypeError, match="ignore_index must be an integer, got str"):
        scaling.update(values, labels, "255")
    scaling.update(values[:0], labels[:0])
    assert scaling(values[:0]).shape == (0, 2, 9)
    with pytest.raises(RuntimeError, match="no pixels to fit"):
        scaling.fit()
    scaling.update(values, labels.unsqueeze(1))
    assert scaling.fit().loss[0] == pytest.approx(np.log(2), abs=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="needs output_mode='multilabel'"):
        TemperatureScaling(1)
    with pytest.raises(ValueError, match="activation must be one of"):
        TemperatureScaling(2, activation="tanh")
    scaling = TemperatureScaling(2)
    with pytest.raises(RuntimeError, match="no pixels to fit"):
        scaling.fit()
    with pytest.raises(ValueError, match="must lie in"):
        scaling.update(torch.randn(1, 2, 9) * 5, torch.zeros(1, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="must have 2 classes"):
        scaling(torch.rand(1, 3, 9))


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="output_mode must be one of"):
        probs_at(torch.full((1, 2, 3), 0.5), 2.0, "multi")
