"""The picture: image, truth, both decisions and where they differ, for the images that change most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from examples.demo.decisions import ARGMAX, Decision, Outcome
from examples.demo.folder import IGNORE_INDEX, Folder, Pair
from rankseg_plugins.comparison.pictures import colours as pictures

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
    colours = pictures.distinct_colours(len(folder.classes))
    height, width = folder.val[shown[0]].size
    figure = Figure(figsize=(15, len(shown) * 3 * min(height / width, 1.2) + 1.3), dpi=110, layout="constrained")
    axes = figure.subplots(len(shown), 5, squeeze=False)
    for row, index in zip(axes, shown, strict=True):
        pair = folder.val[index]
        image, labels = pair.read_image(), pair.read_mask().astype(int)
        maps = (np.where(labels == IGNORE_INDEX, -1, labels), argmax[index], ours[index])
        panels = (image, *(pictures.paint(each, colours) for each in maps), pictures.difference(image, *maps))
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


def _add_legends(figure: Figure, classes: Sequence[str], colours: np.ndarray) -> None:
    entries = [*zip(classes, colours, strict=True), ("ignored", pictures.VOID_COLOUR)]
    groups = (("labels", "left", 6, entries), ("where they differ", "right", 3, pictures.LEGEND.items()))
    for title, side, columns, group in groups:
        handles = [Patch(facecolor=np.divide(colour, 255), edgecolor="0.5", label=name) for name, colour in group]
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
