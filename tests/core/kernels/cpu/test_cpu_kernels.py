"""The kernels for a CPU against the graph and float64, whatever the memory looks like and however it is cut."""

import math

import numpy as np
import pytest
import torch
from by_path import decide
from numba import njit
from patterns import PATTERNS
from sweeps import sweep

from rankseg_plugins import RankSEG
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cpu.ground import source as sources
from rankseg_plugins.core.kernels.cpu.ground.reading import exponential32, from_bfloat16, from_float16
from rankseg_plugins.core.kernels.cpu.steps import CpuSteps
from rankseg_plugins.core.objectives import Dice, IoU
from rankseg_plugins.core.volumes import Classes

EPS = torch.finfo(torch.float32).eps
VOLUME = torch.randn(2, 9, 9, 14, 17, generator=torch.Generator().manual_seed(0)).mul(3)


def channels_last(volume):
    return volume[:, :, 4].contiguous(memory_format=torch.channels_last)


VIEWS = {
    "crop": lambda volume: volume[:, :, 4, 2:-3, 1:-2],
    "columns": lambda volume: volume[:, :, 4, :, :-1],
    "transposed": lambda volume: volume[:, :, 4].transpose(2, 3),
    "every other": lambda volume: volume[:, :, 4, ::2, ::3],
    "channels last": channels_last,
    "channels last, crop": lambda volume: channels_last(volume)[..., 1:-1, 1:-1],
    "volume, crop": lambda volume: volume[..., 1:, 2:-2, :-3],
    "volume, permuted": lambda volume: volume.permute(0, 1, 4, 2, 3),
    "four dimensions, each a crop": lambda volume: volume.unflatten(3, (7, 2))[..., 1:, 1:, :1, 2:-2],
    "one image for all": lambda volume: volume[:1, :, 4].expand(3, -1, -1, -1)[..., 1:],
    "a copy": lambda volume: volume[:, :, 4].clone(),
}
OPTIONS = [
    {"metric": metric, "smooth": smooth, "output_mode": mode, "pruning_prob": pruning}
    for metric, smooth in (("dice", 0.0), ("dice", 1.0), ("iou", 0.0), ("iou", 1.0))
    for mode, pruning in (("multiclass", 0.5), ("multiclass", 0.1), ("multilabel", 0.0))
]


def each_once(name, dtype, activation):
    return (list(VIEWS).index(name) + DTYPES.index(dtype) + ACTIVATIONS.index(activation)) % 4 == 0


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ACTIVATIONS = ["identity", "softmax", "sigmoid", "normalize"]


MADE = {"identity": lambda logits: logits.softmax(1), "normalize": torch.abs}


@pytest.fixture(params=["whole", "cut"])
def _pieces(request, monkeypatch):
    """Small images are one piece; here, too, several tasks of several chunks."""
    if request.param == "cut":
        for name, value in {"_SMALL": 0, "_WIDTH": 32, "_NARROW": 16, "_TASK": 500}.items():
            monkeypatch.setattr(sources, name, value)


