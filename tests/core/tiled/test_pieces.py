"""Windows that are ranked in pieces give what ranking them at once gives; with equal probabilities and without."""

import itertools

import pytest
import torch
from sweeps import sweep

from rankseg_plugins import RankSEG
from rankseg_plugins.core.solvers import exact, rankdice
from rankseg_plugins.core.tiled import pieces, rma
from rankseg_plugins.core.tiled.passes import count_above
from rankseg_plugins.core.tiled.pieces import Bound, groups, split
from rankseg_plugins.core.tiled.tiles import Tiles


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


SEARCHES = [("dice", "RMA"), ("dice", "exact"), ("iou", "exact"), ("dice", "BA"), ("dice", "TRNA")]
SMOOTH = [0.0, 1.0, 30.0]


def every_two(search, kind, smooth):
    return (SEARCHES.index(search) + KINDS.index(kind) + SMOOTH.index(smooth)) % 3 == 0


@sweep("search, kind, smooth", itertools.product(SEARCHES, KINDS, SMOOTH), every_two)
def test_pieces_change_no_decision(search, kind, smooth, monkeypatch):
    metric, solver = search
    probs = inputs(kind)
    decide = RankSEG(metric, smooth, "multilabel", solver, pruning_prob=0.0)
    at_once = decide(probs)
    score = decide.expected_score(probs, at_once)
    monkeypatch.setattr(rma, "_ROOM", 3)
    monkeypatch.setattr(exact, "FEW", 3)
    monkeypatch.setattr(rankdice, "_LEAST_CHUNK", 1)
    for most in (3, 40):
        monkeypatch.setattr(pieces, "_LEAST", most)
        monkeypatch.setattr(pieces, "_SHARE", 10**9)
        in_pieces = decide(probs)
        if solver == "exact":
            torch.testing.assert_close(decide.expected_score(probs, in_pieces), score, rtol=0, atol=1e-12)
        assert torch.equal(in_pieces, at_once)


@pytest.mark.parametrize("side_by_side", [False, True])
def test_groups_hold_every_wanted_class_once_and_as_many_as_there_is_room_for(side_by_side):
    generator = torch.Generator().manual_seed(0)
    tiles, wanted = Tiles(torch.rand(9, 7, 5, generator=generator)), torch.rand(9, 7, generator=generator) > 0.3
    shares = torch.rand(9, 7, generator=generator, dtype=torch.float64) ** 4 * 1.5
    number, before = torch.zeros(9, 7), None
    for group in groups(tiles, wanted, shares, side_by_side):
        own = group.of(shares)
        taken = own.sum() if not side_by_side else len(own) * own.max()
        assert taken <= 1 or len(own) == 1
        if before is not None:
            # The next class did not fit.
            more = torch.cat([before, own[:1]])
            assert (more.sum() if not side_by_side else len(more) * more.max()) > 1
        number[group.place] += group.wanted
        before = own
        assert torch.equal(group.tiles.probs, tiles.probs[group.place])
        values, row = group.pixels_between(*(torch.full(group.wanted.shape, end) for end in (0.2, 0.7)))
        for index, p in enumerate(group.of(tiles.probs)):
            assert values[row == index].tolist() == p[(p > 0.2) & (p <= 0.7)].tolist()
    assert torch.equal(number, wanted.float())


MANY = {
    "exact, small images": ({"solver": "exact"}, lambda rand: rand(300, 3, 8, 8).softmax(1)),
    "exact, the empty mask": ({"solver": "exact", "smooth": 5.0}, lambda rand: rand(300, 3, 8, 8) * 0.3),
    "RMA, single pixels": ({"smooth": 1.0}, lambda rand: rand(5000, 2, 1, 1).softmax(1)),
    "RMA, equal pixels": ({"smooth": 1.0}, lambda rand: torch.full((3, 90, 16, 16), 0.05)),
    "TRNA, small images": ({"solver": "TRNA", "smooth": 1.0}, lambda rand: rand(300, 3, 8, 8).softmax(1)),
}


@pytest.mark.parametrize("name", MANY)
def test_many_undecided_classes_are_searched_in_few_groups(name, monkeypatch):
    """Not one after the other; and alone, each of them gets the mask that it gets among the others."""
    options, make = MANY[name]
    generator, made = torch.Generator().manual_seed(0), []
    probs = make(lambda *shape: torch.rand(shape, generator=generator))
    decide = RankSEG(output_mode="multilabel", pruning_prob=0.0, **options)
    original = pieces.Group.__init__

    def count(group, tiles, index):
        made.append(len(index))
        original(group, tiles, index)

    monkeypatch.setattr(pieces.Group, "__init__", count)
    decided = decide(probs)
    classes = probs.shape[0] * probs.shape[1]
    assert sum(made) >= classes  # all were searched
    # A share of the pixels is ranked at a time, and never less than some thousand.
    assert len(made) <= min(classes / 2, 150)
    for image in (0, 1, len(probs) - 1):
        assert torch.equal(decide(probs[image : image + 1]), decided[image : image + 1])
