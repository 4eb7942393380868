"""What decisions are expected to score, against sums over every possible truth; and what comes of it."""

import itertools

import numpy as np
import pytest
import torch
from image_folders import make_image

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration.temperature import probs_at
from rankseg_plugins.calibration.tuned import TunedDecoder
from rankseg_plugins.comparison import Recorder, Sample, Scoring, compare
from rankseg_plugins.comparison.blocks.expected import expect, expected_image_scores
from rankseg_plugins.comparison.decoders import ByCase
from rankseg_plugins.report.page import read_page
from rankseg_plugins.report.values import to_csv, to_dict
from rankseg_plugins.scores.risk_coverage import risk_coverage

# The made images are; that this is said is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:the probabilities are too unsure")

DECODERS = ("argmax", "rankseg(metric=dice,pruning_prob=0.1)", "rankseg(metric=iou)")


def by_enumeration(probs, mask, score):
    """E[Dice] or E[IoU] of one mask (d,) over all 2^d truths; (d,) probabilities."""
    total = 0.0
    for truth in itertools.product((0, 1), repeat=len(probs)):
        chance = np.prod([p if y else 1 - p for p, y in zip(probs, truth, strict=True)])
        both, either = np.sum(mask & np.array(truth, bool)), np.sum(mask | np.array(truth, bool))
        whole = either if score == "iou" else both + either
        total += chance * ((1 if score == "iou" else 2) * both / whole if mask.any() else 0)
    return total


def make_samples(images=12, start=0):
    for index in range(start, start + images):
        probs, labels = make_image(index)
        yield Sample(f"image{index:02d}", torch.from_numpy(probs), torch.from_numpy(labels.astype(np.int64)))


@pytest.mark.parametrize("score", ["dice", "iou"])
@pytest.mark.parametrize("form", ["labels", "masks", "binary"])
def test_against_enumeration(score, form):
    """Labels of which one is void, masks that overlap, and one channel; as small integers and as two decisions."""
    generator = torch.Generator().manual_seed(3)
    classes = 1 if form == "binary" else 4
    probs = torch.rand(classes, 2, 3, dtype=torch.float64, generator=generator)
    probs = probs / probs.sum(0) if form == "labels" else probs
    decisions = {
        "labels": [torch.tensor([[0, 1, 1], [255, 0, 2]], dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.int64)],
        "masks": [probs > 0.5, probs > 2],
        "binary": [torch.tensor([[1, 0, 1], [0, 0, 1]]), torch.zeros(2, 3, dtype=torch.int64)],
    }[form]
    found = expect(score, [RankSEG(), RankSEG()], decisions, probs)
    assert found.shape == (2, 2, classes)
    for d, decision in enumerate(decisions):
        for c in range(classes):
            mask = decision[c] if form == "masks" else decision == (1 if form == "binary" else c)
            mask, flat = mask.flatten().numpy(), probs[c].flatten().numpy()
            assert found[d, 0, c] == pytest.approx(by_enumeration(flat, mask, score), abs=1e-9)
            assert found[d, 1, c] == (1 if mask.any() else flat.max())


def test_a_tuned_decoder_is_judged_at_its_temperature():
    """And so are decisions that are equal pixel for pixel."""
    probs = torch.softmax(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), 0)
    sharp = TunedDecoder(RankSEG("acc"), num_classes=3, temperature=0.3)
    labels = probs.argmax(0)
    plain, tuned = expect("dice", [RankSEG("acc"), sharp], [labels, labels], probs)
    at_it = probs_at(probs[None], 0.3, "multiclass")[0]
    np.testing.assert_array_equal(tuned, expect("dice", [RankSEG("acc")], [labels], at_it)[0])
    assert (tuned[0] > plain[0]).all()


@pytest.mark.parametrize("present", ["union", "label"])
def test_formula_of_an_image(present):
    """Two classes of four shown, the last one excluded."""
    found = np.array([[0.8, 0.5, 0.0, 0.9], [1.0, 1.0, 0.25, 1.0]])
    expected = {"skip": 1.3 / 2.25, "zero": 1.3 / 3, "one": (1.3 + 0.75) / 3}
    for absent, value in expected.items():
        assert expected_image_scores(found, Scoring("dice", present, absent, (3,))) == pytest.approx(value)
    nothing = np.array([[0.0, 0.0], [0.25, 0.0]])
    assert expected_image_scores(nothing, Scoring()) == 0
    assert expected_image_scores(np.zeros((2, 2)), Scoring()) == 0
    assert expected_image_scores(nothing, Scoring(absent="one")) == pytest.approx((0.75 + 1) / 2)


def test_it_is_what_images_score_where_probabilities_are_true():
    """Truths drawn from the probabilities themselves: on average decisions score what they were expected to."""
    generator, samples = torch.Generator().manual_seed(0), []
    for index in range(120):
        probs = (2 * torch.randn(3, 6, 7, generator=generator) * torch.rand(1, generator=generator)).softmax(0)
        drawn = torch.multinomial(probs.flatten(1).T, 1, generator=generator).view(6, 7)
        samples.append(Sample(str(index), probs, drawn))
    found = compare(samples, ["argmax", "rankseg(metric=dice,pruning_prob=0)"], risk_coverage=True, panels=0)
    for decoder, expected in zip(found.decoders, found.expected_scores, strict=True):
        differences = found.scoring.image_scores(found.areas(decoder)) - expected
        assert abs(differences.mean()) < 4 * differences.std() / 120**0.5
        assert found.risk_coverage(decoder).excess < 0.8


