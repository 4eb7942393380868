"""Reports of a comparison: one HTML page, Markdown, JSON and CSV. Needs the extra ``report``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rankseg_plugins.evaluation.comparison import Comparison
from rankseg_plugins.evaluation.report import charts
from rankseg_plugins.evaluation.report.html import to_html
from rankseg_plugins.evaluation.report.introduction import Introduction
from rankseg_plugins.evaluation.report.markdown import to_markdown
from rankseg_plugins.evaluation.report.words import unit
from rankseg_plugins.evaluation.tables import to_csv, to_dict
from rankseg_plugins.evaluation.writing import write_atomically

#: What :func:`write_report` writes.
FILES = ("report.html", "report.md", "report.json", "images.csv")


def write_report(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Write a report.

    Args:
        comparison: the figures; its second decoder is the one that is drawn.
        path: folder, made if absent. It gets ``report.html``, which needs no other file, ``report.md`` with its
            ``pictures``, ``report.json`` with every figure and ``images.csv`` with the scores of every image.

    Raises:
        ImportError: if matplotlib, Jinja2 or Pillow is not installed.
        OSError: if a file cannot be written; it names the file, and no half-written file is left.
    """
    folder = Path(path)
    write_pages(comparison, folder)
    write_atomically(folder / "report.json", json.dumps(to_dict(comparison), indent=2) + "\n")
    write_atomically(folder / "images.csv", to_csv(comparison))


def write_pages(comparison: Comparison, folder: Path, introduction: Introduction | None = None) -> None:
    """Write ``report.html``, ``report.md`` and ``pictures``; see :func:`write_report`.

    Args:
        comparison: the figures.
        folder: made if absent.
        introduction: stands in place of the verdicts on each decoder.
    """
    drawn = _draw(comparison)
    pictures = {f"pictures/{each['name']}.png": (each["title"], each["text"]) for each in drawn}
    for each in drawn:
        write_atomically(folder / f"pictures/{each['name']}.png", each["paper"])
    write_atomically(folder / "report.html", to_html(comparison, drawn, introduction))
    write_atomically(folder / "report.md", to_markdown(comparison, pictures, introduction))


def _draw(comparison: Comparison) -> list[dict[str, Any]]:
    decoder, baseline = comparison.candidates[0], comparison.decoders[0]
    chosen = [
        ("histogram", charts.histogram, "Images", f"How much each image gains or loses with {decoder}."),
        ("scatter", charts.scatter, "Image by image", f"Each image with {baseline} and with {decoder}."),
        (
            "classes",
            charts.classes,
            "Classes",
            f"What each class gains or loses with {decoder}, with its interval. Beside each name: {baseline}, %.",
        ),
        ("reliability", charts.reliability, "Calibration", "Below the diagonal, the network is too sure of itself."),
    ]
    if len(comparison.candidates) > 1:
        title = f"The gain of every decoder over {baseline} in {unit(comparison)}, with its interval."
        chosen.insert(0, ("decoders", charts.forest, "All decoders", title))
    themes = {"light": charts.LIGHT, "dark": charts.DARK, "paper": charts.PAPER}
    return [
        {
            "name": name,
            "title": title,
            "text": text,
            **{key: charts.to_png(charts.draw(chart, comparison, decoder, theme)) for key, theme in themes.items()},
        }
        for name, chart, title, text in chosen
        if chart is not charts.reliability or comparison.calibration is not None
    ]
