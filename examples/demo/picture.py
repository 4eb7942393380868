"""The picture: image, truth, both decisions and where they differ, for the images that change most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from examples.demo.decisions import ARGMAX, Decision, Outcome
from examples.demo.folder import IGNORE_INDEX, Folder, Pair

#: Dark background first, then hues that also colour-blind readers tell apart.
FEW_CLASSES = ("#20242c", "#3b7dd8", "#f5a623", "#ff77b7")
CHANGES = {
    "only RankSEG is right": "#009e73",
    "only argmax is right": "#d55e00",
    "both are wrong": "#333333",
}
IGNORED = "#f4f4f4"
ROWS = 4


def draw(
    path: Path, folder: Folder, decision: Decision, outcomes: dict[Decision, Outcome], gains: Sequence[float]
) -> list[Pair]:
    """Draw the images whose labels change most, and return them.

    Args:
        path: PNG file to write.
        folder: the data.
        decision: what is compared with argmax.
        outcomes: of both, from one toolkit.
        gains: difference in Dice of each validation image.
    """
    ours, argmax = outcomes[decision].labels, outcomes[ARGMAX].labels
    changed = [np.count_nonzero(ours[i] != argmax[i]) / argmax[i].size for i in range(len(folder.val))]
    shown = sorted(range(len(folder.val)), key=lambda i: (-changed[i], i))[:ROWS]
    colours = class_colours(len(folder.classes))
    height, width = folder.val[shown[0]].size
    figure = Figure(figsize=(15, len(shown) * 3 * min(height / width, 1.2) + 1.3), dpi=110, layout="constrained")
    axes = figure.subplots(len(shown), 5, squeeze=False)
    for row, index in zip(axes, shown, strict=True):
        pair = folder.val[index]
        image, truth = pair.read_image(), pair.read_mask()
        panels = (
            image,
            paint(truth, colours),
            paint(argmax[index], colours),
            paint(ours[index], colours),
            difference(image, truth, argmax[index], ours[index]),
        )
        for axis, pixels in zip(row, panels, strict=True):
            axis.imshow(pixels, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(pair.image.stem, fontsize=9, color="0.4")
        row[4].set_xlabel(f"{100 * changed[index]:.1f} % of pixels, Dice {100 * gains[index]:+.1f}", fontsize=11)
    for axis, title in zip(axes[0], ("image", "truth", "argmax", decision.title, "where they differ"), strict=True):
        axis.set_title(title, fontsize=14)
    figure.suptitle("The validation images whose labels change most", fontsize=11, color="0.35")
    _add_legends(figure, folder.classes, colours)
    figure.savefig(path)
    return [folder.val[index] for index in shown]


def class_colours(count: int) -> np.ndarray:
    """RGB colours in [0, 1], (count, 3)."""
    if count <= len(FEW_CLASSES):
        return np.array([to_rgb(colour) for colour in FEW_CLASSES[:count]])
    if count <= 20:
        # tab20 holds pairs, strong and pale; the strong ones come first.
        palette, steps = matplotlib.colormaps["tab20"], [*range(0, 20, 2), *range(1, 20, 2)][:count]
    else:
        palette, steps = matplotlib.colormaps["gist_ncar"], np.linspace(0.03, 0.97, count)
    return np.array([palette(step)[:3] for step in steps])


def paint(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Colour a label map: (H, W) to (H, W, 3)."""
    painted = np.full((*labels.shape, 3), to_rgb(IGNORED))
    known = labels < len(colours)
    painted[known] = colours[labels[known]]
    return painted


def difference(image: np.ndarray, truth: np.ndarray, argmax: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """The image in pale grey, and in colour the pixels where the decisions differ and the truth is known."""
    grey = image.mean(2, keepdims=True) / 255
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
    painted = np.repeat(0.84 + 0.14 * grey, 3, axis=2)
    differ = (argmax != ours) & (truth != IGNORE_INDEX)
    cases = (differ & (ours == truth), differ & (argmax == truth), differ & (ours != truth) & (argmax != truth))
    for case, colour in zip(cases, CHANGES.values(), strict=True):
        painted[case] = to_rgb(colour)
    return painted


def _add_legends(figure: Figure, classes: Sequence[str], colours: np.ndarray) -> None:
    entries = [*zip(classes, map(tuple, colours), strict=True), ("ignored", IGNORED)]
    groups = (("labels", "left", 6, entries), ("where they differ", "right", 3, list(CHANGES.items())))
    for title, side, columns, group in groups:
        handles = [Patch(facecolor=colour, edgecolor="0.5", label=name) for name, colour in group]
        legend = figure.legend(
            handles=handles,
            title=title,
            loc=f"outside lower {side}",
            ncols=min(len(handles), columns),
            fontsize=11,
            title_fontsize=11,
            alignment="left",
            frameon=False,
        )
        legend.get_title().set_color("0.35")
