"""Charts of a comparison, in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.phrases import percent, points, unit
from rankseg_plugins.report.words import printable, shortened

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rankseg_plugins.comparison.comparison import Comparison

WIDTH = 4.4
#: Class bars beyond this number are left out: those that change least.
MOST_CLASSES = 30
#: Longer names of classes are shortened, those of decoders beyond three such lines.
MOST_LETTERS = 32


@dataclass(frozen=True)
class Theme:
    """Colours of a chart; ``gain`` and ``loss``, which colour-blind readers tell apart too, mean nothing else."""

    ink: str
    faint: str
    gain: str
    loss: str
    neutral: str
    page: str


#: Also where the page is not of this package's making.
LIGHT = Theme(ink="#1c2430", faint="#d7dce3", gain="#0072b2", loss="#d55e00", neutral="#7b8794", page="white")
DARK = Theme(ink="#e6eaf0", faint="#3a434f", gain="#56b4e9", loss="#ff8b4d", neutral="#8d99a8", page="none")
#: What is drawn on a page, in the one theme and in the other.
_INKS = [(getattr(LIGHT, name), getattr(DARK, name)) for name in ("ink", "faint", "gain", "loss", "neutral")]

Chart = Callable[["Axes", "Comparison", str], None]


def histogram(axes: Axes, comparison: Comparison, decoder: str) -> None:
    """Paired differences of the images: losses left of 0, gains right."""
    paired = comparison.paired(decoder)
    gains = 100 * paired.differences
    reach = max(float(np.abs(gains).max(initial=0.0)), 0.01)
    # An even number of bins, so that 0 is an edge and no bar mixes losses with gains.
    half = int(np.clip(np.sqrt(len(gains)), 4, 20))
    edges = np.linspace(-reach, reach, 2 * half + 1)
    changed = gains[gains != 0]
    for part, colour, name in ((changed < 0, LIGHT.loss, "worse"), (changed > 0, LIGHT.gain, "better")):
        axes.hist(changed[part], edges.tolist(), color=colour, label=f"{int(part.sum())} {name}")
    if paired.ties:
        axes.plot([], [], " ", label=f"{paired.ties} the same")
    axes.axvline(0, color=LIGHT.ink, linewidth=0.8)
    axes.axvline(100 * paired.mean, color=LIGHT.ink, linewidth=1.2, linestyle="--", label=f"mean {points(paired.mean)}")
    axes.set(xlabel=f"difference in {unit(comparison.scoring)}, points", ylabel="images")
    axes.yaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    axes.legend()


def scatter(axes: Axes, comparison: Comparison, decoder: str) -> None:
    """Score of each image with the baseline and with the decoder."""
    paired = comparison.paired(decoder)
    colours = np.where(paired.differences > 0, LIGHT.gain, np.where(paired.differences < 0, LIGHT.loss, LIGHT.neutral))
    both = 100 * np.concatenate([paired.baseline, paired.scores])
    low, high = (both.min(), both.max()) if len(both) else (0.0, 100.0)
    margin = 0.04 * max(high - low, 1.0)
    ends = (max(low - margin, -1), min(high + margin, 101))
    axes.plot(ends, ends, color=LIGHT.neutral, linewidth=0.8, zorder=1)
    size = float(np.clip(2000 / max(len(colours), 1), 4, 26))
    axes.scatter(100 * paired.baseline, 100 * paired.scores, size, c=list(colours), alpha=0.75, linewidths=0, zorder=2)
    axes.set(xlabel=f"{_short(comparison.decoders[0])}, {unit(comparison.scoring)} %", ylabel=f"{_short(decoder)}, %")
    axes.set(xlim=ends, ylim=ends, aspect="equal")


def classes(axes: Axes, comparison: Comparison, decoder: str) -> None:
    """Difference of the class-level score of every class, with its interval; beside its name the baseline's score."""
    names, _, baseline, gains = zip(*comparison.tables.classes, strict=True)
    table = 100 * np.stack(gains)[:, comparison.candidates.index(decoder)]
    known = np.flatnonzero(~np.isnan(table[:, 0]))
    shown = known[np.argsort(-np.abs(table[known, 0]), kind="stable")][:MOST_CLASSES]
    shown = shown[np.argsort(-table[shown, 0], kind="stable")]
    value = table[shown, 0]
    rows = np.arange(len(shown))
    # Without an interval, as of too few cases, there is no line.
    errors = np.abs(np.where(np.isnan(table[shown, 1:]), value[:, None], table[shown, 1:]) - value[:, None]).T
    axes.barh(rows, value, 0.62, color=np.where(value >= 0, LIGHT.gain, LIGHT.loss).tolist(), alpha=0.85)
    axes.errorbar(value, rows, xerr=errors, fmt="none", ecolor=LIGHT.ink, elinewidth=1, capsize=2.5)
    axes.axvline(0, color=LIGHT.ink, linewidth=0.8)
    axes.set_yticks(rows, [f"{_word(names[i])}  {percent(baseline[i])}" for i in shown])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    left_out = (
        f"\n({len(known) - len(shown)} classes that change\nless are left out)" if len(known) > len(shown) else ""
    )
    axes.set(xlabel=f"difference, points{left_out}")