@sweep(
    "name, dtype, activation",
    [(name, dtype, activation) for name in VIEWS for dtype in DTYPES for activation in ACTIVATIONS],
    each_once,
)
@pytest.mark.usefixtures("_pieces")
def test_every_view_type_and_activation(name, dtype, activation):
    made = MADE.get(activation, lambda logits: logits)(VOLUME)
    values = VIEWS[name](made.to(dtype))
    per_image = torch.rand(values.shape[0], *values.shape[2:], generator=torch.Generator().manual_seed(1)) > 0.2
    for number, valid in enumerate((None, per_image[0], per_image)):
        options = OPTIONS[(list(VIEWS).index(name) + number) % len(OPTIONS)]
        pixels = Pixels(values, valid, activation, 1.3 if activation in ("softmax", "sigmoid") else 1.0)
        decoder = RankSEG(**options)
        got, expected = decide("cpu", decoder, pixels), decide("graph", decoder, pixels)
        # Rounding may move a pixel that lies on a threshold to within a few digits of float32.
        assert (got != expected).double().mean() <= (0 if activation == "identity" else 0.002)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("number", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same(options, number):
    probs = torch.nn.functional.interpolate(VOLUME[:, :, 4], (200, 210), mode="bicubic").softmax(1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, number):
            torch.set_num_threads(threads)
            steps = CpuSteps(Pixels(probs))
            volumes = steps.search(RankSEG(**options)._objective(), 0.1)
            found.append([*vars(volumes).values(), RankSEG(**options)(probs)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("objective", [Dice(), Dice(1.0), Dice(300.0), IoU(), IoU(1.0)], ids=str)
@pytest.mark.parametrize(
    "kind", ["all that matters", "nothing that matters", "equal", "two values", "far apart", "uniform", "haze"]
)
def test_a_sample_that_misleads_costs_time_alone(objective, kind):
    """The bounds that it suggests do not hold; the masks are those of the graph."""
    from rankseg_plugins.core.kernels.cpu.steps import _places

    size = 60_000
    places = torch.from_numpy(_places(size, size // 16))
    p = torch.full((1, 2, size), 0.004)
    p[..., ::2] = 0.31
    if kind == "all that matters":
        p[..., places] = 0.9
    elif kind == "nothing that matters":
        p[:] = 0.45
        p[..., places] = 0.001
    elif kind == "equal":
        p[:] = 0.05
    elif kind == "two values":
        p[..., 1::2] = 0.3
    elif kind == "haze":
        p = 0.3 + 1e-5 * torch.rand(1, 2, size, generator=torch.Generator().manual_seed(0))
    else:
        power = 30 if kind == "far apart" else 1
        p = torch.rand(1, 2, size, generator=torch.Generator().manual_seed(0)) ** power
    found = CpuSteps(Pixels(p)).search(objective, 0.0)
    expected = decide("graph", RankSEG(output_mode="multilabel"), p, classes=Classes(0.0))
    steps = CpuSteps(Pixels(p))
    masks = steps.masks(steps.search(objective, 0.0))
    if objective == Dice():
        assert torch.equal(masks, expected)
    n, s = masks.sum(-1).double(), (p.double() * masks).sum(-1)
    ranked = p.double().sort(-1, descending=True).values
    sums = torch.cat([torch.zeros(1, 2, 1, dtype=torch.float64), ranked.cumsum(-1)], -1)
    mu = p.double().sum(-1)
    best = objective.score(sums, torch.arange(size + 1.0), mu.unsqueeze(-1)).amax(-1)
    assert ((best - objective.score(s, n, mu)) <= 4 * EPS * best).all()
    torch.testing.assert_close(found.n, n, rtol=0, atol=0)
    torch.testing.assert_close(found.s, s, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.mu, mu, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PATTERNS)
def test_sums_of_ten_million_pixels(name):
    probs = PATTERNS[name]()
    volumes = CpuSteps(Pixels(probs)).search(Dice(), 0.0)
    exact = probs.sum(dtype=torch.float64).item()
    assert abs(volumes.mu.item() - exact) <= 4 * EPS * exact
    above = probs > volumes.threshold.unsqueeze(-1)
    assert volumes.n.item() == above.sum().item()
    exact = (probs * above).sum(dtype=torch.float64).item()
    assert abs(volumes.s.item() - exact) <= 4 * EPS * exact


@njit
def read_all(bits, whole, upper, powers):
    for i in range(len(bits)):
        whole[i], upper[i] = from_float16(bits[i]), from_bfloat16(bits[i])
    for i in range(len(powers)):
        powers[i] = exponential32(powers[i])


def test_all_numbers_in_half_precision():
    bits = torch.arange(2**16).to(torch.int16)
    found = np.empty((2, 2**16), np.float32)
    read_all(bits.numpy().view(np.uint16), *found, np.empty(0, np.float32))
    for values, dtype in zip(found, (torch.float16, torch.bfloat16), strict=True):
        np.testing.assert_array_equal(values, bits.view(dtype).float().numpy())


def powers_of(numbers):
    found = np.array(numbers, np.float32)
    read_all(np.empty(0, np.uint16), *np.empty((2, 0), np.float32), found)
    return found.astype(np.float64)


def test_exponentials_to_two_units_in_the_last_place():
    numbers = np.concatenate([-np.linspace(0, 87.2, 50_001), [0.0, -1e-30, -0.34657, -0.3466]]).astype(np.float32)
    assert np.abs(powers_of(numbers) / np.exp(numbers.astype(np.float64)) - 1).max() <= 2 * EPS
    np.testing.assert_array_equal(powers_of([-200.0, -math.inf, math.nan]), [0, 0, math.nan])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.01, 1.01])
@pytest.mark.parametrize("shape", [(2, 3, 8), (1, 2, 70, 90)])
def test_values_that_are_no_probabilities(value, shape):
    probs = torch.full(shape, 0.4)
    probs[-1, -1].view(-1)[-1] = value
    with pytest.raises(ValueError, match=r"probs must (be finite|lie in)"):
        RankSEG()(probs)
    valid = torch.ones(shape[0], *shape[2:], dtype=torch.bool)
    valid[-1].view(-1)[-1] = False
    assert RankSEG()(probs, valid)[-1].view(-1)[-1] == 255


@pytest.mark.parametrize("shape", [(2, 3, 8), (1, 2, 70, 90)])
def test_values_a_little_outside_count_as_the_nearest_probability(shape):
    probs = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    inside = probs.clone()
    probs.view(-1)[::7], inside.view(-1)[::7] = 1.00005, 1.0
    probs.view(-1)[::5], inside.view(-1)[::5] = -0.00005, 0.0
    for options in OPTIONS:
        assert torch.equal(RankSEG(**options)(probs), RankSEG(**options)(inside))


def test_minus_zero_is_zero():
    probs = torch.rand(1, 2, 70, 90, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    assert torch.equal(RankSEG()(torch.where(probs == 0, -0.0, probs)), RankSEG()(probs))


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_decisions_in_memory_that_is_given(mode):
    """Labels in a type of fewer bits, too."""
    probs, decoder, given = VOLUME[:, :, 4].softmax(1), RankSEG(output_mode=mode), []

    def make(shape, dtype):
        given.append(torch.full(shape, 1, dtype=torch.int16 if dtype == torch.int64 else dtype))
        return given[0]

    decided = decoder.decide_by(CpuSteps(Pixels(probs), make), probs)
    assert decided.data_ptr() == given[0].data_ptr()
    assert torch.equal(decided.to(decoder(probs).dtype), decoder(probs))