def test_images_without_a_score_are_left_out():
    empty, full = torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[0.9, 0.2, 0.3]])
    samples = [("a", empty, torch.zeros(3, dtype=torch.int64)), ("b", full, torch.tensor([1, 0, 0]))]
    samples.append(("c", empty, torch.tensor([0, 0, 1])))
    found = compare(samples, ["argmax", "rankseg"], risk_coverage=True)
    curve = found.risk_coverage("argmax")
    assert curve.left_out == 1
    assert curve.risk.tolist() == [0, 0.5]
    assert found.expected_scores[0, 2] == 0
    (section,) = read_page(found).trust
    assert section.text.endswith("Left out, as no class counts in them: 1 image.")


def test_figures_of_the_forms():
    """Curve, JSON, rows, CSV and sections say the same, and that is the function on scores and expected scores."""
    found = compare(make_samples(), DECODERS, ignore_index=255, risk_coverage=True, scoring=Scoring("iou", "label"))
    rows, figures = found.to_rows(), to_dict(found)["risk_coverage"]
    header = to_csv(found).splitlines()[0].split(",")
    assert header == list(rows[0])
    (section,) = read_page(found).trust
    for index, decoder in enumerate(DECODERS):
        of_decoder = [row for row in rows if row["decoder"] == decoder]
        expected, scores = ([row[name] for row in of_decoder] for name in ("expected_iou", "iou"))
        by_hand = [
            np.mean(expect("iou", [None], [found_decision(index, sample)], sample.probs)[0, 0])
            for sample in make_samples()
        ]
        assert expected == pytest.approx(by_hand)  # every class is shown
        curve = risk_coverage(expected, scores)
        assert figures[decoder]["aurc"] == curve.area == found.risk_coverage(decoder).area
        assert figures[decoder]["aurc_ideal"] == curve.ideal
        assert figures[decoder]["normalised_excess"] == curve.excess
        assert figures[decoder]["expected"] == pytest.approx(np.mean(expected))
        assert figures[decoder]["reached"] == pytest.approx(np.mean(scores))
        assert section.rows[index][3:5] == (f"{100 * curve.area:.2f}", f"{100 * curve.ideal:.2f}")


def found_decision(index, sample):
    decoder = [RankSEG("acc"), RankSEG("dice", pruning_prob=0.1), RankSEG("iou")][index]
    return decoder(sample.probs[None])[0]


def test_nothing_of_it_unless_asked_for():
    found = compare(make_samples(2), DECODERS, ignore_index=255)
    assert found.expected_scores is None
    assert "risk_coverage" not in to_dict(found)
    assert read_page(found).trust == []
    assert not any("expected" in name for name in found.to_rows()[0])
    with pytest.raises(ValueError, match="made with risk_coverage=True"):
        found.risk_coverage("argmax")


def test_decided_elsewhere():
    expected = compare(make_samples(), DECODERS, ignore_index=255, risk_coverage=True)
    recorder = Recorder(DECODERS, num_classes=3, ignore_index=255, risk_coverage=True)
    for sample in make_samples():
        decisions = [found_decision(index, sample) for index in range(3)]
        recorder.add_decided(sample.name, sample.labels, decisions, sample.probs)
    np.testing.assert_array_equal(recorder.comparison().expected_scores, expected.expected_scores)
    with pytest.raises(ValueError, match="probs of 'z' must be given, as risk_coverage=True needs them"):
        recorder.add_decided("z", sample.labels, decisions)


def test_a_case_is_judged_by_who_decides_on_it():
    """Also where the decision was made elsewhere."""
    sharp = TunedDecoder(RankSEG("acc"), num_classes=3, temperature=0.3)
    decoders = {"argmax": RankSEG("acc"), "by case": ByCase(RankSEG("acc"), [sharp], {"image01": 0})}
    found = compare(make_samples(2), decoders, ignore_index=255, risk_coverage=True).expected_scores
    assert found[0, 0] == found[1, 0]
    assert found[0, 1] < found[1, 1]
    recorder = Recorder(decoders, num_classes=3, ignore_index=255, risk_coverage=True)
    for sample in make_samples(2):
        recorder.add_decided(sample.name, sample.labels, [sample.probs.argmax(0)] * 2, sample.probs)
    np.testing.assert_array_equal(recorder.comparison().expected_scores, found)


def test_bad_options():
    with pytest.raises(ValueError, match=r"the score of risk_coverage must be .*'dice'.*'iou'.*got 'recall'"):
        Recorder(num_classes=2, scoring=Scoring("recall"), risk_coverage=True)
    with pytest.raises(TypeError, match="risk_coverage must be True or False, got 'yes'"):
        Recorder(num_classes=2, risk_coverage="yes")