def _legend_word(name: str) -> str:
    """A name as the legend shows it, which leaves out what begins with a low line."""
    word = _word(name)
    return f" {word}" if word.startswith("_") else word


def reliability(axes: Axes, comparison: Comparison, decoder: str) -> None:
    """How often a probability comes true: the top label, and thin lines for the classes."""
    rows = comparison.tables.calibration
    axes.plot([0, 100], [0, 100], color=LIGHT.neutral, linewidth=0.8, linestyle="--")
    if rows:
        for row in rows:
            probability, frequency, _ = row.curve
            axes.plot(
                100 * probability,
                100 * frequency,
                color=LIGHT.ink if row.main else LIGHT.neutral,
                linewidth=2 if row.main else 0.8,
                alpha=1 if row.main else 0.55,
                marker="o" if row.main else None,
                markersize=4,
                label=_legend_word(row.name) if row.main else None,
                zorder=3 if row.main else 2,
            )
        if len(comparison.classes) > 1:
            axes.plot([], [], color=LIGHT.neutral, linewidth=0.8, label="each class")
        axes.legend()
    axes.set(xlabel="probability, %", ylabel="how often it is right, %", xlim=(-2, 102), ylim=(-2, 102))


def forest(axes: Axes, comparison: Comparison, decoder: str) -> None:
    """Gain of every decoder that decides in its own way over the baseline, with its interval."""
    for row, name in enumerate(comparison.distinct):
        paired = comparison.paired(name)
        low, high = (100 * end for end in paired.interval)
        colour = LIGHT.gain if low > 0 else LIGHT.loss if high < 0 else LIGHT.neutral
        axes.plot([low, high], [row, row], color=colour, linewidth=3, alpha=0.6, solid_capstyle="round")
        axes.plot(100 * paired.mean, row, "o", color=colour, markersize=7)
    axes.axvline(0, color=LIGHT.ink, linewidth=0.8)
    axes.set_yticks(range(len(comparison.distinct)), [_short(name) for name in comparison.distinct])
    axes.set_ylim(len(comparison.distinct) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="difference, points")


def risk_coverage(axes: Axes, comparison: Comparison, decoder: str) -> None:
    """Mean risk of the images that are accepted, of the baseline and of the decoder; dashed in the ideal order."""
    for name, colour in ((comparison.decoders[0], LIGHT.neutral), (decoder, LIGHT.ink)):
        found = comparison.risk_coverage(name)
        label = f"{_legend_word(name)}: {percent(found.area)}"
        axes.plot(100 * found.coverage, 100 * found.risk, color=colour, linewidth=2, label=label)
        axes.plot(100 * found.coverage, 100 * found.best, color=colour, linewidth=1, linestyle="--")
    axes.plot([], [], color=LIGHT.ink, linewidth=1, linestyle="--", label="ideal order")
    axes.set(xlabel="coverage: images that are accepted, %", ylabel=f"1 - {unit(comparison.scoring)}, %", xlim=(0, 102))
    axes.set_ylim(bottom=0)
    axes.legend(title="AURC, %", title_fontsize=9)


