"""A decoder that gives the labels of the baseline in every image differs by nothing, and nothing of that is unsure."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from compared import IGNORE, make_samples

from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Recorder, Scoring, compare
from rankseg_plugins.report import write_report
from rankseg_plugins.report.charts import draw, forest
from rankseg_plugins.report.page import read_page
from rankseg_plugins.report.panels import drawn_decoders
from rankseg_plugins.report.tuning import read_tuning
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.tuning import tune

SAMPLES = [*make_samples(images=24)]
DECODERS = {"argmax": RankSEG("acc"), "same": lambda probs: probs.argmax(1).int(), "dice": RankSEG("dice")}


def equal(one, other, image):
    return torch.equal(one(image.probs[None]), other(image.probs[None]))


def zeros(figures):
    """Whether all differences that are known are 0 with an interval of 0 to 0, and some are known."""
    known = figures[~np.isnan(figures[..., 0])]
    return len(known) > 0 and bool((known == 0).all())


@pytest.mark.parametrize("scoring", [Scoring(), Scoring("iou", "label"), Scoring(absent="one")])
@pytest.mark.parametrize("images", [5, 12])
def test_nothing_differs_at_any_level(scoring, images):
    options = {"ignore_index": IGNORE, "scoring": scoring, "panels": 0, "extra": Boundaries(1)}
    found = compare(SAMPLES[:images], DECODERS, **options)
    same, dice = (found.candidates.index(name) for name in ("same", "dice"))
    assert (found.decides_alike("same"), found.decides_alike("dice")) == (True, False)
    assert found.paired("same").interval == (0.0, 0.0)
    for figures in found.differences.levels.values():  # dataset, image and class
        assert zeros(figures[same])
        assert not zeros(figures[dice])
    for of_classes in (found.differences.classes, found.extra_figures.gains, found.extra_figures.class_gains):
        assert zeros(of_classes[same])
        assert not zeros(of_classes[dice])
    what = {"dice": "image Dice", "iou": "image IoU"}[scoring.score]
    assert found.verdict("same").sentence.startswith(
        f"same decides as argmax does in each of {images} images: {what} ("
    )
    assert found.verdict("same")[1:] == ("unclear", ())
    assert " decides as " not in found.verdict("dice").sentence


def test_too_few_cases_say_nothing_of_others():
    """Nor is anything said of one class that they hold."""
    found = compare(SAMPLES[:4], DECODERS, ignore_index=IGNORE, panels=0, extra=Boundaries(1))
    assert np.isnan(found.paired("same").interval).all()
    assert np.isnan(found.differences.classes[0, :, 1:]).all()
    assert np.isnan(found.extra_figures.gains[0, :, 1:]).all()
    assert found.verdict("same").sentence.startswith("same decides as argmax does in each of 4 images: ")


def test_labels_tell_and_not_counts():
    """Two pixels that are ignored change places in one image: every count is that of argmax."""

    def but_one(probs):
        labels, truth = probs.argmax(1), SAMPLES[3].labels
        if torch.equal(probs[0], SAMPLES[3].probs):
            ignored = labels[0][truth == IGNORE]
            labels[0][truth == IGNORE] = ignored.flip(0)
            assert not torch.equal(labels, probs.argmax(1))
        return labels

    found = compare(SAMPLES, {"argmax": RankSEG("acc"), "but one": but_one}, ignore_index=IGNORE, panels=0)
    assert all((each.counts[0] == each.counts[1]).all() for each in found.measurements)
    assert not found.decides_alike("but one")
    low, high = found.paired("but one").interval
    assert low < 0 < high


def test_what_was_decided_elsewhere_is_held_against_the_baseline():
    recorder = Recorder(DECODERS, num_classes=4, ignore_index=IGNORE, panels=0)
    for each in SAMPLES:
        decisions = [decide(each.probs[None])[0] for decide in DECODERS.values()]
        recorder.add_decided(each.name, each.labels, decisions)
    found = recorder.comparison()
    assert [found.decides_alike(name) for name in found.candidates] == [True, False]
    part = found.by_group({each.name: str(index % 2) for index, each in enumerate(SAMPLES)})["0"]
    assert part.paired("same").interval == (0.0, 0.0)


def test_tuning_says_that_argmax_stays():
    found = tune(SAMPLES, ignore_index=IGNORE, temperatures=[1.0], pruning_probs=[1.0], presence=[])
    assert found.decoder.is_argmax
    assert found.validated.paired("chosen").interval == (0.0, 0.0)


def test_decoders_that_decide_as_another_one_are_told_and_drawn_once(tmp_path):
    decoders = {
        "argmax": RankSEG("acc"),
        "dice": RankSEG("dice"),
        "argmax again": lambda probs: probs.argmax(1),
        "dice again": RankSEG("dice"),
        "low": RankSEG("dice", pruning_prob=0.0),
    }
    found = compare(SAMPLES, decoders, ignore_index=IGNORE, panels=1)
    for one in decoders:  # against the labels themselves
        first = next(
            other for other in decoders if all(equal(decoders[one], decoders[other], each) for each in SAMPLES)
        )
        assert found.decides_as(one) == (None if first == one else first)
    assert found.distinct == ("dice", "low")
    assert found.verdict("dice again").sentence == "dice again decides as dice does in each of 24 images."
    assert drawn_decoders(found) == ["dice", "low"]
    page = write_report(found, tmp_path)
    assert sum("Several decoders were tried" in note for note in page.notes) == 1
    text = (tmp_path / "report.md").read_text()
    assert "its interval. argmax again decides as argmax. dice again decides as dice." in text
    assert "\n\ndice again decides as dice.\n\n" in text  # in place of its images
    figure = draw(forest, found, "dice")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["dice", "low"]
    copies = compare(
        SAMPLES, {name: decoders[name] for name in ("argmax", "dice", "dice again")}, ignore_index=IGNORE, panels=0
    )
    assert drawn_decoders(copies) == ["dice"]
    assert not any("Several decoders" in note for note in read_page(copies).notes)


def test_what_was_decided_by_none_is_not_alike():
    """Where nobody looked, as in results of an earlier version, each decoder is its own."""
    found = compare(SAMPLES, DECODERS, ignore_index=IGNORE, panels=0)
    found = replace(found, measurements=[replace(each, same=None) for each in found.measurements])
    assert [found.decides_as(name) for name in found.decoders] == [None] * 3
    assert found.distinct == found.candidates


def test_candidates_of_a_tuning_that_decide_alike_are_told(tmp_path):
    options = {"temperatures": [1], "metrics": ["dice"], "pruning_probs": [0.0, 1e-9, 1e-8], "presence": []}
    page = read_tuning(tune(SAMPLES, ignore_index=IGNORE, **options), tmp_path / "decoder.json")
    _, *alike = page.notes
    first, *others = (f"rankseg(metric=dice,pruning_prob={prob})" for prob in ("0", "1e-09", "1e-08"))
    assert alike == [f"{others[0]}, {others[1]} decide as {first}."]
    assert alike[0] in page.validated.introduction.sections[0].text
