"""Names of images, classes and decoders that hold markup, formulas or no letters at all: every form shows them."""

import csv
import html.parser
import io
import json
import os
import re

import markdown_it
import numpy as np
import pytest
import torch
from image_folders import DECODERS, make_image, run_cli
from matplotlib.text import Text
from rich.console import Console

from rankseg_plugins.comparison import Recorder, Sample
from rankseg_plugins.report import charts
from rankseg_plugins.report.page import read_page
from rankseg_plugins.report.terminal import to_terminal
from rankseg_plugins.report.values import to_csv
from rankseg_plugins.report.words import printable

#: As files may be called, the first one in Latin-1.
FILES = [
    b"caf\xe9",
    b"$x^{$",
    b"a|b `c` *d* _e_ [f](g)",
    b"<img src=x onerror=alert(1)>",
    b'" onload="alert(1)',
    b"=1+1",
    b"-2",
    b"'=1",
    b"esc\x1b[31m\ttab",
    b"new\nline\r",
    b"C:\\data\\&amp;",
    b"# y" + b"y" * 230,
]
CLASSES = ["$\\frac{$ 50%", "top label", "_<script>|" + "z" * 300]
NAMES = [os.fsdecode(name) for name in FILES]


def make_comparison():
    """Images, classes and decoders with such names; each image changes."""
    decoders = {
        "# arg$max^": lambda probs: probs.argmax(1),
        "[/bold] 1) a|b": lambda probs: (probs + 0.2 * (torch.arange(3) == 0).view(1, 3, 1, 1)).argmax(1),
        "x" * 400: lambda probs: probs.argmin(1),
    }
    recorder = Recorder(decoders, num_classes=3, ignore_index=255, warn=False)
    for index, name in enumerate(NAMES):
        probs, labels = make_image(index)
        recorder.add(Sample(name, torch.from_numpy(probs), torch.from_numpy(labels.astype(np.int64))))
    recorder.skipped["bad"] = f"{NAMES[3]}: {NAMES[0]}"
    facts = {"without partner": [NAMES[0], NAMES[2]], "1) $": NAMES[3]}
    return recorder.comparison(CLASSES, facts=facts)


@pytest.fixture(scope="module")
def comparison():
    return make_comparison()


