"""Agreement with the reference implementation, `rankseg` on PyPI.

Both get float64 here: in float32 the reference picks volumes by scores that differ in the last digit.
"""

import re

import pytest
import torch
from pages import run_page
from places import ROOT
from sweeps import sweep

import rankseg_plugins
from rankseg_plugins import rankseg

package = pytest.importorskip("rankseg")
reference = package.functional.rankseg

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


def test_the_page_for_its_users():
    run_page("docs/migration.md")


def is_accepted(call, package, function):
    probs = random_probs().double().log().mul(3).softmax(1)  # some next to 0, some next to 1
    names = {"rankseg": function, "RankSEG": package.RankSEG, "probs": probs, "one": probs[:, :1]}
    try:
        eval(call, names)
    except (TypeError, ValueError):
        return "refused"
    return "accepted"


PAGE = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(.*?)` \| (accepted|refused) \| (accepted|refused) \|", PAGE, re.MULTILINE)


@pytest.mark.filterwarnings("ignore:multiclass probabilities must add up")
@pytest.mark.parametrize(("call", "there", "here"), ROWS, ids=[row[0] for row in ROWS])
def test_what_is_accepted_here_and_there(call, there, here):
    assert len(ROWS) == 19
    assert is_accepted(call, package, reference) == there
    assert is_accepted(call, rankseg_plugins, rankseg) == here


def test_pixels_without_any_probability():
    p = random_probs().double()[:, [0, 1]]
    p = p / p.sum(1, keepdim=True)
    p[..., :2] = 0
    assert not rankseg(p)[..., :2].any()
    assert reference(p)[..., :2].any()
