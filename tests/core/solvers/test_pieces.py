"""Windows that are ranked in pieces give what ranking them at once gives; with equal probabilities and without."""

import itertools

import numpy as np
import pytest
import torch
from sweeps import sweep

from rankseg_plugins import RankSEG
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cpu.steps import CpuSteps
from rankseg_plugins.core.solvers import exact, pieces, rankdice, window
from rankseg_plugins.core.solvers.pieces import Bound, groups


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


DTYPES = [torch.float32, torch.float64]
MOST = [1, 7, 100, 1000]


def every_two_of_the_window(most, dtype, kind):
    return (MOST.index(most) + DTYPES.index(dtype) + KINDS.index(kind)) % 2 == 0


@sweep("most, dtype, kind", itertools.product(MOST, DTYPES, KINDS), every_two_of_the_window)
def test_pieces_make_up_the_window(kind, dtype, most):
    p = inputs(kind, dtype)
    values, every = CpuSteps(Pixels(p)).values(), torch.ones(2, 3, dtype=torch.bool)
    low, high = (torch.full((2, 3), end, dtype=torch.float64) for end in (0.0, 0.9))
    ends = [Bound(end, *values.count_above(every, end)) for end in (low, high)]
    for row, pixels in enumerate(p.flatten(0, 1)):
        found = []
        for values_, where, times, floor in pieces.pieces(values, np.array([row]), *ends, most):
            assert where.tolist() == [0, len(values_)]
            assert len(values_) <= most
            # A single value stands for a run that is longer; else all pixels follow, down to the floor.
            assert times == 1 or (times > most and len(values_) == 1)
            found += values_[::-1].tolist() * times
            assert len(found) == (pixels[pixels <= 0.9] > floor[0]).sum()
        assert found == pixels[pixels <= 0.9].sort(descending=True).values.tolist()


SEARCHES = [("dice", "exact"), ("iou", "exact"), ("dice", "BA"), ("dice", "TRNA")]
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
    monkeypatch.setattr(window, "_FEW", 3)
    for most in (3, 40):
        monkeypatch.setattr(pieces, "_LEAST", most)
        monkeypatch.setattr(pieces, "_SHARE", 10**9)
        in_pieces = decide(probs)
        if solver == "exact":
            torch.testing.assert_close(decide.expected_score(probs, in_pieces), score, rtol=0, atol=1e-12)
        assert torch.equal(in_pieces, at_once)


def test_groups_hold_every_wanted_row_once_and_as_many_as_there_is_room_for():
    generator = torch.Generator().manual_seed(0)
    wanted = torch.rand(9, 7, generator=generator) > 0.3
    sizes = torch.rand(9, 7, generator=generator, dtype=torch.float64) ** 4 * 150
    found, flat = [], sizes.flatten()
    for rows in groups(wanted, sizes, 100):
        assert flat[rows].sum() <= 100 or len(rows) == 1
        if found:
            # The next row did not fit.
            assert flat[found[-1]].sum() + flat[rows[0]] > 100
        found.append(rows)
    assert np.concatenate(found).tolist() == wanted.flatten().nonzero().flatten().tolist()


MANY = {
    "exact, small images": ({"solver": "exact"}, lambda rand: rand(300, 3, 8, 8).softmax(1)),
    "exact, the empty mask": ({"solver": "exact", "smooth": 5.0}, lambda rand: rand(300, 3, 8, 8) * 0.3),
    "TRNA, small images": ({"solver": "TRNA", "smooth": 1.0}, lambda rand: rand(300, 3, 8, 8).softmax(1)),
}


@pytest.mark.parametrize("name", MANY)
def test_many_undecided_classes_are_searched_in_few_groups(name, monkeypatch):
    """Not one after the other; and alone, each of them gets the mask that it gets among the others."""
    options, make = MANY[name]
    generator, made = torch.Generator().manual_seed(0), []
    probs = make(lambda *shape: torch.rand(shape, generator=generator))
    decide = RankSEG(output_mode="multilabel", pruning_prob=0.0, **options)
    original = pieces.pieces

    def count(values, rows, *others):
        made.append(len(rows))
        return original(values, rows, *others)

    for solver in (exact, rankdice):
        monkeypatch.setattr(solver, "pieces", count)
    decided = decide(probs)
    classes = probs.shape[0] * probs.shape[1]
    assert sum(made) >= classes  # all were searched
    # A share of the pixels is ranked at a time, and never less than some thousand.
    assert len(made) <= min(classes / 2, 150)
    for image in (0, 1, len(probs) - 1):
        assert torch.equal(decide(probs[image : image + 1]), decided[image : image + 1])
