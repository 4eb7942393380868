"""Windows that are ranked in pieces give what ranking them at once gives; with equal probabilities and without."""

import pytest
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.core import exact, pieces, rankdice, rma
from rankseg_plugins.core.passes import count_above
from rankseg_plugins.core.pieces import Bound, split
from rankseg_plugins.core.tiles import Tiles


def inputs(kind, dtype=torch.float32):
    """Three classes of two images: an object, an unsure one, and a haze."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(2, 3, 400, generator=generator, dtype=torch.float64)
    probs = torch.stack([probs[:, 0] ** 4, probs[:, 1] * 0.4, probs[:, 2] * 0.01], dim=1)
    if kind == "steps":
        probs = ((probs * 20).round() / 20 + 1e-3).clamp(max=1)
    if kind == "equal":
        probs = torch.full_like(probs, 0.01)
    return probs.to(dtype)


KINDS = ["different", "steps", "equal"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("most", [1, 7, 100, 1000])
def test_pieces_make_up_the_window(kind, dtype, most):
    for label in range(3):
        p = inputs(kind, dtype)[:1, label : label + 1]
        tiles, every = Tiles(p), torch.ones(1, 1, dtype=torch.bool)
        low, high = (torch.full((1, 1), end, dtype=torch.float64) for end in (0.0, 0.9))
        ends = [Bound(end, *count_above(tiles, every, end)) for end in (low, high)]
        reached = ends[1]
        for below, above in split(tiles, *ends, most):
            # Between two pieces there is nothing, or equal probabilities that are too many for one.
            passed = p[(p > above.threshold) & (p <= reached.threshold)]
            assert len(passed) == 0 or (len(passed) > most and len(passed.unique()) == 1)
            inside = ((p > below.threshold) & (p <= above.threshold)).sum()
            assert inside == below.n - above.n <= most
            assert below.n == (p > below.threshold).sum()
            reached = below
        assert reached.n == ends[0].n


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smooth", [0.0, 1.0, 30.0])
@pytest.mark.parametrize(
    ("metric", "solver"),
    [("dice", "RMA"), ("dice", "exact"), ("iou", "exact"), ("dice", "BA"), ("dice", "TRNA")],
)
def test_pieces_change_no_decision(kind, smooth, metric, solver, monkeypatch):
    probs = inputs(kind)
    decide = RankSEG(metric, smooth, "multilabel", solver, pruning_prob=0.0)
    at_once = decide(probs)
    score = decide.expected_score(probs, at_once)
    monkeypatch.setattr(rma, "_ROOM", 3)
    monkeypatch.setattr(exact, "FEW", 0)
    monkeypatch.setattr(rankdice, "_LEAST_CHUNK", 1)
    for most in (3, 40):
        monkeypatch.setattr(pieces, "_LEAST", most)
        monkeypatch.setattr(pieces, "_SHARE", 10**9)
        in_pieces = decide(probs)
        if solver == "exact":
            torch.testing.assert_close(decide.expected_score(probs, in_pieces), score, rtol=0, atol=1e-12)
        assert torch.equal(in_pieces, at_once)
