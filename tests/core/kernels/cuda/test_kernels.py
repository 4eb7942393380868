"""The Triton kernels against the CPU's decisions: Triton's interpreter runs them here, as conftest.py asks it to.

On a machine with a GPU test_cuda.py runs them for real, and these tests are skipped.
"""

import itertools
from contextlib import nullcontext
from dataclasses import fields
from unittest import mock

import by_path
import numpy as np
import pytest
import torch
from sweeps import sweep

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels import has_triton
from rankseg_plugins.core.objectives import Dice, IoU
from rankseg_plugins.core.paths import choose_path
from rankseg_plugins.core.volumes import Classes, Volumes

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are tested on the GPU")

#: Programs run one after the other here: few of them, but several of each kind, and little room.
SIZES = {
    "_SCALE": {"block": 32},
    "_SURVEY": {"block": 32},
    "_COLLECT": {"block": 32},
    "_FINISH": {"block": 64},
    "_SELECT": {"block": 64},
    "_SCORE": {"size": 8, "block": 16},
    "_PROGRAMS": 24,
    "_SCORERS": 2,
    "_ROOM": 8,
    "_PIECE": 32,
    "_LABELED": 2,
    "_MANY": 2,
}
OPTIONS = [
    {"metric": metric, "smooth": smooth, "output_mode": output_mode}
    for metric, smooth in (("dice", 0.0), ("dice", 1.0), ("dice", 5e4), ("iou", 0.0), ("iou", 1.0))
    for output_mode in ("multiclass", "multilabel")
]


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch):
    from rankseg_plugins.core.kernels.cuda import steps

    for name, value in SIZES.items():
        monkeypatch.setattr(steps, name, value)


def decide(method, *given, **options):
    """What a decoder's method decides by the kernels, which never hold all probabilities."""
    never = mock.patch.object(Pixels, "probs", side_effect=AssertionError("all probabilities at once"))
    with mock.patch("rankseg_plugins.core.paths.choose_path", return_value="cuda"), never, np.errstate(all="ignore"):
        return method(*given, **options)


def random_probs(sharpness=3.0, seed=0, shape=(2, 5, 9, 13), dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(shape, generator=generator)).softmax(1, dtype=dtype)


def one_dtype_each(options, dtype):
    return list(SHARPNESS).index(dtype) == OPTIONS.index(options) % 3


