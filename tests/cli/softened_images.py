"""Images whose probabilities were softened, and ``rankseg-plugins tune`` on files that hold them."""

import torch
from image_folders import environment
from typer.testing import CliRunner

from rankseg_plugins.cli import app
from rankseg_plugins.comparison import Sample

RACE = {"temperatures": [0.5, 1.0], "pruning_probs": [0.5, 0.1]}
OPTIONS = (
    "--temperatures",
    "0.5,1",
    "--pruning-probs",
    "0.5, 0.1",
)
#: Those of one aggregation level; the other takes no pruning_probs.
OPTIONS_OF = {"samplewise": OPTIONS, "global": (*OPTIONS[:2], *OPTIONS[4:])}
IMAGES = 24


def make_images():
    """A rare foreground whose probabilities were softened by the temperature 2: tuning can gain."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(IMAGES, 1, 5, 5, generator=generator) * 2 - 1.5
    logits = torch.nn.functional.interpolate(coarse, 24, mode="bilinear")[:, 0]
    labels = (torch.rand(logits.shape, generator=generator) < logits.sigmoid()).long()
    foreground = (logits / 2).sigmoid()
    return torch.stack([1 - foreground, foreground], 1), labels


def samples():
    return [Sample(f"image{i:02d}", *both) for i, both in enumerate(zip(*make_images(), strict=True))]


def run(folder, *extra, command="tune", out="tuned"):
    paths = ["--probs", folder / "probs", "--labels", folder / "labels", "--out", folder / out]
    return CliRunner().invoke(app, [command, *map(str, paths), *map(str, extra)], env=environment())
