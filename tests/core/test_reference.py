"""Agreement with the reference implementation, `rankseg` on PyPI.

Both get float64 here: in float32 the reference picks volumes by scores that differ in the last digit.
"""

import pytest
import torch
from sweeps import sweep

from rankseg_plugins import rankseg

reference = pytest.importorskip("rankseg.functional").rankseg

OPTIONS = [
    {"metric": metric, "smooth": smooth, "pruning_prob": pruning_prob}
    for metric in ("dice", "iou")
    for smooth in (0.0, 1.0, 100.0)
    for pruning_prob in (0.5, 0.1)
]


def random_probs():
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(3, 6, 5, 5, generator=generator)
    logits = torch.nn.functional.interpolate(coarse, size=(40, 50), mode="bilinear")
    return torch.softmax(4 * logits + torch.randn(logits.shape, generator=generator), 1)


def assert_same_decisions(p, options):
    for output_mode in ("multilabel", "multiclass"):
        ours, theirs = (f(p, output_mode=output_mode, **options) for f in (rankseg, reference))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("options", OPTIONS)
def test_random(options):
    assert_same_decisions(random_probs().double(), options)


# Of pruning one value for each metric and smoothing.
@sweep("options", OPTIONS, lambda options: OPTIONS.index(options) % 4 in (0, 3))
def test_real(real_probs, options):
    assert_same_decisions(real_probs[::2].double(), options)


def test_void_policy():
    p = random_probs().double()
    options = {"unassigned_policy": "void", "void_index": 99}
    assert torch.equal(rankseg(p, **options), reference(p, **options))


@pytest.mark.filterwarnings("ignore:The argmax solver returns non-overlapping:UserWarning")  # the reference warns
@pytest.mark.parametrize(
    "options",
    [
        {"output_mode": "multiclass", "solver": "argmax"},
        {"output_mode": "multilabel", "solver": "argmax"},
        {"output_mode": "multilabel", "solver": "TR"},
    ],
)
def test_accuracy(options):
    p = random_probs().double()
    assert torch.equal(rankseg(p, metric="acc", **options), reference(p, metric="acc", **options))
