"""The table: a row per score, a column per decision, losses as plain as gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from rich import box
from rich.table import Table
from rich.text import Text
from torch import Tensor

from examples.demo.decisions import ARGMAX, Decision, Outcome, score_areas
from rankseg_plugins.report.terminal import STYLES
from rankseg_plugins.scores import Areas, levels

ROWS = {
    "dataset IoU": "iou_dataset",
    "image IoU": "iou_image",
    "class IoU": "iou_class",
    "dataset Dice": "dice_dataset",
    "image Dice": "dice_image",
    "class Dice": "dice_class",
}
EXPLANATION = (
    "Percent, and the difference to argmax. Dataset: pixels of all images pooled, then the mean over classes. "
    "Image: mean over the classes of each image, then over images. Class: mean over the images of each class, then "
    "over classes; a class that an image neither holds nor is given is left out there. Images up / down: the number "
    "of images whose Dice is higher / lower than with argmax. pruning_prob: RankSEG leaves a class out of an image "
    "where its largest probability is not above it (0.5 by default); lower values keep what a network is unsure of."
)


class Row(NamedTuple):
    """Values of one score in percent, one for each decision; NaN where there is none."""

    name: str
    values: tuple[float, ...]


class Scores(NamedTuple):
    """Everything the table shows.

    Args:
        decisions: the columns.
        overall: the scores over all classes.
        classes: image-wise Dice of each class.
        images: number of images whose Dice is higher, and lower, than with argmax; None for argmax.
    """

    decisions: tuple[Decision, ...]
    overall: tuple[Row, ...]
    classes: tuple[Row, ...]
    images: tuple[tuple[int, int] | None, ...]


def make_scores(outcomes: Mapping[Decision, Outcome], class_names: Sequence[str]) -> Scores:
    """Collect the rows from the outcomes of one toolkit that kept areas."""
    areas = {decision: outcome.areas for decision, outcome in outcomes.items() if outcome.areas is not None}
    scored = [score_areas(each) for each in areas.values()]
    overall = [Row(title, tuple(100 * each[name] for each in scored)) for title, name in ROWS.items()]
    overall.append(Row("pixel accuracy", tuple(100 * levels.pixel_accuracy(each).item() for each in areas.values())))
    per_class = torch.stack([100 * levels.class_scores(each, levels.dice) for each in areas.values()])
    classes = [Row(name, tuple(per_class[:, label].tolist())) for label, name in enumerate(class_names)]
    images = {decision: levels.image_scores(each, levels.dice) for decision, each in areas.items()}
    wins = tuple(None if each == ARGMAX else _wins(images[each], images[ARGMAX]) for each in areas)
    return Scores(tuple(areas), tuple(overall), tuple(classes), wins)


def image_gains(outcomes: Mapping[Decision, Outcome], decision: Decision) -> Tensor:
    """Dice of every image with ``decision`` minus that with argmax, (images,); NaN for an image without truth."""
    ours, argmax = outcomes[decision].areas, outcomes[ARGMAX].areas
    assert isinstance(ours, Areas)
    assert isinstance(argmax, Areas)
    return levels.image_scores(ours, levels.dice) - levels.image_scores(argmax, levels.dice)


def _wins(ours: Tensor, argmax: Tensor) -> tuple[int, int]:
    return int((ours > argmax).sum()), int((ours < argmax).sum())


def to_terminal(scores: Scores) -> Table:
    """The table for a terminal of 80 columns or more."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("score, %", vertical="bottom")
    for decision in scores.decisions:
        head = "\n".join([decision.name, *decision.detail.split("=")]).rstrip()
        table.add_column(head, justify="right", vertical="bottom", no_wrap=True)
    for rows, heading in ((scores.overall, None), (scores.classes, "Dice per class")):
        if heading:
            table.add_row(Text(heading, style="dim"))
        for row in rows:
            table.add_row(row.name, *(_coloured(row, column) for column in range(len(scores.decisions))))
        table.add_section()
    cells = [_image_cell(each) for each in scores.images]
    table.add_row("images up / down", *cells)
    return table


def _coloured(row: Row, column: int) -> Text:
    text = Text(f"{row.values[column]:.2f}")
    if column:
        gain = _gain(row, column)
        style = STYLES["gain" if gain.startswith("+") else "loss" if gain.startswith("-") else "unclear"]
        text.append(f" {gain:>6}", style=style)
    return text


def _gain(row: Row, column: int) -> str:
    """Difference to argmax with its sign; differences that round to nothing have none."""
    difference = round(row.values[column] - row.values[0], 2)
    return f"{difference:+.2f}" if difference else "0.00"


def _image_cell(wins: tuple[int, int] | None) -> str:
    return "" if wins is None else f"{wins[0]} / {wins[1]}"


def to_markdown(scores: Scores, facts: Sequence[str]) -> str:
    """The same table in Markdown, with facts about the run as a list in front."""
    lines = ["# argmax against RankSEG: the same network, decoded in different ways", ""]
    lines += [f"- {fact}" for fact in facts] + ["", EXPLANATION, ""]
    lines += _markdown_table("score, %", scores.decisions, [_cells(row) for row in scores.overall])
    images = ["images with higher / lower Dice", *(_image_cell(each) for each in scores.images)]
    lines += [f"| {' | '.join(images)} |", "", "Dice of each class (mean over the images that hold it):", ""]
    lines += _markdown_table("class", scores.decisions, [_cells(row) for row in scores.classes])
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    others = (f"{row.values[column]:.2f} ({_gain(row, column)})" for column in range(1, len(row.values)))
    return [row.name, f"{row.values[0]:.2f}", *others]


def _markdown_table(corner: str, decisions: Sequence[Decision], rows: Sequence[Sequence[str]]) -> list[str]:
    head = [corner, *(decision.title for decision in decisions)]
    rule = ["---", *("---:" for _ in decisions)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
