"""The folder of a report: its files, and what must be there before it can be written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankseg_plugins._imports import require
from rankseg_plugins._writing import write_atomically
from rankseg_plugins.comparison.comparison import Comparison
from rankseg_plugins.comparison.phrases import unit
from rankseg_plugins.comparison.telling.tables import best_of
from rankseg_plugins.report import charts
from rankseg_plugins.report.html import to_html
from rankseg_plugins.report.markdown import to_markdown
from rankseg_plugins.report.page import Page, read_page
from rankseg_plugins.report.panels import drawn_decoders
from rankseg_plugins.report.values import to_csv, to_dict
from rankseg_plugins.report.words import describe_alike

#: What ``write_report`` writes.
FILES = ("report.html", "report.md", "report.json", "images.csv")
#: What writing a report takes, statistics included.
REPORT_NEEDS = ("scipy.stats", "matplotlib", "jinja2", "PIL.Image")


def check_report(report: str | os.PathLike[str]) -> Path:
    """Bring the option ``report`` into the form of a folder, before a run whose end would be too late to refuse it.

    Args:
        report: folder for the report of a comparison. It is made if absent.

    Raises:
        TypeError: if it is not a path.
        ValueError: if it is a file.
        ImportError: if a package of the extra ``report`` is absent.
        OSError: if the folder cannot be made.

    Example:
        >>> check_report(True)
        Traceback (most recent call last):
            ...
        TypeError: report must be the path of a folder, got True
    """
    if not isinstance(report, (str, os.PathLike)):
        raise TypeError(f"report must be the path of a folder, got {report!r}")
    folder = Path(report)
    if folder.is_file():
        raise ValueError(f"report must be a folder, {folder} is a file")
    for module in REPORT_NEEDS:
        require(module, extra="report")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_report(comparison: Comparison, path: str | os.PathLike[str]) -> Page:
    """Write a report.

    Args:
        comparison: the figures; drawn are its second decoder, and the best of those behind it.
        path: folder, made if absent. It gets ``report.html``, which needs no other file, ``report.md`` with its
            ``pictures``, ``report.json`` with every figure and ``images.csv`` with the scores of every image.

    Returns:
        What the report says.

    Raises:
        ImportError: if matplotlib, Jinja2 or Pillow is not installed.
        OSError: if a file cannot be written; it names the file, and no half-written file is left.

    Example:
        >>> import tempfile, torch
        >>> from rankseg_plugins.comparison import compare
        >>> probs = torch.tensor([[[0.6, 0.55, 0.1]], [[0.4, 0.45, 0.9]]])
        >>> found = compare([("a", probs, torch.tensor([[0, 1, 1]])), ("b", probs, torch.tensor([[0, 0, 1]]))])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_report(found, folder)
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['images.csv', 'pictures', 'report.html', 'report.json', 'report.md']
    """
    page = read_page(comparison)
    write_files(Path(path), page, to_dict(comparison), comparison)
    return page


def write_files(folder: Path, page: Page, figures: Mapping[str, Any], images: Comparison) -> None:
    """Write a page in both forms, all figures, and a table of images."""
    drawn = _draw(page.comparison)
    files: dict[str, str | bytes] = {each["path"]: each["light"] for each in drawn}
    files["report.html"] = to_html(page, drawn)
    files["report.md"] = to_markdown(page, drawn)
    files["report.json"] = json.dumps(figures, indent=2) + "\n"
    files["images.csv"] = to_csv(images)
    for name, data in files.items():
        write_atomically(folder / name, data)


def _draw(comparison: Comparison) -> list[dict[str, Any]]:
    decoders, baseline = drawn_decoders(comparison), comparison.decoders[0]
    named = " and with ".join(decoders)
    drawn = []
    if len(comparison.distinct) > 1:
        text = " ".join(
            [
                f"The gain of every decoder over {baseline} in {unit(comparison.scoring)}, with its interval.",
                *describe_alike(comparison),
            ]
        )
        drawn.append(_chart(comparison, decoders[:1], "decoders", charts.forest, "All decoders", text))
    for name, chart, title, text in (
        ("histogram", charts.histogram, "Images", f"How much each image gains or loses with {named}."),
        ("scatter", charts.scatter, "Image by image", f"Each image with {baseline} and with {named}."),
        (
            "classes",
            charts.classes,
            "Classes",
            f"What each class gains or loses with {named}, with its interval. Beside each name: {baseline}, %.",
        ),
    ):
        drawn.append(_chart(comparison, decoders, name, chart, title, text))
    if comparison.calibration is not None:
        text = "Below the diagonal, the network is too sure of itself."
        drawn.append(_chart(comparison, decoders[:1], "reliability", charts.reliability, "Calibration", text))
    return drawn if comparison.expected_scores is None else [*drawn, _risk_coverage(comparison)]


def _chart(
    comparison: Comparison, decoders: Sequence[str], name: str, chart: charts.Chart, title: str, text: str
) -> dict[str, Any]:
    drawn = charts.in_both_themes(charts.draw(chart, comparison, *decoders))
    return {"path": f"pictures/{name}.png", "title": title, "text": text, **drawn}


def _risk_coverage(comparison: Comparison) -> dict[str, Any]:
    """Of the baseline and the best of the others."""
    baseline, *others = comparison.tables.decoders
    best = best_of(others) or others[0]
    text = f"Images accepted in the order of what {baseline.name} and {best.name} are expected to score."
    return _chart(comparison, [best.name], "trust", charts.risk_coverage, "Which images can be trusted", text)
