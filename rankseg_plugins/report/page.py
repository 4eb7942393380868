"""What a report says, worked out once for all of its forms: HTML, Markdown, terminal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.intervals.levels import SELDOM
from rankseg_plugins.comparison.intervals.statistics import FEWEST
from rankseg_plugins.comparison.phrases import NONE, gained, named, number_of, percent, points, unit
from rankseg_plugins.comparison.telling.groups import GroupTable, group_losses, group_notes
from rankseg_plugins.comparison.telling.trust import trust_rows
from rankseg_plugins.report.words import CONVENTIONS, describe_left_out

#: Probabilities that differ less from frequencies are as high as they should be.
AS_HIGH = 0.005


class Section(NamedTuple):
    """A part with a heading: a sentence, a table and pieces of code, each perhaps absent.

    Args:
        title: the heading.
        text: plain text.
        head: of the table.
        rows: of the table, as long as ``head``.
        code: title and text of each piece.
    """

    title: str
    text: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    code: tuple[tuple[str, str], ...] = ()


class Introduction(NamedTuple):
    """Stands in place of the verdicts on single decoders.

    Args:
        title: of the page.
        verdict: the most important sentence.
        sign: ``"gain"``, ``"loss"`` or ``"unclear"``.
        notes: what to know about it.
        sections: between the verdict and the figures.
        bridge: leads to the figures of the comparison.
    """

    title: str
    verdict: str
    sign: str
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    bridge: str = ""


class Page(NamedTuple):
    """The sentences of a report; its figures are the tables of the comparison.

    Args:
        comparison: names, tables and facts.
        verdicts: the most important sentences, and ``rankseg_plugins.comparison.phrases.sign`` of each.
        notes: what a reader should know before trusting the figures.
        calibration: whether the network is too sure or not sure enough; None where nothing was measured.
        presence: of every decoder that knows of it, how far it can be relied upon to know which classes are there.
        groups: of every column of groups, gain and interval in each of them.
        trust: how far what decoders are expected to score tells which images can be trusted, if it was asked for.
        introduction: stands in place of the verdicts on single decoders.
    """

    comparison: Comparison
    verdicts: list[tuple[str, str]]
    notes: list[str]
    calibration: str | None
    presence: list[Section]
    groups: list[Section]
    trust: list[Section]
    introduction: Introduction | None = None


def read_page(comparison: Comparison, introduction: Introduction | None = None) -> Page:
    """What a report of a comparison says, perhaps with an introduction above."""
    verdicts = [(introduction.verdict, introduction.sign)] if introduction else _verdicts(comparison)
    knowing = [
        presence_section(row.presence, row.name, "in these images")
        for row in comparison.tables.decoders
        if row.presence
    ]
    verdicts += [(sentence, "loss") for sentence in group_losses(comparison, comparison.group_tables)]
    groups = [_groups(comparison, table) for table in comparison.group_tables]
    calibrated = _calibration(comparison)
    return Page(comparison, verdicts, _notes(comparison), calibrated, knowing, groups, _trust(comparison), introduction)


def _verdicts(comparison: Comparison) -> list[tuple[str, str]]:
    return [comparison.verdict(decoder)[:2] for decoder in comparison.candidates]


def _notes(comparison: Comparison) -> list[str]:
    found = [f"{CONVENTIONS}.", *(f"{each}." for each in comparison.cautions)]
    cases = int(comparison.cases.max()) + 1
    if cases < FEWEST:
        found.append(f"Only {number_of(cases, 'case')}: intervals are told of {FEWEST} or more.")
    elif any(np.isnan(each[:, 1:]).any() for each in comparison.differences.levels.values()):
        found.append(
            f"Too few cases for intervals of means over classes: fewer than {FEWEST} hold a class, of more than "
            f"{SELDOM:.0%} of the classes."
        )
    absent = [name for name, images, *_ in comparison.tables.classes if not images]
    if absent:
        found.append(
            f"No truth holds {named(absent, 6, 'more classes')}. Pixels that are given to such a class only cost."
        )
    found += group_notes(comparison.group_tables)
    baseline, *others = comparison.tables.decoders
    for row in others:
        if comparison.decides_as(row.name) is not None:
            continue  # said of the other one
        sentence = describe_left_out(row.left_out, comparison.scored_classes, row.name, baseline.name)
        found += [] if sentence is None else [f"{sentence}."]
    if len(comparison.distinct) > 1:
        found.append(
            "Several decoders were tried on the same images: the best of them looks a little better than it is. "
            "Choose on one set of images, and measure on another."
        )
    if comparison.skipped:
        found.append(f"{len(comparison.skipped)} images could not be read or scored and are left out; see the end.")
    return found


def presence_section(found: Mapping[str, Any], decoder: str, where: str) -> Section:
    """How far a decoder can be relied upon to know which classes are there.

    Args:
        found: see ``rankseg_plugins.comparison.blocks.presence.describe_presence``.
        decoder: who knows.
        where: in which images.
    """
    text = (
        f"{decoder} shows a class by the probability that an image holds it. Here that stands against what the truth "
        f"holds, {where}. Expected calibration error {percent(found['error'])} %, all classes together."
    )
    head = ("probability that a class is there, %", "classes of images that are, %", "number")
    rows = tuple((percent(likely), percent(share), str(number)) for likely, share, number in found["bins"])
    return Section("Which classes are there", text, head, rows)


def _groups(comparison: Comparison, table: GroupTable) -> Section:
    """Gain and interval in each group of a column."""
    rows = []
    for row in table.rows:
        cells = itertools.starmap(gained, row.gains)
        rows.append((row.value, str(row.images), str(row.cases), percent(row.baseline), *cells))
    confidence = 100 * comparison.confidence
    text = (
        f"Of the images of each {table.column} the {unit(comparison.scoring)}: {comparison.decoders[0]} in percent, "
        f"and the gain of the others in points with its {confidence:g} % interval over the cases of the group. Of many "
        f"groups a few look certain by chance: about {100 - confidence:g} % of those in which nothing changes."
    )
    head = (table.column, "images", "cases", f"{comparison.decoders[0]}, %", *comparison.candidates)
    return Section(f"Groups by {table.column}", text, head, tuple(rows))


def _trust(comparison: Comparison) -> list[Section]:
    """How far what decoders are expected to score tells which images can be trusted."""
    found = trust_rows(comparison)
    if not found:
        return []
    rows = tuple(
        (
            row.name,
            percent(row.expected),
            percent(1 - row.curve.random),
            percent(row.curve.area),
            percent(row.curve.ideal),
            percent(row.curve.random),
            NONE if math.isnan(row.curve.excess) else f"{row.curve.excess:.2f}",
            str(len(row.curve.risk)),
        )
        for row in found
    )
    what = unit(comparison.scoring)
    text = (
        f"The probabilities tell what {what} to expect of each decision, without labels. Images are accepted in that "
        f"order, the largest expected score first; the risk is 1 - {what}, the mean over what is accepted, and AURC "
        "the area under it, where lower is better. The ideal order is that by the scores themselves. The normalised "
        "excess says where between ideal and random order the area lies: 0 is ideal, 1 random, above 1 worse."
    )
    left_out = sorted({row.curve.left_out for row in found})
    if left_out[-1]:
        least = f"{left_out[0]} to " if left_out[0] < left_out[-1] else ""
        text += f" Left out, as no class counts in them: {least}{number_of(left_out[-1], 'image')}."
    head = ("decoder", "expected, %", "reached, %", "AURC, %", "ideal", "random", "normalised excess", "images")
    return [Section("Which images can be trusted", text, head, rows)]


def _calibration(comparison: Comparison) -> str | None:
    """Whether the network is too sure or not sure enough, by what stands for all classes."""
    measured, rows = comparison.calibration, comparison.tables.calibration
    if measured is None:
        return None
    error, off = rows[-1].error, rows[-1].overconfidence
    if math.isnan(off):
        return "No pixel tells how far the probabilities can be relied upon."
    sentence = f"Expected calibration error {percent(error)} %"
    if len(measured.count) > len(comparison.classes):
        how = f"the network is {'too sure of its labels' if off > 0 else 'less sure of its labels than it may be'}"
    else:
        sentence += ", all classes together" if len(rows) > 1 else ""
        how = f"the probabilities are too {'high' if off > 0 else 'low'}"
    if abs(off) < AS_HIGH:
        return f"{sentence}. On average the probabilities are as high as they should be."
    return f"{sentence}. On average {how}: probability minus frequency is {points(off)} points."
