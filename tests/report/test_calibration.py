"""What a report says of the calibration: of all classes that count, and in the same words in all of its forms."""

import json
import re

import pytest
import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Sample, Scoring, compare
from rankseg_plugins.report.charts import draw, reliability
from rankseg_plugins.report.html import to_html
from rankseg_plugins.report.markdown import to_markdown
from rankseg_plugins.report.page import read_page
from rankseg_plugins.report.values import to_dict

# Probabilities as even as these are warned of, which is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:the probabilities")

#: Of each class the probability of every pixel, and how many of eight hold it.
PROBABILITY, HOLD = [0.9, 0.75, 0.5], [4, 4, 4]


def overlapping(probability=PROBABILITY, hold=HOLD):
    probs = torch.tensor(probability).view(-1, 1, 1).expand(-1, 2, 4)
    masks = torch.arange(8).view(2, 4) < torch.tensor(hold).view(-1, 1, 1)
    decoders = {each: RankSEG("acc", output_mode="multilabel") for each in ("argmax", "other")}
    return [Sample("a", probs, masks)], decoders


def compared(samples, decoders, **options):
    return compare(samples, decoders, **options)


def rows_of(page):
    """The table as Markdown and as HTML show it."""
    markdown = to_markdown(page, []).split("## Calibration")[1].split("\n## ")[0]
    in_markdown = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")][2:]
    table = to_html(page, []).split('<h2 id="calibration">')[1].split("</table>")[0]
    in_html = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[2:]]
    return in_markdown, [[cell.replace("\u2212", "-") for cell in row] for row in in_html]


def test_masks_that_overlap_are_all_told_of():
    """The last class means what it says, the others do not."""
    found = compared(*overlapping())
    page, figures = read_page(found), json.loads(json.dumps(to_dict(found)))["calibration"]
    error = (0.4 + 0.25 + 0.0) / 3
    assert figures["all_classes"] == pytest.approx({"expected_error": error, "overconfidence": error})
    assert figures["top_label"] is None
    assert page.calibration == (
        f"Expected calibration error {100 * error:.2f} %, all classes together. On average the probabilities are too "
        f"high: probability minus frequency is +{100 * error:.2f} points."
    )
    in_markdown, in_html = rows_of(page)
    assert in_markdown == in_html
    assert in_html[2:] == [["class 2", "0.00", "0.00"], ["all classes", "21.67", "+21.67"]]
    labels = [text.get_text() for text in draw(reliability, found, "other").axes[0].get_legend().get_texts()]
    assert labels == ["all classes", "each class"]


def test_only_the_classes_that_count():
    found = compared(*overlapping(), scoring=Scoring(excluded=(0,)))
    assert [row.name for row in found.tables.calibration] == ["class 1", "class 2", "all classes"]
    assert found.tables.calibration[-1].overconfidence == pytest.approx(0.125)
    single = compared(*overlapping(), scoring=Scoring(excluded=(1, 2)))
    assert [row.name for row in single.tables.calibration] == ["class 0"]
    assert "all classes" not in read_page(single).calibration
    assert "too high: probability minus frequency is +40.00 points" in read_page(single).calibration


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        ([0.25, 0.5, 0.5], "too low: probability minus frequency is -8.33 points"),
        ([0.5] * 3, "as high as they should be"),
    ],
)
def test_which_way_they_are_off(probability, words):
    assert words in read_page(compared(*overlapping(probability))).calibration


def test_labels_are_told_of_by_the_top_one():
    probs = torch.tensor([[0.9] * 8, [0.1] * 8])
    found = compared([("a", probs, torch.tensor([0, 1] * 4))], ["argmax", "rankseg"])
    words = "the network is too sure of its labels: probability minus frequency is +40.00 points."
    assert words in read_page(found).calibration
    assert to_dict(found)["calibration"]["all_classes"] is None


def test_where_no_pixel_is_known():
    probs, unknown = torch.full((2, 8), 0.5), torch.full((8,), 255)
    page = read_page(compared([("a", probs, unknown)], ["argmax", "rankseg"], ignore_index=255))
    assert page.calibration == "No pixel tells how far the probabilities can be relied upon."
    in_markdown, in_html = rows_of(page)
    assert in_markdown == in_html == [[name, "n/a", "n/a"] for name in ("class 0", "class 1", "top label")]
