"""Classes that are said to be there: the others stay empty, whatever their probabilities."""

import itertools

import pytest
import torch
from oracles import labels_of_masks
from sweeps import sweep
from torch import nn

from rankseg_plugins import RankSEG, rankseg

OPTIONS = [
    *({"metric": metric, "smooth": smooth} for metric in ("dice", "iou") for smooth in (0.0, 1.0)),
    {"metric": "dice", "solver": "exact"},
]
MASK_OPTIONS = [*OPTIONS, {"solver": "BA"}, {"solver": "TRNA"}, {"metric": "acc"}]


def made(batch=2, classes=4, size=(9, 11), dtype=torch.float32, seed=0):
    """Probabilities, of which the last class of the last image has none, and active classes that differ by image."""
    generator = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(batch, classes, *size, generator=generator)).softmax(1).to(dtype)
    probs[-1, -1] = 0
    active = torch.rand(batch, classes, generator=generator) < 0.6
    active[:, 0] = True
    return probs, active


def without(probs, active):
    return probs * active[..., None, None]


@sweep(
    "options, dtype",
    itertools.product(MASK_OPTIONS, [torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    lambda options, dtype: dtype == torch.float32 or options == {"metric": "iou", "smooth": 0.0},
)
def test_masks_are_those_of_probabilities_without_the_others(options, dtype):
    probs, active = made(dtype=dtype)
    pruning = {} if options.get("metric") == "acc" else {"pruning_prob": 0.0}
    expected = RankSEG(output_mode="multilabel", **options, **pruning)(without(probs, active))
    found = RankSEG(output_mode="multilabel", **options)(probs, active=active)
    assert torch.equal(found, expected)
    assert not found[~active].any()


@pytest.mark.parametrize("size", [(9, 11), (48, 50)], ids=["few", "tiles"])
@pytest.mark.parametrize("options", OPTIONS)
def test_labels_are_those_of_the_active_classes(options, size):
    """Against the rule pixel by pixel, of the few classes that compete."""
    probs, active = made(size=size if options.get("solver") != "exact" else (9, 11))
    masks = RankSEG(output_mode="multilabel", **options)(probs, active=active)
    found = RankSEG(**options)(probs, active=active)
    for p, mask, there, labels in zip(
        probs.double().flatten(2), masks.flatten(2), active, found.flatten(1), strict=True
    ):
        competes = there & (p.amax(1) > 0)
        expected = labels_of_masks(
            p.numpy(), mask.numpy(), competes.numpy(), options["metric"], options.get("smooth", 0.0)
        )
        assert (labels.numpy() == expected).all()


def test_accuracy_is_the_largest_of_the_active_classes():
    probs, active = made()
    expected = without(probs, active).argmax(1)
    assert torch.equal(RankSEG("acc")(probs, active=active), expected)
    masks = RankSEG("acc", output_mode="multilabel", solver="argmax")(probs, active=active)
    assert torch.equal(masks, nn.functional.one_hot(expected, 4).movedim(-1, 1).bool())


def test_classes_for_all_images():
    probs, active = made()
    assert torch.equal(RankSEG()(probs, active=active[0]), RankSEG()(probs, active=active[:1].expand(2, -1)))


@pytest.mark.parametrize("metric", ["dice", "iou", "acc"])
def test_where_none_is_active(metric):
    """All classes compete, as where pruning left none; no mask holds a pixel."""
    probs, _ = made()
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    labels = RankSEG(metric)(probs, active=nothing)
    expected = RankSEG("acc")(probs) if metric == "acc" else RankSEG(metric, pruning_prob=1.0)(probs)
    assert torch.equal(labels, expected)
    assert not RankSEG(metric, output_mode="multilabel")(probs, active=nothing).any()


def test_active_classes_are_not_pruned():
    probs, _ = made()
    every = torch.ones(4, dtype=torch.bool)
    assert torch.equal(RankSEG(pruning_prob=1.0)(probs, active=every), RankSEG(pruning_prob=0.0)(probs))


def test_pixels_without_a_class_are_void():
    probs, active = made()
    masks = RankSEG(output_mode="multilabel")(probs, active=active)
    found = RankSEG(unassigned_policy="void")(probs, active=active)
    assert torch.equal(found == 255, ~masks.any(1))


@pytest.mark.parametrize("valid", [None, torch.arange(99).view(9, 11) < 60], ids=["whole", "padded"])
@pytest.mark.parametrize("options", [*OPTIONS[:4], {"metric": "acc"}, {"output_mode": "multilabel"}])
def test_graphs_decide_alike(options, valid):
    probs, active = made(dtype=torch.float64)

    class Decoding(nn.Module):
        def forward(self, probs, active):
            return RankSEG(**options)(probs, valid, active)

    expected = Decoding()(probs, active)
    exported = torch.export.export(Decoding(), (probs, ~active)).module()
    assert torch.equal(exported(probs, active), expected)
    mapped = torch.func.vmap(lambda p, a: Decoding()(p[None], a[None])[0])
    assert torch.equal(mapped(probs, active), expected)


def test_functional_twin():
    probs, active = made()
    assert torch.equal(rankseg(probs, "iou", active=active), RankSEG("iou")(probs, active=active))


@pytest.mark.parametrize(
    ("active", "error", "message"),
    [
        ([True], TypeError, "active must be a torch.Tensor, got list"),
        (torch.ones(2, 4), TypeError, "active must be a bool tensor, got torch.float32"),
        (torch.ones(4, 2, dtype=torch.bool), ValueError, r"active must have shape \(2, 4\) or \(4,\), got \(4, 2\)"),
    ],
)
def test_refused(active, error, message):
    with pytest.raises(error, match=message):
        RankSEG()(made()[0], active=active)
