"""Connected components and their overlap, against flood fill in Python."""

import itertools
import math

import numpy as np
import pytest

from rankseg_plugins.scores.lesions import LesionCounts, Lesions, count_lesions


def components(mask):
    """Sets of places; neighbours differ by at most 1 along every axis."""
    left, found = set(zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True)), []
    while left:
        waiting, members = [left.pop()], set()
        while waiting:
            place = waiting.pop()
            members.add(place)
            for step in itertools.product((-1, 0, 1), repeat=mask.ndim):
                other = tuple(np.add(place, step).tolist())
                if other in left:
                    left.remove(other)
                    waiting.append(other)
        found.append(members)
    return found


@pytest.mark.parametrize("shape", [(30,), (9, 12), (4, 6, 6)])
def test_counts_against_flood_fill(shape):
    rng = np.random.default_rng(0)
    for index in range(12):
        density = (0.05, 0.15, 0.3)[index % 3]
        masks = rng.random(shape) < density, rng.random(shape) < density
        ours, theirs = map(components, masks)
        for overlap in (0, 0.25, 0.5, 1):
            covered = [
                sum(len(each & set().union(*other)) >= max(1, overlap * len(each)) for each in own)
                for own, other in ((theirs, ours), (ours, theirs))
            ]
            expected = LesionCounts(covered[0], len(theirs), covered[1], len(ours))
            assert count_lesions(*masks, overlap) == expected
            assert count_lesions(*masks, overlap).f1 == pytest.approx(f1(expected), nan_ok=True)


def f1(counts):
    if not counts.predicted and not counts.lesions:
        return math.nan
    recall, precision = counts.found / max(counts.lesions, 1), counts.right / max(counts.predicted, 1)
    return 2 * recall * precision / (recall + precision) if recall and precision else 0


def test_nothing_there():
    empty, one = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
    assert count_lesions(empty, one) == (0, 1, 0, 0)
    for masks, expected in (
        ((empty, one), (0, math.nan, 0)),
        ((one, empty), (math.nan, 0, 0)),
        ((one, one), (1, 1, 1)),
    ):
        assert Lesions().measure(*masks) == pytest.approx(expected, nan_ok=True)
    assert all(map(math.isnan, Lesions().measure(empty, empty)))


def test_a_share_that_rounding_would_miss():
    mask, part = np.ones(10, bool), np.arange(10) < 3
    assert 0.1 * 3 * 10 > 3
    assert count_lesions(part, mask, overlap=0.1 * 3).found == 1
    assert count_lesions(part, mask, overlap=0.31).found == 0


@pytest.mark.parametrize("overlap", [-0.1, 1.1, math.nan])
def test_bad_overlap(overlap):
    for call in (lambda: Lesions(overlap), lambda: count_lesions([True], [True], overlap)):
        with pytest.raises(ValueError, match=r"overlap must be in \[0, 1\], got"):
            call()
