"""Comparisons, against loops in Python, SciPy and TorchMetrics."""

import math
import subprocess
import sys

import numpy as np
import processes
import pytest
import scipy.stats
import torch
from compared import IGNORE, make_samples
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration.reliability import calibration
from rankseg_plugins.comparison import Comparison, Recorder, Sample, Scoring, compare
from rankseg_plugins.comparison.intervals.statistics import sign_test, wilcoxon
from rankseg_plugins.report import write_report
from rankseg_plugins.scores import levels

DICE = "rankseg(metric=dice)"


def dice_of_image(prediction, labels, classes, present):
    scores = []
    for label in range(classes):
        kept = labels != IGNORE
        p, t = (prediction == label) & kept, labels == label
        if t.any() or (present == "union" and p.any()):
            scores.append(2 * int((p & t).sum()) / int(p.sum() + t.sum()))
    return sum(scores) / len(scores)


@pytest.mark.parametrize("present", levels.PRESENT)
def test_paired_differences_against_loops(present):
    samples = list(make_samples())
    found = compare(samples, ["argmax", DICE], ignore_index=IGNORE, scoring=Scoring(present=present))
    expected = [
        [dice_of_image(RankSEG(metric)(sample.probs[None])[0], sample.labels, 4, present) for metric in ("acc", "dice")]
        for sample in samples
    ]
    paired = found.paired(DICE)
    np.testing.assert_allclose(np.column_stack([paired.baseline, paired.scores]), expected, atol=1e-12)
    differences = np.diff(expected)[:, 0]
    assert paired.mean == pytest.approx(differences.mean(), abs=1e-12)
    assert (paired.wins, paired.losses) == ((differences > 1e-12).sum(), (differences < -1e-12).sum())
    assert paired.wins + paired.losses + paired.ties == len(samples)
    names = np.array([sample.name for sample in samples])
    best, worst = np.argsort(-differences, kind="stable"), np.argsort(differences, kind="stable")
    assert [name for name, _ in paired.improvements(20)] == names[best[: paired.wins]].tolist()
    assert [name for name, _ in paired.regressions(2)] == names[worst[:2]].tolist()
    assert found.level("argmax", "dice", "image") == pytest.approx(np.mean(expected, 0)[0], abs=1e-12)


def test_p_values_against_enumeration():
    """Under the null hypothesis each difference keeps its size and throws a coin for its sign."""
    differences = np.array([0.3, -0.1, 0.5, 0.7, 0.2, 0.0, 0.9])
    kept = differences[differences != 0]
    ranks = scipy.stats.rankdata(np.abs(kept))
    signs = np.array(np.meshgrid(*[[0, 1]] * len(kept))).reshape(len(kept), -1).T
    sums, observed = signs @ ranks, ranks[kept > 0].sum()
    expected = 2 * min((sums >= observed).mean(), (sums <= observed).mean())
    assert wilcoxon(differences) == pytest.approx(min(1.0, expected))
    wins = signs.sum(1)
    assert sign_test(differences) == pytest.approx(min(1.0, 2 * (wins >= 5).mean()))
    assert wilcoxon(np.zeros(5)) == sign_test(np.zeros(5)) == 1.0


@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_against_torchmetrics(bins):
    generator = torch.Generator().manual_seed(1)
    probs = torch.randn(4, 40, 50, generator=generator).mul(2).softmax(0)
    labels = torch.randint(0, 4, (40, 50), generator=generator)
    kept = torch.rand(40, 50, generator=generator) < 0.9
    found = calibration(probs, labels, kept, bins)
    for label in range(4):
        expected = BinaryCalibrationError(n_bins=bins, norm="l1")(probs[label][kept], (labels == label)[kept].long())
        assert found.error()[label] == pytest.approx(expected.item(), abs=1e-5)
    expected = MulticlassCalibrationError(4, n_bins=bins, norm="l1")(probs.flatten(1).T[kept.flatten()], labels[kept])
    assert found.error()[4] == pytest.approx(expected.item(), abs=1e-5)
    confidence = probs.amax(0)[kept].mean() - (probs.argmax(0) == labels)[kept].double().mean()
    assert found.overconfidence()[4] == pytest.approx(confidence.item(), abs=1e-6)
    halves = [calibration(probs[:, part], labels[part], kept[part], bins) for part in (slice(0, 9), slice(9, 40))]
    np.testing.assert_allclose((halves[0] + halves[1]).confidence, found.confidence)
    probability, frequency, share = found.curve(0)
    assert share.sum() == pytest.approx(1)
    assert found.error()[0] == pytest.approx((share * np.abs(probability - frequency)).sum())


