"""Draws the picture of the README: a thin vessel that a network half sees, decided by argmax and by RankSEG.

``python -m examples.idea OUT.png``
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from rankseg_plugins import RankSEG

HEIGHT, WIDTH = 90, 150


def vessel() -> Tensor:
    """Probabilities (1, 1, H, W): sure in the trunk, below 1/2 along the branch, and a haze of nothing."""
    y, x = torch.meshgrid(
        torch.arange(HEIGHT, dtype=torch.float64), torch.arange(WIDTH, dtype=torch.float64), indexing="ij"
    )
    trunk = 4.0 - 1.5 * (y - 62 - 5 * (x / 22).sin()).abs()
    branch = -0.1 - 0.6 * (y - 20 - 0.28 * x - 4 * (x / 12).cos()).abs()
    grain = torch.randn(HEIGHT, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (torch.maximum(trunk, branch).clamp(min=-3.5) + 0.35 * grain).sigmoid()[None, None]


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(prog="python -m examples.idea", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.png", help="file to write")
    options = parser.parse_args()
    from matplotlib.figure import Figure

    probs, decoder = vessel(), RankSEG("dice", output_mode="multilabel")
    decided = {"argmax: above 1/2": probs > 0.5, "RankSEG": decoder(probs)}
    figure = Figure(figsize=(10, 2.45), layout="constrained")
    first, *others = figure.subplots(1, 3)
    shown = first.imshow(probs[0, 0], cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(shown, ax=first, fraction=0.03)
    first.set_title("probability of a vessel")
    for axes, (name, mask) in zip(others, decided.items(), strict=True):
        axes.imshow(mask[0, 0], cmap="gray")
        axes.set_title(f"{name}\nexpected Dice {100 * decoder.expected_score(probs, mask).item():.1f} %")
    for axes in (first, *others):
        axes.set_axis_off()
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    main()