@pytest.fixture(scope="module")
def folder(comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    comparison.report(path)
    return path


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words = set(), set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


def test_page(folder, comparison):
    found = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert "script" not in found.tags
    assert not [name for name in found.attributes if name.startswith("on")]
    for name in (*CLASSES, *comparison.decoders, *comparison.facts, comparison.skipped["bad"]):
        assert printable(name) in found.text
    for example in (*comparison.improved, *comparison.damaged):
        assert printable(example.name) in found.text
    assert "\x1b" not in found.text


def test_markdown(folder, comparison):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    rendered = markdown_it.MarkdownIt().enable("table").render(text)
    tables = [table.split("</table>")[0] for table in rendered.split("<table>")[1:]]
    cells = [{row.count("</t") for row in re.findall("<tr>(.*?)</tr>", table, re.DOTALL)} for table in tables]
    assert cells == [{8}, {4}, {5}, {5}, {3}]
    found = Page(rendered)
    assert found.tags == {"h1", "h2", "ul", "li", "p", "em", "img", "table", "thead", "tbody", "tr", "th", "td"}
    words = " ".join(found.text.split())
    for name in (*CLASSES, *comparison.decoders, *comparison.facts, comparison.skipped["bad"]):
        assert printable(name) in words
    for name, _ in comparison.paired(comparison.candidates[0]).regressions():
        assert printable(name) in words


def test_csv_gives_the_names_back(folder):
    with (folder / "images.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head[-3:] == [f"iou {name}" for name in CLASSES]
    images = [row[0] for row in rows[: len(NAMES)]]
    assert not [cell for row in rows for cell in row[:3] if cell.startswith(tuple("=+-@\t\r"))]
    # Only what is not UTF-8 cannot be in such a file.
    assert [name[name.startswith("'") :] for name in images] == [printable(NAMES[0]), *NAMES[1:]]


def test_json_gives_the_names_back(folder, comparison):
    text = (folder / "report.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["classes"] == CLASSES
    assert list(found["decoders"]) == list(comparison.decoders)
    assert found["skipped"] == comparison.skipped
    assert found["decoders"][comparison.candidates[0]]["paired"]["regressions"][0][0] in NAMES


def test_a_class_called_top_label_keeps_its_row(folder, comparison):
    found = json.loads((folder / "report.json").read_text())["calibration"]
    errors = comparison.calibration.error()
    assert [found["classes"][name]["expected_error"] for name in CLASSES] == pytest.approx(errors[:3])
    assert found["top_label"]["expected_error"] == pytest.approx(errors[3])
    assert len(set(errors.tolist())) == 4
    rows = [line.split(" | ")[1] for line in (folder / "report.md").read_text().splitlines() if "| top label |" in line]
    assert rows[-2:] == [f"{100 * error:.2f}" for error in errors[[1, 3]]]


@pytest.mark.parametrize("chart", [charts.classes, charts.forest, charts.scatter, charts.histogram, charts.reliability])
def test_charts_draw_names_as_they_are(comparison, chart):
    figure = charts.draw(chart, comparison, comparison.candidates[0])
    assert charts.to_png(figure).startswith(b"\x89PNG")
    texts = [text for text in figure.findobj(Text) if re.search("[a-z]", text.get_text())]
    assert not [text for text in texts if text.get_parse_math() or text.get_usetex()]
    assert max(len(line) for text in texts for line in text.get_text().split("\n")) < 120
    if chart is charts.classes:
        assert {text.get_text().rsplit("  ", 1)[0] for text in figure.axes[0].get_yticklabels()} >= set(CLASSES[:2])


def test_terminal_shows_names_as_they_are(comparison):
    console = Console(file=io.StringIO(), width=1000)
    console.print(to_terminal(read_page(comparison)))
    shown = console.file.getvalue()
    assert "[/bold] 1) a|b" in shown
    assert "x" * 400 in shown


def without_times(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [row[:3] + row[4:] for row in csv.reader(file)]


def test_a_run_over_such_files(tmp_path):
    for part in ("probs", "labels"):
        (tmp_path / part).mkdir()
    for index, name in enumerate(NAMES):
        probs, labels = make_image(index)
        np.save(tmp_path / "probs" / f"{name}.npy", probs)
        np.save(tmp_path / "labels" / f"{name}.npy", labels)
    (tmp_path / "labels/classes.txt").write_text("\n".join(CLASSES))
    (tmp_path / "probs" / os.fsdecode(b"alone\x1b\xe9.npy")).write_bytes(b"")
    first = run_cli(tmp_path)
    assert first.returncode == 0, first.stderr
    assert "alone\\x1b\\udce9.npy" in first.stderr
    results = (tmp_path / "out/results.jsonl").read_bytes()
    lines = [json.loads(line) for line in results.splitlines()]
    assert sorted(line["image"] for line in lines[1:]) == sorted(NAMES)
    tables = without_times(tmp_path / "out/images.csv")
    resumed = run_cli(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "out/results.jsonl").read_bytes() == results
    assert without_times(tmp_path / "out/images.csv") == tables


def test_an_odd_folder_and_a_decoder_that_is_judged(tmp_path, monkeypatch):
    for part in ("probs", "labels"):
        (tmp_path / part).mkdir()
    for index in range(3):
        probs, labels = make_image(index)
        np.save(tmp_path / f"probs/{index}.npy", probs)
        np.save(tmp_path / f"labels/{index}.npy", labels)
    out = os.fsdecode(b"[/b] \xe9 :smile:")
    done = run_cli(tmp_path, "--fail-below", 99, out=out)
    assert done.returncode == 3, done.stderr
    assert f"Report: {tmp_path}/{printable(out)}/report.html" in done.stderr
    assert f"{DECODERS[1]}: the lower bound of the gain is" in done.stderr


def test_csv_of_numbers_is_untouched(comparison):
    (row,) = [row for row in csv.DictReader(io.StringIO(to_csv(comparison))) if row["image"] == "'-2"][:1]
    measured = next(each for each in comparison.to_rows() if each["image"] == "-2")
    assert float(row["dice"]) == measured["dice"]