def draw(chart: Chart, comparison: Comparison, *decoders: str) -> Figure:
    """One chart as a figure of its own, of several decoders one below the other on like axes; needs matplotlib.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    matplotlib = require("matplotlib", extra="report")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style()):
        heights = [_height(chart, comparison, decoder) for decoder in decoders]
        figure = Figure(figsize=(WIDTH, sum(heights)), dpi=160, layout="constrained")
        if len(decoders) > 1:
            figure.get_layout_engine().set(h_pad=0.12)  # type: ignore[union-attr, call-arg]
        found = figure.subplots(len(decoders), height_ratios=heights, squeeze=False)[:, 0].tolist()
        for axes, decoder in zip(found, decoders, strict=True):
            chart(axes, comparison, decoder)
            if len(decoders) > 1:
                axes.set_title(_short(decoder), fontsize=10)
        _widen(found, [name for name in "xy" if name == "x" or chart is not classes])
    return figure


def _widen(found: Sequence[Axes], names: Sequence[str]) -> None:
    """Let all axes reach as far as any."""
    for name in names:
        ends = np.array([getattr(axes, f"get_{name}lim")() for axes in found])
        for axes in found:
            getattr(axes, f"set_{name}lim")(ends.min(), ends.max())


def overview(comparison: Comparison, decoder: str) -> Figure:
    """Histogram, scatter, classes and reliability in one figure; needs matplotlib."""
    matplotlib = require("matplotlib", extra="report")
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_style()):
        height = 3.8 + max(3.8, _height(classes, comparison, decoder))
        figure = Figure(figsize=(2 * WIDTH, height), dpi=100, layout="constrained")
        axes = figure.subplots(2, 2, height_ratios=[3.8, height - 3.8])
        for each, chart in zip(axes.flat, (histogram, scatter, classes, reliability), strict=True):
            chart(each, comparison, decoder)
        figure.suptitle(f"{_short(decoder)} against {_short(comparison.decoders[0])}")
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def in_both_themes(figure: Figure) -> dict[str, bytes]:
    """A figure of ``draw`` as PNGs ``light`` and ``dark``; afterwards it is dark."""
    light = to_png(figure)
    figure.set_layout_engine("none")  # everything is in its place, which took a while to find
    for artist in figure.findobj():
        _darken(artist)
    figure.set_facecolor(DARK.page)
    return {"light": light, "dark": to_png(figure)}


def _darken(artist: Artist) -> None:
    """Give it the dark colours in place of the light ones."""
    from matplotlib.colors import to_rgb, to_rgba_array

    for part in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
        if not hasattr(artist, f"get_{part}"):
            continue
        before = to_rgba_array(getattr(artist, f"get_{part}")())
        after = before.copy()
        for old, new in _INKS:
            after[(before[:, :3] == to_rgb(old)).all(1), :3] = to_rgb(new)
        if (before != after).any():
            getattr(artist, f"set_{part}")(after if len(after) > 1 else tuple(after[0]))


def _height(chart: Chart, comparison: Comparison, decoder: str) -> float:
    if chart is classes:
        table = comparison.differences.classes[comparison.candidates.index(decoder)]
        return 1.1 + 0.27 * min(int((~np.isnan(table[:, 0])).sum()), MOST_CLASSES)
    if chart is forest:
        return 0.8 + 0.42 * len(comparison.distinct)
    return 4.0 if chart is scatter else 3.2


def _short(decoder: str) -> str:
    """A decoder's name on several lines, as axes are short."""
    name = shortened(printable(decoder), 3 * MOST_LETTERS)
    if len(name) <= 28:
        return name
    lines = [""]
    for part in (shortened(part, MOST_LETTERS) for part in re.split(r"(?=\()|(?<=,)", name)):
        begins = part.startswith("(") or len(lines[-1]) + len(part) > MOST_LETTERS
        lines = [*lines, part] if begins else [*lines[:-1], lines[-1] + part]
    return "\n".join(filter(None, lines))


def _word(name: str) -> str:
    return shortened(printable(name), MOST_LETTERS)


def _style() -> dict[str, Any]:
    return {
        "figure.facecolor": LIGHT.page,
        "savefig.facecolor": LIGHT.page,
        "axes.facecolor": "none",
        "axes.edgecolor": LIGHT.faint,
        "axes.labelcolor": LIGHT.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LIGHT.faint,
        "grid.linewidth": 0.6,
        "text.color": LIGHT.ink,
        "xtick.color": LIGHT.ink,
        "ytick.color": LIGHT.ink,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "font.size": 10,
        "legend.frameon": False,
        "legend.fontsize": 9,
        # Names are drawn as they are: a "$" in them is no formula.
        "text.parse_math": False,
        "text.usetex": False,
    }