def test_certain_probabilities_have_a_bin():
    found = calibration(torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    assert found.error().tolist() == [0.0]
    assert found.count.sum() == 2


def test_each_decoder_decodes_each_image_once():
    seen = []

    def counting(name):
        return lambda probs: seen.append((name, float(probs.sum()), len(probs))) or probs.argmax(1)

    samples = list(make_samples(images=6))
    compare(iter(samples), {"a": counting("a"), "b": counting("b")}, ignore_index=IGNORE)
    assert sorted(seen) == sorted((name, float(s.probs.sum()), 1) for s in samples for name in "ab")


def test_one_channel_is_a_threshold():
    generator = torch.Generator().manual_seed(5)
    probs = torch.rand(8, 1, 5, 6, generator=generator)
    labels = (torch.rand(8, 5, 6, generator=generator) < probs[:, 0]).long()
    labels[:, 0, 0] = IGNORE
    samples = [(str(i), p, t) for i, (p, t) in enumerate(zip(probs, labels, strict=True))]
    found = compare(samples, ignore_index=IGNORE)
    for i, score in enumerate(found.paired(DICE).baseline):
        p, t, kept = probs[i, 0] > 0.5, labels[i] == 1, labels[i] != IGNORE
        assert score == pytest.approx((2 * (p & t).sum() / ((p & kept).sum() + t.sum())).item())
    expected = BinaryCalibrationError(norm="l1")(probs[:, 0][labels != IGNORE], labels[labels != IGNORE])
    assert found.calibration.error() == pytest.approx(expected.item(), abs=1e-5)
    assert found.classes == ("foreground",)


def test_volumes_and_masks():
    generator = torch.Generator().manual_seed(5)
    probs = torch.rand(4, 3, 3, 4, 5, generator=generator)
    masks = torch.rand(4, 3, 3, 4, 5, generator=generator) < probs
    samples = [(str(i), p, t) for i, (p, t) in enumerate(zip(probs, masks, strict=True))]
    found = compare(samples, ["argmax", "rankseg(metric=dice, output_mode=multilabel)"])
    predicted = RankSEG("dice", output_mode="multilabel")(probs)
    expected = 2 * (predicted & masks).flatten(2).sum(2) / (predicted.flatten(2).sum(2) + masks.flatten(2).sum(2))
    np.testing.assert_allclose(found.paired(found.candidates[0]).scores, expected.mean(1), rtol=1e-6)
    assert len(found.calibration.count) == 3  # overlapping masks have no top label
    assert all(example.truth.ndim == 2 for example in (*found.improved, *found.damaged))


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
def test_extremes_are_the_largest_changes():
    samples = {sample.name: sample for sample in make_samples(images=30)}
    found = compare(samples.values(), ["argmax", "rankseg(pruning_prob=0.0)"], ignore_index=IGNORE, panels=3)
    paired = found.paired(found.candidates[0])
    assert [(e.name, e.gain) for e in found.improved] == paired.improvements(3)
    assert [(e.name, e.gain) for e in found.damaged] == paired.regressions(3)
    example = found.damaged[0]
    np.testing.assert_array_equal(example.decisions[0], samples[example.name].probs.argmax(0))
    truth = samples[example.name].labels
    np.testing.assert_array_equal(example.truth, truth.masked_fill(truth == IGNORE, -1))


def test_a_class_missing_everywhere_stays_out():
    samples = [(s.name, torch.nn.functional.pad(s.probs, (0, 0, 0, 0, 0, 1)), s.labels) for s in make_samples()]
    found = compare(samples, ignore_index=IGNORE)
    without = compare(make_samples(), ignore_index=IGNORE)
    assert math.isnan(found.class_table("argmax")["dice_class"][4])
    assert np.isnan(found.differences.classes[0][4]).all()
    assert found.paired(DICE).mean == pytest.approx(without.paired(DICE).mean)
    assert found.paired(DICE).interval == pytest.approx(without.paired(DICE).interval)


@pytest.mark.parametrize("with_probs", [False, True])
def test_decided_elsewhere(with_probs):
    samples = list(make_samples())
    recorder = Recorder({"argmax": RankSEG("acc"), "dice": RankSEG("dice")}, num_classes=4, ignore_index=IGNORE)
    for s in samples:
        decisions = [each(s.probs[None])[0] for each in recorder.decoders.values()]
        recorder.add_decided(s.name, s.labels, decisions, s.probs if with_probs else None)
    found, expected = recorder.comparison(), compare(samples, recorder.decoders, ignore_index=IGNORE)
    assert found.differences.paired.tolist() == expected.differences.paired.tolist()
    assert np.isnan(found.seconds).all()
    assert [e.name for e in found.damaged] == [e.name for e in expected.damaged]
    if with_probs:
        np.testing.assert_array_equal(found.calibration.error(), expected.calibration.error())
    else:
        assert found.calibration is None


DECODERS = ["argmax", "rankseg(pruning_prob=0.0)"]


def _one_process(rank, folder):
    recorder = Recorder(DECODERS, num_classes=4, ignore_index=IGNORE, panels=2, risk_coverage=True)
    for sample in list(make_samples())[rank::2]:
        recorder.add(sample)
    recorder.gather()
    found = recorder.comparison()
    names = [[example.name for example in examples] for examples in (found.improved, found.damaged)]
    result = [found.names, found.differences.paired.tolist(), found.calibration.error().tolist(), *names]
    torch.save([*result, found.expected_scores.tolist()], folder / f"{rank}.pt")


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_find_what_one_finds(tmp_path):
    processes.run(_one_process, 2, tmp_path)
    expected = compare(make_samples(), DECODERS, ignore_index=IGNORE, panels=2, risk_coverage=True)
    for rank in range(2):
        names, paired, error, improved, damaged, scores = torch.load(tmp_path / f"{rank}.pt")
        assert names == expected.names
        assert paired == expected.differences.paired.tolist()
        assert error == expected.calibration.error().tolist()
        assert improved == [e.name for e in expected.improved]
        assert damaged == [e.name for e in expected.damaged]
        assert scores == expected.expected_scores.tolist()


def test_rows_for_a_data_frame():
    found = compare(make_samples(), ignore_index=IGNORE, class_names=["sky", "road", "car", "tree"])
    rows = found.to_rows()
    assert len(rows) == 24
    assert [row["dice"] for row in rows if row["decoder"] == DICE] == found.paired(DICE).scores.tolist()
    assert {"image", "case", "seconds", "pixel_accuracy", "dice road", "iou tree"} <= set(rows[0])


BAD = Sample("bad", torch.full((4, 6, 7), torch.nan), torch.zeros(6, 7).long())


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "at least one image"),
        ([BAD], {}, "bad: probs must be finite"),
        ([("a", torch.ones(2), torch.zeros(2))], {}, r"a: probs must have shape \(B, C, \*spatial\)"),
        ([("a", torch.ones(0, 3, 3), torch.zeros(3, 3))], {}, "a: probs must hold at least one class"),
        ([("a", torch.ones(2, 3, 3), torch.zeros(3, 4).long())], {}, r"a: target must be labels \(B, 3, 3\)"),
        ([("a", torch.ones(2, 3, 3), torch.full((3, 3), 2))], {}, "a: target holds the label 2, allowed are 0 to 1"),
        ([("a", 2 * torch.ones(2, 3, 3), torch.zeros(3, 3))], {}, r"a: probs must lie in \[0, 1\]"),
        ([("a", torch.ones(2, 3, 3) / 2, torch.zeros(3, 3))] * 2, {}, "two images are called 'a'"),
        (None, {"decoders": ["argmax"]}, "another one than argmax"),
        (None, {"device": "meta"}, "device 'meta' cannot be used: it holds no values"),
        (None, {"device": "no such"}, "device 'no such' cannot be used"),
        (None, {"decoders": ["argmax", DICE, DICE]}, "decoders must differ"),
        (None, {"class_names": ["a"]}, "class_names must be 4 different names"),
        (None, {"num_classes": 3}, "image00: probs must have 3 classes"),
        (None, {"num_classes": 0}, "num_classes must be an integer of at least 1"),
        (None, {"panels": -1}, "panels must be"),
        (None, {"scoring": Scoring(excluded=(4,))}, "excluded classes must lie in 0 to 3, got 4"),
        (None, {"scoring": Scoring(excluded=(0, 1, 2, 3))}, "excluded leaves no class"),
    ],
)
def test_bad_input(samples, options, message):
    samples = make_samples() if samples is None else samples
    with pytest.raises(ValueError, match=message):
        compare(samples, **{"ignore_index": IGNORE, **options})


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"confidence": 1}, ValueError, r"confidence must lie in \(0, 1\), got 1"),
        ({"confidence": "high"}, TypeError, "confidence must be a real number, got str"),
        ({"palette": [(0, 0, 0)]}, ValueError, "palette must be a colour for each of 4 classes, got 1"),
        ({"palette": "red"}, ValueError, "palette must hold 1 to 256 colours .*, got 'red'"),
        ({"class_names": ["a"]}, ValueError, "class_names must be 4 different names"),
        ({"class_names": "abcd"}, TypeError, "class_names must be a list of names, got 'abcd'"),
        ({"class_names": 4}, TypeError, "class_names must be a list of names, got 4"),
        ({"facts": "none"}, TypeError, "facts must be a dict, got 'none'"),
        ({"groups": []}, TypeError, r"groups must be a dict of columns, .* got \[\]"),
        ({"resamples": 10}, TypeError, "unexpected keyword argument 'resamples'"),
    ],
)
def test_options_are_refused_before_any_image_is_decoded(option, error, message):
    decoders = {name: lambda probs: pytest.fail("decoded") for name in "ab"}
    with pytest.raises(error, match=message):
        compare(make_samples(), decoders, ignore_index=IGNORE, **option)


