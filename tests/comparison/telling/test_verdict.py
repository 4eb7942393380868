"""Verdicts name score and convention, and what moved the other way; figures against scores worked out apart."""

import html.parser
import re

import pytest
import torch

from benchmarks.tuning import softened
from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Sample, Scoring, compare
from rankseg_plugins.comparison.phrases import points
from rankseg_plugins.report.page import read_page
from rankseg_plugins.tuning import tune

pytestmark = pytest.mark.filterwarnings("ignore:the probabilities are too unsure")


def absent_class(images=24):
    """A faint third class all over, which only every third truth holds: showing it gains there and costs elsewhere."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(images):
        field = torch.nn.functional.interpolate(torch.randn(1, 3, 4, 4, generator=generator), 16, mode="bilinear")[0]
        logits = field + torch.tensor([1.5, 0.5, -2.5]).view(3, 1, 1)
        kept = 2 if index % 3 else 3
        drawn = (logits + torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1))[:kept].softmax(0)
        truth = (torch.rand(16, 16, generator=generator) > drawn.cumsum(0)[:-1]).sum(0)
        found.append(Sample(str(index), logits.softmax(0), truth))
    return found


def compared(present):
    decoders = ["argmax", "rankseg(pruning_prob=0)"]
    return compare(absent_class(), decoders, scoring=Scoring(present=present), panels=0)


def test_what_one_convention_hides_the_verdict_of_the_other_shows():
    by_present = {present: compared(present) for present in ("union", "label")}
    union, label = (each.verdict() for each in by_present.values())
    assert union.sentence.startswith("rankseg(pruning_prob=0) lowers image Dice (union) by 12.")
    assert union.against == ()
    assert label.sign == "unclear"
    assert "image Dice (label)" in label.sentence
    assert "image Dice (union) -12." in label.sentence
    for each in label.against:
        found = by_present[each.present or "label"]
        before, after = (found.level(name, each.score, each.level) for name in found.decoders)
        assert each.gain == pytest.approx(after - before)
        assert each.low < each.gain < each.high < 0


def test_absent_classes_that_count_are_named():
    found = compare(absent_class(), ["argmax", "rankseg"], scoring=Scoring(absent="one"), panels=0)
    assert "image Dice (union, absent one)" in found.verdict().sentence


def test_of_too_few_cases_no_interval_is_told():
    few = compare(absent_class(4), panels=0).verdict()
    assert few.sign == "unclear"
    assert re.search(r"points \(too few cases for an interval\); \d of 4 images got worse", few.sentence)
    one = compare(absent_class(1), panels=0)
    assert repr(one).startswith("Comparison of 1 image\n")
    assert "Only 1 case: intervals are told of 5 or more." in read_page(one).notes


def test_a_prompt_shows_few_lines():
    samples = absent_class(8)
    found = compare(samples, ["argmax", *(f"rankseg(pruning_prob={each / 100})" for each in range(20))], panels=0)
    lines = repr(found).splitlines()
    assert len(lines) <= 15
    assert lines[-1] == "and 10 more"
    gains = [float(re.search(r" ([+-]?\d+\.\d\d)  ", line)[1]) for line in lines[3:-1]]
    assert gains == sorted(gains, reverse=True)
    assert len(repr(tune(samples, min_cases=0)).splitlines()) <= 15


def test_what_a_comparison_gives_is_one_line_in_a_prompt():
    """However many images there are."""
    truth = torch.arange(300)[:, None] % 3
    probs = torch.nn.functional.one_hot(truth[:, 0].roll(1), 3)[..., None].float()
    found = compare([(str(i), *each) for i, each in enumerate(zip(probs, truth, strict=True))], risk_coverage=True)
    paired, curve = found.paired(found.candidates[0]), found.risk_coverage("argmax")
    assert repr(paired) == "300 images: 0.00 (0.00 to 0.00) points; 0 better, 0 worse"
    assert repr(curve) == "RiskCoverage of 300 images: AURC 1.0000, ideal 1.0000, random 1.0000; 0 left out"
    sample = Sample("a", torch.rand(3, 300, 300), torch.zeros(300, 300, dtype=torch.int64))
    assert repr(sample) == "Sample('a', probs=<torch.float32 (3, 300, 300)>, labels=<torch.int64 (300, 300)>)"


class Cells(html.parser.HTMLParser):
    """Rows of cells of a page, and its paragraphs."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.lines, self._into = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td", "p"):
            self._into = self.lines if tag == "p" else self.rows[-1]
            self._into.append("")

    def handle_endtag(self, tag):
        self._into = None

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data


def test_a_notebook_shows_the_lines_of_a_prompt():
    samples = absent_class(8)
    named = {"argmax": RankSEG("acc"), **{f"<b>{each}</b>": RankSEG(pruning_prob=each / 20) for each in range(12)}}
    found = compare(samples, named, panels=0)
    page, lines = Cells(found._repr_html_()), repr(found).splitlines()
    assert page.lines == [lines[0], lines[-1]] == ["Comparison of 8 images", "and 2 more"]
    assert [re.split(r"  +", line) for line in lines[1:-1]] == [[each for each in row if each] for row in page.rows]
    tuned = tune(samples, min_cases=0)
    assert tuned.verdict in Cells(tuned._repr_html_()).lines
    assert len(Cells(tuned._repr_html_()).rows) <= 12


def test_a_prompt_has_the_figures_of_a_report_without_its_work():
    found = compared("label")
    shown = repr(found)
    assert not {"tables", "_verdicts", "_by_present"} & vars(found).keys()
    paired = found.paired(found.candidates[0])
    low, high = (points(end) for end in paired.interval)
    assert f"{points(paired.mean)}  {low} to {high}" in shown


def test_a_verdict_is_worked_out_once():
    found = compared("label")
    assert found.verdict() is found.verdict(found.candidates[0])


def test_a_decoder_measured_on_its_own_images_is_named(tmp_path):
    samples = softened(40, 1, 2.0, 24)
    tune(samples, pruning_probs=[0.5], temperatures=[0.5], presence=[]).decoder.save(tmp_path / "it.json")
    renamed = [Sample(f"other {each.name}", each.probs, each.labels) for each in samples]
    for again in (samples, renamed, samples[:30]):
        with pytest.warns(UserWarning, match=r"it.json was tuned on images that are measured here, \d+ of \d+"):
            found = compare(again, ["argmax", str(tmp_path / "it.json")], panels=0)
        assert "flattered" in found.cautions[0]
    for others in (samples[:10], softened(40, 2, 2.0, 24)):
        assert compare(others, ["argmax", str(tmp_path / "it.json")], panels=0).cautions == ()
