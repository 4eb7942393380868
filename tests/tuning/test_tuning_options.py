"""Options of tune are used or refused, and a refusal names the option."""

import numpy as np
import pytest
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison import Sample
from rankseg_plugins.tuning import Tuner, tune
from rankseg_plugins.tuning.candidates import GlobalCandidates
from rankseg_plugins.tuning.presence import PresenceCandidates


def images(count, channels=2):
    generator = torch.Generator().manual_seed(0)
    probs = (2 * torch.randn(count, channels, 40, generator=generator)).softmax(1)
    return [Sample(str(i), p, p.argmax(0)) for i, p in enumerate(probs)]


QUICK = {"temperatures": [1.0], "pruning_probs": [0.5]}


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"foo": 1}, TypeError, "tune takes no option 'foo'; beside those of its signature pruning_probs, solvers"),
        ({"temperatures": 0.7}, TypeError, "temperatures must be a list, got 0.7"),
        ({"temperatures": ["a"]}, TypeError, "each of temperatures must be a real number, got str"),
        ({"temperatures": [True]}, TypeError, "each of temperatures must be a real number, got bool"),
        ({"temperatures": [float("nan")]}, ValueError, r"each of temperatures must be in \[0\.001, 1000\], got nan"),
        ({"temperatures": [1e-9]}, ValueError, "each of temperatures must be in"),
        ({"temperatures": []}, ValueError, "temperatures must hold at least one value, got none"),
        ({"temperatures": [1.0000001, 1.0000002]}, ValueError, "two candidates are called"),
        ({"pruning_probs": []}, ValueError, "pruning_probs must hold at least one value, got none"),
        ({"pruning_probs": [0.1234567, 0.1234568]}, ValueError, "two candidates are called"),
        ({"metrics": "dice"}, TypeError, "metrics must be a list, got 'dice'"),
        ({"metrics": ["acc"]}, ValueError, "each of metrics must be one of 'dice', 'iou', got 'acc'"),
        ({"solvers": "RMA"}, TypeError, "solvers must be a list, got 'RMA'"),
        ({"solvers": []}, ValueError, "solvers must hold at least one value, got none"),
        ({"aggregation_levels": "global"}, TypeError, "aggregation_levels must be a list, got 'global'"),
        ({"aggregation_levels": []}, ValueError, "aggregation_levels must hold at least one value, got none"),
        ({"aggregation_levels": ["global"], "solvers": ["exact"]}, ValueError, "solvers is an option of 'samplewise'"),
        ({"presence": "score"}, TypeError, "presence must be a list, got 'score'"),
        ({"presence": ["best"]}, ValueError, r"each of presence must be 'score' or a number in \[0, 1\], got 'best'"),
        ({"presence": [1.5]}, ValueError, r"each of presence must be in \[0, 1\], got 1.5"),
        ({"presence": [None]}, TypeError, "each of presence must be a real number, got NoneType"),
        ({"presence": [0.2, 0.2000001]}, ValueError, "two candidates are called"),
        ({"aggregation_levels": ["global"], "presence": [0.2]}, ValueError, "presence is an option of 'samplewise'"),
        ({"output_mode": ""}, ValueError, "output_mode must be one of"),
        ({"confidence": "a"}, TypeError, "confidence must be a real number, got str"),
        ({"confidence": 1}, ValueError, "confidence must lie in"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"folds": 2.5}, TypeError, "folds must be an integer, got float"),
        ({"min_cases": -1}, ValueError, "min_cases must be at least 0, got -1"),
        ({"ignore_index": "x"}, TypeError, "ignore_index must be an integer, got str"),
        ({"ignore_index": 1.5}, TypeError, "ignore_index must be an integer, got float"),
        ({"scoring": "dice"}, TypeError, r"scoring must be a Scoring, such as Scoring\('iou'\), got 'dice'"),
        ({"others": [RankSEG()]}, TypeError, "others must be a dict of TunedDecoder by name"),
        ({"others": {"a": RankSEG()}}, TypeError, "others must hold TunedDecoder"),
        (
            {"others": {"a": TunedDecoder(RankSEG(), 3)}},
            ValueError,
            "others must decode 2 classes, multiclass; 'a' is for 3",
        ),
        ({"others": {"argmax": TunedDecoder(RankSEG(), 2)}}, ValueError, "two candidates are called 'argmax'"),
    ],
)
@pytest.mark.parametrize("levels", [["samplewise"], ["samplewise", "global"]])
def test_refused_by_name_and_before_any_image(options, kind, message, levels, monkeypatch):
    for used in (Tuner, GlobalCandidates, PresenceCandidates):
        monkeypatch.setattr(used, "add" if used is Tuner else "update", lambda *given: pytest.fail("an image was used"))
    with pytest.raises(kind, match=message):
        tune(images(6), **{"aggregation_levels": levels, **options})


@pytest.mark.parametrize("samples", [[1, 2], [("a",)], ["abc"]])
def test_samples_of_another_kind(samples):
    with pytest.raises(TypeError, match=r"samples must hold Sample or tuples \(name, probs, labels\), got"):
        tune(samples)


def test_no_samples_at_all():
    with pytest.raises(TypeError, match="samples must be an iterable of images, got int"):
        tune(3)
    with pytest.raises(TypeError, match=r"a: probs must be a torch\.Tensor, got int"):
        tune([("a", 1, 2)])


def test_integers_of_numpy():
    assert tune(images(6), folds=np.int64(3), presence=[np.float64(0.5)], **QUICK).comparison.decoders[1:] == (
        "rankseg(metric=dice,pruning_prob=0.5)",
        "presence(metric=dice,rule=0.5)",
    )


@pytest.mark.filterwarnings("ignore:1 of 1 rules for the whole data set pursue no class")
def test_others_are_in_the_race_beside_global_rules():
    mine = {"mine": TunedDecoder(RankSEG("iou"), 2)}
    common = {"temperatures": [1.0], "others": mine}
    both = {"aggregation_levels": ["samplewise", "global"], "pruning_probs": [0.5], "presence": ["Score"]}
    found = tune(images(6), **both, **common)
    pooled = "global(metric=dice)"
    knowing = "presence(metric=dice,rule=score)"
    assert found.comparison.candidates == ("rankseg(metric=dice,pruning_prob=0.5)", "mine", knowing, pooled)
    assert tune(images(6), aggregation_levels=["global"], **common).comparison.candidates == ("mine", pooled)


def test_solvers_are_named_where_there_are_several():
    names = tune(images(6), solvers=["rma", "exact"], presence=[0.2], **QUICK).comparison.candidates
    kinds = ("rankseg(metric=dice,pruning_prob=0.5", "presence(metric=dice,rule=0.2")
    assert names == tuple(f"{kind},solver={each})" for kind in kinds for each in ("RMA", "exact"))


def test_candidates_enter_before_the_first_image():
    tuner = Tuner(2)
    tuner.add(images(1)[0])
    with pytest.raises(RuntimeError, match="before the first image"):
        tuner.enter({})


def test_too_few_images_for_a_global_rule():
    with pytest.raises(ValueError, match="needs at least 5 images to fit its rule to, got 4: add images, or leave"):
        tune(images(4), aggregation_levels=["global"])


@pytest.mark.parametrize("levels", [["global"], ["samplewise"], ["samplewise", "global"]])
def test_bad_labels_stop_the_first_pass(levels):
    bad, measured = [*images(6), Sample("bad", images(1)[0].probs, torch.full((40,), 9))], []
    with pytest.raises(ValueError, match="bad: target holds the label 9"):
        tune(bad, aggregation_levels=levels, on_measured=measured.append)
    assert not measured