@pytest.mark.parametrize(
    ("samples", "decoders", "message"),
    [
        (None, DECODERS, "samples must be an iterable of images, got NoneType"),
        ([(None, torch.ones(2, 3) / 2, torch.zeros(3))], DECODERS, "name of an image must be a string, got None"),
        ([("a", torch.ones(2, 3) / 2, torch.zeros(3), (1,))], DECODERS, r"case of an image must be a string, got \(1,"),
        (
            [("a", torch.ones(2, 3) / 2, torch.zeros(3))],
            {"argmax": RankSEG("acc"), "own": lambda probs: None},
            "a: own: decision must be a torch.Tensor, got NoneType",
        ),
    ],
)
def test_what_is_no_image_and_no_decision(samples, decoders, message):
    with pytest.raises(TypeError, match=message):
        compare(samples, decoders)


def test_images_named_by_numbers_and_paths(tmp_path):
    images = list(make_samples())[:3]
    given = [(name, each.probs, each.labels) for name, each in zip([7, tmp_path, "a"], images, strict=True)]
    found = compare(given, ignore_index=IGNORE)
    assert found.names == ("7", str(tmp_path), "a")
    write_report(found, tmp_path / "report")
    assert (tmp_path / "report" / "report.json").exists()


def test_unknown_names():
    with pytest.raises(ValueError, match="score must be one of 'iou', 'dice'"):
        Scoring("f1")
    with pytest.raises(TypeError, match="excluded must be a tuple of classes, got 0"):
        Scoring(excluded=0)
    with pytest.raises(ValueError, match="nothing to compare"):
        Comparison(("a", "b"), ("c",), ())
    with pytest.raises(ValueError, match="decoder must be one of"):
        compare(make_samples(), ignore_index=IGNORE).paired("argmax")
    with pytest.raises(ValueError, match=r"decoder must be one of 'argmax', .*, got 'best'"):
        compare(make_samples(), ignore_index=IGNORE).level("best", "dice", "image")


def test_scoring_needs_no_more_than_torch_and_numpy():
    absent = ["scipy", "matplotlib", "jinja2", "PIL", "nibabel", "typer", "rich", "torchmetrics"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
import torch
from rankseg_plugins.comparison import compare
found = compare([("a", torch.full((2, 1, 3), 0.5), torch.zeros(1, 3))])
print(found.level("argmax", "dice", "image"))
try:
    compare([(name, torch.rand(2, 1, 3), torch.zeros(1, 3)) for name in "abcde"]).differences
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[0] == "1.0"
    assert "install its extra, rankseg-plugins[report]" in done.stdout
