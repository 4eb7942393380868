"""Comparisons by group, against comparisons of the images of each group alone."""

import numpy as np
import pytest
import torch

from rankseg_plugins.comparison import Recorder, Sample, compare
from rankseg_plugins.comparison.telling.groups import group_losses, group_notes
from rankseg_plugins.report.page import read_page
from rankseg_plugins.report.values import to_dict

OPTIONS = {"ignore_index": 255, "panels": 1}


def make_samples(images=48):
    """The second decoder gains in the first three fourths of the images and loses in the last; two images a case."""
    generator = torch.Generator().manual_seed(0)
    for index in range(images):
        labels = torch.randint(0, 2, (6, 8), generator=generator)
        right = 0.6 if index < 3 * images // 4 else 0.25
        hit = torch.rand(6, 8, generator=generator) < right
        foreground = torch.where(hit, labels, 1 - labels) * 0.6 + 0.2
        yield Sample(f"i{index:02d}", torch.stack([1 - foreground, foreground]), labels, f"case{index // 2:02d}")


DECODERS = {"rest": lambda probs: (probs[:, 1] >= 0).long(), "network": lambda probs: probs.argmax(1)}
SCANNERS = {f"case{index:02d}": "AAABBB"[index // 3] if index < 18 else "C" for index in range(24)}


@pytest.fixture(scope="module")
def found():
    groups = {"scanner": SCANNERS, "half": {f"i{index:02d}": index % 2 for index in range(48)}}
    return compare(make_samples(), DECODERS, groups=groups, **OPTIONS)


def alone(names):
    return compare((each for each in make_samples() if each.name in names), DECODERS, **OPTIONS)


def test_each_group_is_as_if_it_were_alone(found):
    by_scanner = found.by_group(SCANNERS)
    assert list(by_scanner) == ["A", "B", "C"]
    for scanner, part in by_scanner.items():
        expected = alone(part.names)
        assert {SCANNERS[each.case_name] for each in make_samples() if each.name in part.names} == {scanner}
        assert part.paired("network").interval == expected.paired("network").interval
        np.testing.assert_array_equal(part.paired("network").differences, expected.paired("network").differences)
        np.testing.assert_array_equal(part.differences.classes, expected.differences.classes)
        assert part.level("rest", "iou", "dataset") == expected.level("rest", "iou", "dataset")
        assert part.calibration is None
        assert part.improved == part.damaged == ()
        assert part.groups == {}


def test_tables_and_json_hold_the_figures_of_each(found):
    table = found.group_tables[0]
    figures = to_dict(found)["groups"]
    assert [each.column for each in found.group_tables] == ["scanner", "half"] == list(figures)
    assert table.unused == []
    for row in table.rows:
        expected = found.by_group(SCANNERS)[row.value]
        assert (row.images, row.cases) == (len(expected.names), len(set(expected.cases)))
        assert row.baseline == pytest.approx(expected.level("rest", "dice", "image"))
        ((gain, *interval),) = row.gains
        assert gain == pytest.approx(expected.paired("network").mean)
        assert tuple(interval) == expected.paired("network").interval
        in_json = figures["scanner"][row.value]
        assert in_json["gains"]["network"] == {"mean": gain, "interval": interval}
        assert [in_json[name] for name in ("images", "cases", "baseline")] == [row.images, row.cases, row.baseline]
    (section, half) = read_page(found).groups
    assert (section.title, half.title) == ("Groups by scanner", "Groups by half")
    assert [row[:3] for row in section.rows] == [("A", "18", "9"), ("B", "18", "9"), ("C", "12", "6")]
    assert [row[:3] for row in half.rows] == [("0", "24", "24"), ("1", "24", "24")]


def test_a_loss_in_a_group_stands_beside_the_verdict(found):
    (sentence,) = group_losses(found, found.group_tables)
    loss = found.by_group(SCANNERS)["C"].paired("network")
    assert found.paired("network").interval[0] > 0 > loss.interval[1]
    assert sentence.startswith(
        "network certainly lowers image Dice (union) in a group, though over all images it improves"
    )
    assert f"scanner C, {100 * loss.mean:+.2f} points (" in sentence
    assert "12 images" in sentence
    assert read_page(found).verdicts[1:] == [(sentence, "loss")]
    assert to_dict(found)["group_losses"] == [sentence]


def test_nothing_is_said_where_the_whole_loses_or_nothing_does():
    last = [each for each in make_samples() if int(each.name[1:]) >= 36]
    lost = compare(last, DECODERS, groups={"scanner": dict.fromkeys(SCANNERS, "C")}, **OPTIONS)
    assert lost.paired("network").interval[1] < 0
    assert group_losses(lost, lost.group_tables) == []
    gained = compare(list(make_samples())[:36], DECODERS, groups={"scanner": SCANNERS}, **OPTIONS)
    assert group_losses(gained, gained.group_tables) == []
    assert read_page(gained).verdicts == [gained.verdict("network")[:2]]


@pytest.mark.parametrize("cases", [4, 5])
def test_groups_that_are_too_small_are_not_judged(cases):
    """All of their images lose, and no more than that can be said of four cases."""
    few = [each for each in make_samples() if int(each.name[1:]) < 36 + 2 * cases]
    found = compare(few, DECODERS, groups={"scanner": SCANNERS}, confidence=0.6, **OPTIONS)
    row = found.group_tables[0].rows[2]
    ((gain, low, high),) = row.gains
    assert (row.value, row.cases, gain < 0) == ("C", cases, True)
    assert [np.isnan([low, high]).all(), bool(group_losses(found, found.group_tables))] == [cases == 4, cases == 5]
    said = [note for note in group_notes(found.group_tables) if "too small to say" in note]
    expected = ["Groups of fewer than 5 cases with a score are too small to say: scanner C (4)."]
    assert said == (expected if cases == 4 else [])
    assert read_page(found).groups[0].rows[2][-1].endswith("(too few cases)") == (cases == 4)


def test_an_image_counts_before_its_case_and_strange_names_are_told():
    values = {**SCANNERS, "i00": "D", "x": "E", "y": "E"}
    found = compare(make_samples(), DECODERS, groups={"scanner": values}, **OPTIONS)
    table = found.group_tables[0]
    assert [(row.value, row.images) for row in table.rows] == [("A", 17), ("B", 18), ("C", 12), ("D", 1)]
    assert table.unused == ["x", "y"]
    assert "The groups by scanner hold 2 names of no image here: x, y." in read_page(found).notes


def test_images_without_a_score_and_groups_of_them():
    nothing = torch.zeros(4, dtype=torch.int64)
    samples = [(name, torch.full((1, 4), 0.1), nothing) for name in "ab"] + [
        ("c", torch.full((1, 4), 0.9), nothing + 1)
    ]
    found = compare(samples, groups={"site": {"a": "x", "b": "x", "c": "y"}}, panels=0)
    (empty, full) = found.group_tables[0].rows
    assert np.isnan([empty.baseline, empty.gains[0][0]]).all()
    assert (full.baseline, full.gains[0][0]) == (1, 0)
    assert to_dict(found)["groups"]["site"]["x"]["baseline"] is None
    assert [row[-1] for row in read_page(found).groups[0].rows] == ["n/a", "0.00 (too few cases)"]


def test_an_image_in_no_group_is_refused_before_it_is_decoded():
    decoded = []
    values = {f"i{index:02d}": "A" for index in range(3)}
    decoders = {"one": lambda probs: decoded.append(1) or probs.argmax(1), "other": lambda probs: probs.argmax(1)}
    with pytest.raises(
        ValueError, match="groups must have a site for every image or its case, and have none for 'i03'"
    ):
        compare(make_samples(), decoders, groups={"site": values})
    assert len(decoded) == 3
    recorder = Recorder(num_classes=2)
    for sample in list(make_samples())[:8]:
        recorder.add(sample)
    with pytest.raises(ValueError, match="have none for 'i03', 'i04', 'i05' and 2 more"):
        recorder.comparison(groups={"site": values})
    with pytest.raises(ValueError, match="groups must have a group for every image or its case, and have none"):
        recorder.comparison().by_group(values)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"i00": "A"}, "groups must be a dict of columns, .* got 'A' for 'i00'"),
        ([{"i00": "A"}], "groups must be a dict of columns"),
        ({"site": {"i00": None}}, "site of an image must be a string, got None"),
        ({"site": {None: "A"}}, "name of an image must be a string, got None"),
        ({3: {"i00": "A"}}, "groups must be a dict of columns"),
    ],
)
def test_what_is_no_groups(groups, message):
    with pytest.raises(TypeError, match=message):
        compare(make_samples(), groups=groups)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("A", "groups must be a dict by the name of an image or case, got 'A'"),
        ({"scanner": SCANNERS}, "group of an image must be a string, got {"),
    ],
)
def test_what_is_no_column(found, groups, message):
    with pytest.raises(TypeError, match=message):
        found.by_group(groups)
