"""The table, the comparison of the toolkits and the picture, from outcomes made by hand."""

import argparse
import io

import numpy as np
import pytest
import torch
from rich.console import Console

from examples.demo import picture, story, table
from examples.demo.agreement import disagreements
from examples.demo.decisions import ARGMAX, DICE, LabelMaps, Outcome, score_areas
from examples.demo.folder import read_folder
from examples.demo.through_mmseg import OWN_IOU
from examples.demo.training import Trained
from rankseg_plugins.scores import areas

TRUTH = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 2]], [[0, 0, 0, 0], [1, 1, 1, 255]]])


def outcome(labels, with_areas=True, **scores):
    maps = LabelMaps()
    maps.extend(labels)
    counts = areas(labels, TRUTH, 3, 255)
    return Outcome(maps, {**score_areas(counts), **scores}, counts if with_areas else None)


def changed(image, row, column, label):
    labels = TRUTH.clone().masked_fill(TRUTH == 255, 0)
    labels[image, row, column] = label
    return labels


def test_label_maps_come_back_as_they_were():
    maps = LabelMaps()
    maps.extend(torch.tensor([[[0, 3], [254, 255]]]))
    maps.extend([torch.tensor([[7, 8, 9]])])
    assert len(maps) == 2
    np.testing.assert_array_equal(maps[0], [[0, 3], [254, 255]])
    np.testing.assert_array_equal(maps[1], [[7, 8, 9]])


def test_gains_and_losses_are_shown_alike():
    argmax, ours = outcome(changed(0, 1, 3, 1)), outcome(changed(1, 0, 0, 1))
    scores = table.make_scores({ARGMAX: argmax, DICE: ours}, ("sky", "road", "car"))
    rows = {row.name: row.values for row in scores.overall}
    assert rows["pixel accuracy"] == pytest.approx((100 * 14 / 15, 100 * 14 / 15))
    assert rows["image Dice"][1] > rows["image Dice"][0]
    assert scores.images == (None, (1, 1))
    assert scores.classes[2].values == (0.0, 100.0)
    markdown = table.to_markdown(scores, ["a fact"])
    gain = rows["image Dice"][1] - rows["image Dice"][0]
    assert f"| image Dice | {rows['image Dice'][0]:.2f} | {rows['image Dice'][1]:.2f} (+{gain:.2f}) |" in markdown
    assert "| pixel accuracy | 93.33 | 93.33 (0.00) |" in markdown
    assert "| car | 0.00 | 100.00 (+100.00) |" in markdown
    loss = scores.classes[0].values[1] - scores.classes[0].values[0]
    assert loss < 0
    assert f"({loss:.2f})" in markdown
    assert "- a fact\n" in markdown


def test_the_table_fits_80_columns():
    names = ("background", "body", "nucleus", "filament")
    five = [ARGMAX, *table_decisions()]
    row = table.Row("pixel accuracy", (12.34, 100.0, 0.0, 55.55, 43.21))
    scores = table.Scores(tuple(five), (row,), tuple(table.Row(n, row.values) for n in names), (None, *[(101, 99)] * 4))
    console = Console(width=200, record=True)
    with console.capture() as capture:
        console.print(table.to_terminal(scores))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("100.00 +87.66" in line for line in lines)
    assert any("0.00 -12.34" in line for line in lines)


def table_decisions():
    from examples.demo.decisions import DECISIONS

    return DECISIONS[1:]


def test_equal_outcomes_agree():
    labels = changed(0, 1, 3, 1)
    own = round(100 * score_areas(areas(labels, TRUTH, 3, 255))["iou_dataset"], 2)
    outcomes = {"A": {DICE: outcome(labels, **{OWN_IOU: own})}, "B": {DICE: outcome(labels, with_areas=False)}}
    assert disagreements(outcomes) == []


def test_the_other_metric_may_round_the_last_digit_otherwise():
    """Half of a last digit off, and a float32 as IoUMetric's results are."""
    labels = changed(0, 1, 3, 1)
    exact = 100 * score_areas(areas(labels, TRUTH, 3, 255))["iou_dataset"]
    for off, found in ((0.005001, 0), (-0.005001, 0), (0.02, 1)):
        own = float(np.float32(exact + off))
        assert len(disagreements({"A": {DICE: outcome(labels, **{OWN_IOU: own})}})) == found


def test_every_kind_of_difference_is_named():
    labels = changed(0, 1, 3, 1)
    base = outcome(labels)
    assert disagreements({"A": {DICE: base}, "B": {DICE: outcome(labels, dice_image=0.5)}}) == [
        f"RankSEG dice: A and B: dice_image is {base.scores['dice_image']} and 0.5"
    ]
    other = labels.clone()
    other[1, 1, 3] = 2  # where the truth is unknown: the same scores, other labels
    assert disagreements({"A": {DICE: base}, "B": {DICE: outcome(other)}}) == [
        "RankSEG dice: A and B: image 1 differs in 1 pixels"
    ]
    fewer = Outcome(LabelMaps(), base.scores)
    assert disagreements({"A": {DICE: base}, "B": {DICE: fewer}}) == ["RankSEG dice: A and B: 2 and 0 images"]
    nan = outcome(labels, dice_image=float("nan"))
    assert len(disagreements({"A": {DICE: base}, "B": {DICE: nan}})) == 1
    own = outcome(labels, **{OWN_IOU: 12.34})
    (line,) = disagreements({"A": {DICE: own}})
    assert line.startswith("RankSEG dice: A's IoUMetric mIoU is 12.34, the demo counts ")


def test_the_picture_shows_the_images_that_change_most(folder, tmp_path):
    data = read_folder(folder)
    maps = {name: LabelMaps() for name in "ab"}
    for index, pair in enumerate(data.val):
        labels = torch.from_numpy(pair.read_mask().copy())
        maps["a"].extend([labels])
        labels[: 5 * index + 1] = 2
        maps["b"].extend([labels])
    outcomes = {ARGMAX: Outcome(maps["a"], {}), DICE: Outcome(maps["b"], {})}
    shown = picture.draw(tmp_path / "picture.png", data, DICE, outcomes, [0.1, -0.1])
    assert shown == [data.val[1], data.val[0]]
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("differ", [False, True])
def test_disagreement_is_said_and_is_status_1(differ, folder, tmp_path):
    data = read_folder(folder)
    truth = torch.stack([torch.from_numpy(pair.read_mask().copy()).long() for pair in data.val])

    def decided(labels):
        maps = LabelMaps()
        maps.extend(labels)
        counts = areas(labels, truth, len(data.classes), 255)
        return Outcome(maps, score_areas(counts), counts)

    same = {ARGMAX: decided(truth), DICE: decided(truth.flip(2))}
    other = {**same, DICE: decided(truth)} if differ else same
    outcomes = {"MMSegmentation": same, "Lightning": other, "TorchMetrics": same}
    console = Console(record=True, width=200, file=io.StringIO())
    trained = Trained(torch.nn.Identity(), tmp_path / "network.pth", 1, 1.0)
    status = story.report(argparse.Namespace(out=tmp_path), data, trained, outcomes, console)
    screen, table_file = console.export_text(), (tmp_path / "table.md").read_text(encoding="utf-8")
    assert status == int(differ)
    for text in (screen, table_file):
        assert ("DISAGREE" in text) == differ
        assert ("RankSEG dice: MMSegmentation and Lightning: image 0 differs in" in text) == differ
        assert ("MMSegmentation, Lightning and TorchMetrics agree" in text) != differ
