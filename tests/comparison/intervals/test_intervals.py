"""Intervals, against figures counted anew without each case, and Student's interval from SciPy."""

import math

import numpy as np
import pytest
import scipy.stats
from compared import IGNORE, interval_of, make_samples

from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Scoring, compare
from rankseg_plugins.comparison.intervals.levels import FIGURES, level_differences
from rankseg_plugins.comparison.intervals.statistics import UNSEEN, jackknife
from rankseg_plugins.scores import levels
from rankseg_plugins.scores.areas import Areas

DECODERS = {"argmax": RankSEG("acc"), "dice": RankSEG("dice"), "iou": RankSEG("iou", pruning_prob=0.1)}


@pytest.mark.parametrize(
    "scoring", [Scoring(), Scoring("iou", "label"), Scoring(absent="one"), Scoring(excluded=(0, 2))]
)
@pytest.mark.parametrize("per_case", [1, 2])
def test_every_figure_without_each_case(scoring, per_case):
    samples = make_samples(images=24, case=lambda index: f"case{index // per_case}")
    found = compare(samples, DECODERS, ignore_index=IGNORE, scoring=scoring, confidence=0.9)
    options, cases = (scoring.present, scoring.absent), 24 // per_case
    held = [scoring.entries(found.areas(name), "dice") for name in found.decoders]

    def figures(name, without):
        """Every difference of the images that are left."""
        left = np.flatnonzero(np.arange(24) // per_case != without)
        mine, base = (Areas(*(each[left] for each in found.areas(decoder))) for decoder in (name, "argmax"))
        for score, level in FIGURES:
            one, other = (
                levels.accuracy(each, level)
                if score == "accuracy"
                else levels.LEVELS[level](each, levels.SCORES[score], *options)
                for each in (mine, base)
            )
            yield (one - other).item()
        yield np.nanmean(scoring.image_scores(mine) - scoring.image_scores(base))
        one, other = (levels.class_scores(each, levels.SCORES[scoring.score], *options) for each in (mine, base))
        yield from (one - other).tolist()

    for index, name in enumerate(found.candidates):
        whole = list(figures(name, None))
        distances = np.abs([np.subtract(whole, list(figures(name, case))) * (cases - 1) for case in range(cases)])
        pairs = [
            sum(len(np.unique(np.flatnonzero(column) // per_case)) for column in (~np.isnan(each)).T)
            for each in (held[0], held[1 + index])
        ]
        unseen = UNSEEN * cases / min(pairs)
        for place, (score, level) in enumerate(FIGURES):
            value, low, high = found.differences.levels[score, level][index]
            assert value == pytest.approx(whole[place], abs=1e-12)
            expected = np.clip(interval_of(distances[:, place], value, unseen, 0.9), -1, 1)
            np.testing.assert_allclose((low, high), expected, atol=1e-9)
            error = math.sqrt((distances[:, place] ** 2).sum() / (cases - 1) / cases)
            assert found.differences.errors[score, level][index] == pytest.approx(error)
        expected = interval_of(distances[:, len(FIGURES)], whole[len(FIGURES)], unseen, 0.9)
        np.testing.assert_allclose(found.differences.paired[index], np.clip(expected, -1, 1), atol=1e-9)
        np.testing.assert_allclose(found.differences.classes[index][:, 0], whole[len(FIGURES) + 1 :], atol=1e-12)


def test_a_mean_has_students_interval():
    scores = np.random.default_rng(3).gamma(2.0, size=40)
    found = jackknife([scores[:, None]], lambda totals: totals[0] / 40)
    # Of a mean that rests on the number of cases as a sum, too.
    counted = jackknife([scores[:, None], np.ones((40, 1))], lambda totals: totals[0] / totals[1])
    assert counted.errors == pytest.approx(scipy.stats.sem(scores))
    np.testing.assert_allclose(counted.interval(0.95)[0], interval_of(scores - scores.mean(), scores.mean()))
    assert found.values == counted.values


@pytest.mark.parametrize("cases", [10, 20, 100])
def test_intervals_cover_as_often_as_they_say(cases):
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        drawn = rng.gamma(1.0, size=(cases, 1))
        low, high = jackknife([drawn, np.ones_like(drawn)], lambda totals: totals[0] / totals[1]).interval(0.9)[0]
        hits += low <= 1 <= high
    assert hits / 400 >= 0.9


def counted(held, cases, classes=2):
    """Counts of two decoders, the second better on every image that holds a class; class c in ``held[c]`` images."""
    counts = np.zeros((2, 3, cases, classes), np.int64)
    for label, number in enumerate(held):
        counts[:, 1:, :number, label] = 100
        counts[0, 0, :number, label], counts[1, 0, :number, label] = 50, 90
    return counts


def differences(counts):
    return level_differences(counts, np.arange(counts.shape[2]), Scoring(), 0.95)


@pytest.mark.parametrize(
    ("held", "cases", "classes", "known_classes", "known_means"),
    [
        ((20, 5), 20, 2, [True, True], True),
        ((20, 4), 20, 2, [True, False], False),
        ((20,), 20, 2, [True, False], False),  # the other may be one of the data
        ((60,), 60, 2, [True, False], True),  # it would have been seen
        ((60,) * 9 + (4,), 60, 10, [True] * 9 + [False], True),  # one of ten moves a mean by little
        ((60,) * 8 + (4,), 60, 9, [True] * 8 + [False], False),
    ],
)
def test_classes_that_few_cases_hold(held, cases, classes, known_classes, known_means):
    found = differences(counted(held, cases, classes))
    known = ~np.isnan(found.classes[0, :, 1:]).any(1)
    assert known.tolist() == known_classes
    assert np.isfinite(found.class_errors[0]).tolist() == known_classes
    for score, level in FIGURES:
        over_classes = level == "class" or (level, score != "accuracy") == ("dataset", True)
        assert np.isfinite(found.levels[score, level][0, 1:]).all() == (known_means or not over_classes)
    assert np.isfinite(found.paired).all()
    if known_means and False in known_classes and len(held) > 1:  # half of what one of the classes may move
        value, low, high = found.levels["dice", "class"][0]
        assert min(value - low, high - value) > 0.05


def test_fewer_than_five_cases():
    found = differences(counted((4, 4), 4))
    assert np.isnan(found.paired).all()
    assert np.isnan(found.classes[..., 1:]).all()
    assert found.levels["dice", "image"][0, 0] == pytest.approx(0.4)
    assert np.isfinite(differences(counted((5, 5), 5)).paired).all()


def test_decoders_that_decide_alike_may_differ_elsewhere():
    counts = counted((20, 20), 20)
    low, high = differences(counts[[1, 1]]).paired[0]
    assert (low, high) == pytest.approx(interval_of([0.0] * 20, 0.0, UNSEEN / 2))


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_confidence(confidence):
    with pytest.raises(ValueError, match="confidence"):
        jackknife([np.ones((9, 1))], lambda totals: totals[0]).interval(confidence)
