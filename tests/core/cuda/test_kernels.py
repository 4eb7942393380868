"""The Triton kernels against the tiled path, on the CPU: Triton's interpreter runs them, as conftest.py asks it to.

On a machine with a GPU test_cuda.py runs them for real, and these tests are skipped.
"""

import itertools

import pytest
import torch
from sweeps import sweep

from rankseg_plugins import RankSEG
from rankseg_plugins.core.volumes import Classes

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are tested on the GPU")

#: Programs run one after the other here: few of them, but several of each kind, and little room.
SIZES = {
    "_STATISTICS": {"block": 32},
    "_COLLECT": {"block": 32},
    "_REFINE": {"block": 64},
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
    from rankseg_plugins.core.cuda import fused

    for name, value in SIZES.items():
        monkeypatch.setattr(fused, name, value)


def decide(decoder, probs, valid_mask=None):
    decided = decoder._decide_fused(probs, valid_mask, Classes(decoder.pruning_prob))
    if valid_mask is None:
        return decided
    multiclass = decoder.output_mode == "multiclass"
    return decided.masked_fill(~(valid_mask if multiclass else valid_mask.unsqueeze(-3)), 255 if multiclass else False)


def random_probs(sharpness=3.0, seed=0, shape=(2, 5, 9, 13)):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(shape, generator=generator)).softmax(1)


def one_dtype_each(options, dtype):
    return list(SHARPNESS).index(dtype) == OPTIONS.index(options) % 3


def one_shape_each(options, shape):
    """The other one for the same objective in the other mode, and for the next objective."""
    number = OPTIONS.index(options)
    return MASKS.index(shape) == (number + number // 2) % 2


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


@pytest.mark.parametrize("options", OPTIONS)
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


@pytest.mark.parametrize("options", OPTIONS)
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


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -0.1, 1.1])
def test_what_is_no_probability_fails_the_assertion(value):
    probs = random_probs()
    probs[1, 3, 4, 5] = value
    with pytest.raises(RuntimeError, match="probs must be finite and lie in"):
        decide(RankSEG(), probs)
