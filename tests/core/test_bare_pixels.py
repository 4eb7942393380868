"""Pixels without any probability, such as those outside of a crop, get argmax's label: in every path."""

import itertools

import numpy as np
import pytest
import torch
from by_path import decide
from oracles import labels_of_masks

from benchmarks.measure import extra_memory
from rankseg_plugins import GlobalRankSEG, RankSEG
from rankseg_plugins.core.pooled.fit import affine_argmax

SHAPE = (2, 6, 11, 13)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
OPTIONS = [{}, {"metric": "iou"}, {"smooth": 1.0, "pruning_prob": 0.3}, {"metric": "iou", "unassigned_policy": "void"}]
LAYOUTS = {
    "contiguous": lambda p: p,
    "channels last": lambda p: p.movedim(1, -1).contiguous().movedim(-1, 1),
    "crop": lambda p: torch.cat([p, p], -1)[..., : p.shape[-1]],
}


def cropped(dtype=torch.float32):
    """A window of two images that an organ fills, with nothing outside of it but a trace of a class that is pruned."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(SHAPE, generator=generator)
    probs[:, 2:4] += 4.0
    probs[:, 0] = probs[:, 4] = -3.0  # the background and class 4 are nowhere likely: pruned
    probs[1, 3] = -3.0  # the images have different active classes
    probs = probs.softmax(1)
    probs[..., :3, :] = probs[..., -2:, :] = probs[..., :4] = probs[..., -3:] = 0.0
    probs[:, 4, 0, ::2] = 0.02
    return probs.to(dtype)


def decide_by_kernels(decoder, probs, valid, monkeypatch):
    return decoder(probs, valid)


def decide_in_chunks(decoder, probs, valid, monkeypatch):
    monkeypatch.setattr("rankseg_plugins.core.kernels.cpu.ground.source._SMALL", 0)
    monkeypatch.setattr("rankseg_plugins.core.kernels.cpu.ground.source._WIDTH", 16)
    monkeypatch.setattr("rankseg_plugins.core.kernels.cpu.ground.source._TASK", 100)
    return decoder(probs, valid)


def decide_dense(decoder, probs, valid, monkeypatch):
    return decide("graph", decoder, probs, valid)


def decide_fused(decoder, probs, valid, monkeypatch):
    if torch.cuda.is_available():
        return decoder(probs.cuda(), None if valid is None else valid.cuda()).cpu()
    pytest.importorskip("triton")
    from rankseg_plugins.core.kernels.cuda import steps

    # Programs run one after the other in Triton's interpreter: few of them.
    for name, value in {"_SURVEY": {"block": 64}, "_COLLECT": {"block": 64}, "_FINISH": {"block": 64}}.items():
        monkeypatch.setattr(steps, name, value)
    for name, value in {"_PROGRAMS": 24, "_SCORERS": 2, "_PIECE": 32, "_LABELED": 2}.items():
        monkeypatch.setattr(steps, name, value)
    return decide("cuda", decoder, probs, valid)


CASES = [
    (OPTIONS[number % len(OPTIONS)], dtype, layout, number % 3 == 1)
    for number, (dtype, layout) in enumerate(itertools.product(DTYPES, LAYOUTS))
]
PATHS = [decide_by_kernels, decide_in_chunks, decide_dense, decide_fused]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("options", "dtype", "layout", "is_masked"), CASES, ids=str)
def test_every_path(path, options, dtype, layout, is_masked, monkeypatch):
    probs, decoder = LAYOUTS[layout](cropped(dtype)), RankSEG(**options)
    valid = torch.rand(SHAPE[2:], generator=torch.Generator().manual_seed(1)) > 0.2 if is_masked else None
    labels = path(decoder, probs, valid, monkeypatch).flatten(1).numpy()
    seen = probs if valid is None else probs * valid
    masks = RankSEG(output_mode="multilabel", **{k: v for k, v in options.items() if k != "unassigned_policy"})(seen)
    active = (seen.flatten(2).amax(2) > decoder.pruning_prob).numpy()
    assert active.any(1).all()
    assert not active[:, [0, 4]].any()  # label 0 is none of the active classes
    void = decoder.void_index if decoder.unassigned_policy == "void" else None
    for image in range(len(probs)):
        p = seen[image].flatten(1).double().numpy()
        rule = decoder.metric, decoder.smooth, void
        expected = labels_of_masks(p, masks[image].flatten(1).numpy(), active[image], *rule)
        if valid is not None:
            expected[~valid.flatten().numpy()] = decoder.void_index
        np.testing.assert_array_equal(labels[image], expected)
        bare = (p == 0).all(0) if valid is None else (p == 0).all(0) & valid.flatten().numpy()
        assert bare.sum() > 50
        assert set(labels[image][bare]) == {0 if void is None else void}


@pytest.mark.parametrize("solver", ["RMA", "exact"])
@pytest.mark.parametrize("shape", [(24, 24), (10, 16, 16), (8, 64, 96)])
def test_a_crop_that_an_organ_fills(solver, shape):
    """As nnU-Net exports it: all channels are 0 outside of the nonzero region."""
    window = tuple(slice(size // 4, size - size // 4) for size in shape)
    probs, truth = torch.zeros(1, 3, *shape), torch.zeros(1, *shape, dtype=torch.int64)
    probs[(0, slice(None), *window)] = torch.tensor([0.2, 0.75, 0.05]).view(3, *[1] * len(shape))
    truth[(0, *window)] = 1
    truth[0, shape[0] // 4] = 0  # one slice of the window is background
    labels = RankSEG(solver=solver)(probs)
    organ, inside = truth == 1, probs.sum(1) > 0
    assert torch.equal(labels, inside.long())
    dice = 2 * (organ & (labels == 1)).sum() / (organ.sum() + (labels == 1).sum())
    kept = shape[0] - 2 * (shape[0] // 4)
    assert dice.item() == pytest.approx(2 * (kept - 1) / (kept + kept - 1))


def test_values_just_below_zero_are_none():
    probs = cropped()
    probs[probs == 0] = -5e-5
    assert torch.equal(RankSEG()(probs), RankSEG()(probs.clamp(min=0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_rule_for_the_data_set(dtype):
    probs = cropped(dtype)
    scale, offset = torch.tensor([1.0, 1.5, 0.7, 2.0, 1.0, 1.0]), torch.tensor([0.5, 0.1, 0.3, 0.0, 0.2, 0.1])
    score = probs.double() * scale.view(-1, 1, 1).double() - offset.view(-1, 1, 1).double()
    bare = (probs == 0).all(1)
    labels = affine_argmax(probs, scale, offset)
    assert torch.equal(labels, score.argmax(1).masked_fill(bare, 0))
    assert score.argmax(1)[bare].unique().tolist() == [3]  # what the rule alone would have given


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_a_fitted_decision_for_the_data_set(metric):
    probs = cropped()
    decoder = GlobalRankSEG(6, metric, min_images=0, min_gain=0)
    decoder.update(probs)
    decoder.fit()
    assert (decoder(probs)[(probs == 0).all(1)] == 0).all()


def test_memory_where_most_pixels_are_outside():
    """Pixels are looked up in the pruned classes only where nothing is left of them, and some of them at a time."""
    probs = torch.zeros(1, 40, 160, 160)
    probs[..., 60:100, 60:100] = torch.randn(40, 1, 1, generator=torch.Generator().manual_seed(0)).softmax(0)
    probs[:, 1, 60:100, 60:100] = 0.9
    labels = RankSEG()(probs)
    assert torch.equal(labels, (probs.sum(1) > 0).long())
    assert extra_memory(RankSEG(), probs) <= 0.4