def one_shape_each(options, shape):
    """The other one for the same objective in the other mode, and for the next objective."""
    number = OPTIONS.index(options)
    return MASKS.index(shape) == (number + number // 2) % 2


def one_mode_each(options):
    """Every objective, in one mode and in the other in turn."""
    number = OPTIONS.index(options)
    return (number + number // 2) % 2 == 0


SHARPNESS = {torch.float16: 10.0, torch.float32: 1.0, torch.float64: 3.0}


@sweep("options, dtype", itertools.product(OPTIONS, SHARPNESS), one_dtype_each)
def test_same_decisions(options, dtype):
    decoder, probs = RankSEG(**options, pruning_prob=0.3), random_probs(SHARPNESS[dtype]).to(dtype)
    assert torch.equal(decide(decoder, probs), decoder(probs))


MASKS = [(9, 13), (2, 9, 13)]  # one mask for all images, and one for each


@sweep("options, shape", itertools.product(OPTIONS, MASKS), one_shape_each)
def test_valid_masks(options, shape):
    decoder, probs = RankSEG(**options), random_probs()
    valid = torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.3
    probs = torch.where(valid.expand(2, 9, 13).unsqueeze(1), probs, torch.nan)
    assert torch.equal(decide(decoder, probs, valid), decoder(probs, valid))


@sweep("options", OPTIONS, one_mode_each)
def test_more_undecided_pixels_than_there_is_room(options):
    """Unsure everywhere: nearly every pixel lies between the floor and 1/2."""
    probs = 0.25 + 0.2 * torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decoder = RankSEG(**options, pruning_prob=0.2)
    assert torch.equal(decide(decoder, probs), decoder(probs))


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_many_classes_most_of_them_pruned(metric):
    probs = random_probs(4.0, shape=(2, 19, 6, 11))
    probs[0, :7] *= 0.1
    decoder = RankSEG(metric, pruning_prob=0.6)
    assert torch.equal(decide(decoder, probs), decoder(probs))


@pytest.mark.parametrize("policy", ["max_score", "void"])
def test_no_class_left_in_one_image(policy):
    probs = torch.cat([random_probs(0.1)[:1], random_probs(3.0)[1:]])
    decoder = RankSEG(unassigned_policy=policy, void_index=-7)
    assert torch.equal(decide(decoder, probs), decoder(probs))


@sweep("options", OPTIONS, one_mode_each)
def test_ties_and_certain_pixels(options):
    """Few different values, 0 and 1 among them."""
    probs = torch.randint(0, 6, (2, 3, 7, 8), generator=torch.Generator().manual_seed(2)).float() / 5
    decoder = RankSEG(**options)
    assert torch.equal(decide(decoder, probs), decoder(probs))


@pytest.mark.parametrize("shape", [(1, 2, 1), (1, 1, 1), (3, 1, 5), (1, 2, 3, 4, 5)])
def test_shapes(shape):
    probs = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    decoder = RankSEG(output_mode="multilabel" if shape[1] == 1 else "multiclass")
    assert torch.equal(decide(decoder, probs), decoder(probs))


def test_layouts_and_values_just_outside():
    probs, decoder = random_probs(), RankSEG("iou")
    expected = decoder(probs)
    assert torch.equal(decide(decoder, probs.movedim(1, -1).contiguous().movedim(-1, 1)), expected)
    assert torch.equal(decide(decoder, torch.cat([probs, probs], -1)[..., :13]), expected)
    sharp = torch.where(probs > 0.9, 1.00005, torch.where(probs < 0.01, -0.00005, probs))
    assert torch.equal(decide(decoder, sharp), decoder(sharp))


def made_values(activation, dtype=torch.float32, seed=0, shape=(2, 5, 9, 13)):
    """What a network may put out; its pixels are sure, unsure and in between."""
    generator = torch.Generator().manual_seed(seed)
    values = 3 * torch.randn(shape, generator=generator)
    return (values.relu() if activation == "normalize" else values).to(dtype)


ACTIVATIONS = ["softmax", "sigmoid", "normalize"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def one_of_each(options, activation, dtype):
    """All objectives and modes, each with one activation in one type, in turn."""
    number = OPTIONS.index(options)
    return (ACTIVATIONS.index(activation), DTYPES.index(dtype)) == (number % 3, (number + number // 4) % 4)


@sweep("options, activation, dtype", itertools.product(OPTIONS, ACTIVATIONS, DTYPES), one_of_each)
def test_from_logits(options, activation, dtype):
    number = OPTIONS.index(options) + ACTIVATIONS.index(activation)
    decoder, logits = RankSEG(**options, pruning_prob=0.3), made_values(activation, dtype)
    temperature = 1.0 if activation == "normalize" or number % 2 else 0.7
    valid = None
    if number % 3:
        valid = torch.rand(MASKS[number % 2], generator=torch.Generator().manual_seed(1)) > 0.3
        logits = torch.where(valid.expand(2, 9, 13).unsqueeze(1), logits, torch.nan)
    given = logits, activation, valid, None, temperature
    assert torch.equal(decide(decoder.predict_logits, *given), decoder.predict_logits(*given))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_logits_in_other_layouts_and_without_room(activation):
    decoder, logits = RankSEG("iou", pruning_prob=0.1), made_values(activation, shape=(1, 3, 6, 13)) / 8
    expected = decoder.predict_logits(logits, activation)
    for laid in (logits.movedim(1, -1).contiguous().movedim(-1, 1), torch.cat([logits, logits], -1)[..., :13]):
        assert torch.equal(decide(decoder.predict_logits, laid, activation), expected)


def test_logits_that_exclude_a_class_or_are_large():
    """A network may mask classes by -inf, and logits in the hundreds are no numbers that exp could take."""
    logits = 200 * made_values("softmax")
    logits[:, 0] = -torch.inf
    logits[0, :, 3] += 1e4
    decoder = RankSEG()
    assert torch.equal(decide(decoder.predict_logits, logits), decoder.predict_logits(logits))


@pytest.mark.parametrize(
    ("activation", "value"),
    [
        *(("softmax", value) for value in (torch.nan, torch.inf)),
        *(("normalize", value) for value in (torch.nan, torch.inf, -1e-5, -torch.inf)),
        ("sigmoid", torch.nan),
    ],
)
def test_what_gives_no_probability_fails_the_assertion(activation, value):
    logits = made_values(activation)
    logits[1, 3, 4, 5] = value
    with pytest.raises(RuntimeError, match="probs must be finite and lie in"):
        decide(RankSEG().predict_logits, logits, activation)
    if value == -1e-5:
        valid = torch.ones(9, 13, dtype=torch.bool)
        valid[4, 5] = False
        decide(RankSEG().predict_logits, logits, activation, valid)


@pytest.mark.parametrize(("policy", "label"), [("max_score", 0), ("void", 255)])
def test_scores_of_no_class(policy, label):
    scores, decoder = made_values("normalize", shape=(1, 4, 7, 9)), RankSEG(unassigned_policy=policy)
    scores[:, :, 2:5] = 0
    labels = decide(decoder.predict_logits, scores, "normalize")
    assert torch.equal(labels, decoder.predict_logits(scores, "normalize"))
    assert (labels[:, 2:5] == label).all()


@pytest.mark.filterwarnings("error:multiclass probabilities must add up to 1:UserWarning")
@pytest.mark.parametrize("activation", ["softmax", "normalize"])
def test_sums_that_are_1_by_their_making_are_not_doubted(activation):
    with mock.patch("rankseg_plugins.core.inputs.plausibility.describe_sums", side_effect=AssertionError):
        decide(RankSEG().predict_logits, made_values(activation, shape=(1, 3, 5, 6)), activation)


@pytest.mark.filterwarnings("error:multiclass probabilities must add up to 1:UserWarning")
@pytest.mark.parametrize("method", [decide, lambda method, *given: method(*given)])
def test_sums_of_sigmoid_channels_are_looked_at(method):
    with pytest.raises(UserWarning, match=r"got sums from 0\.\d+ to 3\.\d+ for shape \(1, 4, 5, 6\)"):
        method(RankSEG().predict_logits, made_values("sigmoid", shape=(1, 4, 5, 6)), "sigmoid")


@sweep("options", OPTIONS, one_mode_each)
def test_classes_that_are_there(options):
    """Of two images, one of which holds none."""
    decoder, logits = RankSEG(**options), made_values("softmax", shape=(2, 4, 5, 9))
    active = torch.tensor([[True, False, True, True], [False] * 4])
    if OPTIONS.index(options) % 2:
        probs = logits.softmax(1)
        assert torch.equal(decide(decoder, probs, active=active), decoder(probs, active=active))
    else:
        found = decide(decoder.predict_logits, logits, active=active)
        assert torch.equal(found, decoder.predict_logits(logits, active=active))


@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("options", [{"rule": 0.4}, {"absent": "zero"}, {"absent": "one", "metric": "iou"}])
def test_presence(output_mode, options):
    decoder = PresenceRankSEG(4, output_mode=output_mode, frequencies=[0.9, 0.2, 0.05, 0.6], **options)
    logits = made_values("softmax", shape=(2, 4, 5, 9))
    logits[1, :3] -= 3
    found, expected = decide(decoder.predict_logits, logits), decoder.predict_logits(logits)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("smooth", [0.0, 30.0])
@pytest.mark.parametrize(("activation", "dtype"), [("identity", torch.float64), ("softmax", torch.float16)])
def test_what_the_classes_are_chosen_by(smooth, activation, dtype):
    """Each table is what it is called, of every class; those that are left keep their masks, all others are empty."""
    pixels, seen = Pixels(made_values("softmax", dtype, shape=(2, 4, 6, 9)), activation=activation), []
    p = pixels.values.softmax(1, dtype=torch.float32).flatten(2).double()
    if activation == "identity":
        pixels = Pixels(p.view(2, 4, 6, 9))
    pruning = torch.tensor([[0.99, 0.0, 0.2, 0.1]]).expand(2, 4)
    kept = torch.tensor([[True, True, False, True], [False, False, True, True]])
    decoder = RankSEG(smooth=smooth, output_mode="multilabel")
    all_masks = by_path.decide("cuda", decoder, pixels, classes=Classes(pruning)).flatten(2)

    def choose(maximum, volumes):
        seen.append((maximum.clone(), Volumes(*(getattr(volumes, each.name).clone() for each in fields(Volumes)))))
        return volumes.only(kept)

    masks = by_path.decide("cuda", decoder, pixels, classes=Classes(pruning, choose)).flatten(2)
    assert torch.equal(masks, all_masks & kept.unsqueeze(-1))
    ((maximum, volumes),) = seen
    close = {"rtol": 0 if activation == "identity" else 1e-6, "atol": 1e-12}
    torch.testing.assert_close(maximum, p.amax(-1), **close)
    torch.testing.assert_close(volumes.mu, p.sum(-1), **close)
    torch.testing.assert_close(volumes.n, all_masks.sum(-1).double(), rtol=0, atol=0)
    torch.testing.assert_close(volumes.s, (p * all_masks).sum(-1), **close)
    assert torch.equal(volumes.active, p.amax(-1) > pruning)
    assert torch.equal(p > volumes.threshold.unsqueeze(-1), all_masks)


def test_where_the_kernels_decide():
    """But for smoothed Dice of classes that hardly any pixel may belong to, where all pixels would be compared."""
    probs, table = torch.empty(1, 2, 3, device="meta"), torch.zeros(1, 2)
    with mock.patch("rankseg_plugins.core.paths._can_fuse", return_value=True):
        assert choose_path(probs, Dice(), table) == choose_path(probs, IoU(1.0), table) == "cuda"
        assert choose_path(probs, Dice(1.0), 0.1) == "cuda"
        assert choose_path(probs, Dice(1.0), table) == choose_path(probs, Dice(1.0), 0.0) == "graph"


@pytest.mark.parametrize(
    ("version", "serves"), [("3.3.1", False), ("2.1.0", False), ("3.4.0", True), ("3.10.0+git1", True)]
)
def test_an_old_triton_is_not_used(monkeypatch, version, serves):
    """Kernels that were never tried with it do not decide."""
    serves = version in ("3.4.0", "3.10.0+git1")
    monkeypatch.setattr(triton, "__version__", version)
    has_triton.cache_clear()
    try:
        with nullcontext() if serves else pytest.warns(UserWarning, match=f"Triton {version} is older than 3.4"):
            assert has_triton() is serves
    finally:
        has_triton.cache_clear()


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_no_class_is_chosen(metric):
    """Then all of them compete, none with a mask."""
    decoder, probs = RankSEG(metric), random_probs()
    classes = Classes(torch.zeros(2, 5), lambda maximum, found: found.only(torch.zeros_like(maximum, dtype=torch.bool)))
    expected = by_path.decide("graph", decoder, probs, classes=classes)
    assert torch.equal(by_path.decide("cuda", decoder, probs, classes=classes), expected)
    assert not torch.equal(decoder(probs), expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -0.1, 1.1])
def test_what_is_no_probability_fails_the_assertion(value):
    probs = random_probs()
    probs[1, 3, 4, 5] = value
    with pytest.raises(RuntimeError, match="probs must be finite and lie in"):
        decide(RankSEG(), probs)
