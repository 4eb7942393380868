"""Probabilities to measure on: real ones where they are at hand, and generated ones that resemble real models'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Workload:
    """A named tensor of probabilities.

    Args:
        name: row of the table.
        shape: (B, C, *spatial).
        active: number of classes that survive pruning in each image, for ``generate``.
        field: amplitude and bias of ``normal_field``, which is then used instead.
        path: file of real probabilities; None for generated ones.
        output_mode: what the decoders are asked for.
    """

    name: str
    shape: tuple[int, ...]
    active: int | None = None
    field: tuple[float, float] | None = None
    path: Path | None = None
    output_mode: str = "multiclass"

    @property
    def description(self) -> str:
        """Shape, as it stands in the tables."""
        return "x".join(map(str, self.shape))

    @property
    def available(self) -> bool:
        """Whether the probabilities can be had on this machine."""
        return self.path is None or self.path.exists()

    def make(self) -> Tensor:
        """The probabilities, float32, the same at every call."""
        if self.path is not None:
            with np.load(self.path) as file:
                return torch.from_numpy(file["probs"][: self.shape[0]]).float()
        if self.field is not None:
            return self.logits().sigmoid() if self.shape[1] == 1 else self.logits().softmax(1)
        return generate(self.shape, self.active or self.shape[1], seed=len(self.name))

    def logits(self) -> Tensor:
        """What a network would have given, float32: softmax, or the sigmoid of one channel, makes it probabilities."""
        if self.field is not None:
            return normal_field(self.shape, *self.field)
        probs = self.make()
        return probs.logit(eps=1e-6) if self.shape[1] == 1 else probs.clamp_(min=1e-12).log_()


def normal_field(shape: tuple[int, ...], amplitude: float, bias: float) -> Tensor:
    """Logits of images: a smooth field of normal numbers, times ``amplitude``, and a bias a class.

    Args:
        shape: (B, C, H, W).
        amplitude: the larger, the surer; at 0.5 no class is above 1/2 anywhere.
        bias: standard deviation; the larger, the more classes hardly occur.
    """
    generator = torch.Generator().manual_seed(1)
    batch, classes, height, width = shape
    coarse = torch.randn(batch, classes, height // 16 + 2, width // 16 + 2, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine.mul_(amplitude).add_(torch.randn(batch, classes, 1, 1, generator=generator), alpha=bias)


def generate(shape: tuple[int, ...], active: int, seed: int) -> Tensor:
    """Softmax of smooth random fields: regions with soft borders, and classes that hardly occur.

    The first ``active`` classes (in random order) share the image among them; the others stay a haze of low
    probability, as the absent classes of a real network do. One channel gets the sigmoid of a field.
    """
    generator = torch.Generator().manual_seed(seed)
    batch, classes, *spatial = shape
    # Grid cells as large as objects: about eight across the image.
    coarse = [max(2, min(size, 8)) for size in spatial]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(spatial)]
    probs = torch.empty(shape)
    for image in range(batch):
        field = torch.randn(1, active, *coarse, generator=generator)
        logits = 12 * torch.nn.functional.interpolate(field, size=spatial, mode=mode, align_corners=True)[0]
        if classes == 1:
            probs[image] = logits.sigmoid()
            continue
        order = torch.randperm(classes, generator=generator)
        haze = torch.rand(classes - active, *coarse, generator=generator)
        if classes > active:
            haze = torch.nn.functional.interpolate(haze[None], size=spatial, mode=mode)[0]
            probs[image, order[active:]] = 0.05 * haze / (classes - active)
            remaining = 1 - probs[image, order[active:]].sum(0)
        else:
            remaining = torch.ones(spatial)
        probs[image, order[:active]] = logits.softmax(0) * remaining
    return probs


def pruned_share(probs: Tensor, pruning_prob: float = 0.5) -> float:
    """Share of the classes, over all images, whose largest probability is not above ``pruning_prob``."""
    return (probs.flatten(2).amax(-1) <= pruning_prob).double().mean().item()


def undecided_share(probs: Tensor, pruning_prob: float = 0.5) -> float:
    """Share of the pixels of the other classes between the first lower bound of the Dice threshold and 1/2."""
    p = probs.flatten(2).double()
    kept = p.amax(-1) > pruning_prob
    p = p[kept | ~kept.any(-1, keepdim=True)]  # where no class is left, all compete
    above = p > 0.5
    floor = (p * above).sum(-1) / (above.sum(-1) + p.sum(-1) + 1)
    return ((p > floor.unsqueeze(-1)) & ~above).double().mean().item()


def haze(shape: tuple[int, ...], spread: float = 0.1) -> Tensor:
    """Softmax of small random numbers: every class is about as probable as any other, in every pixel."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).mul(spread).softmax(1)


@dataclass(frozen=True)
class Undecided:
    """Probabilities and options that leave many pixels of many classes undecided.

    Args:
        name: row of the table.
        shape: (B, C, *spatial).
        options: of the decoder.
        spread: of ``haze``.
    """

    name: str
    shape: tuple[int, ...]
    options: dict[str, Any]
    spread: float = 0.1

    def make(self) -> Tensor:
        """The probabilities, float32, the same at every call."""
        return haze(self.shape, self.spread)


_SMOOTH, _NOTHING_PRUNED = {"smooth": 1.0, "pruning_prob": 0.0}, {"pruning_prob": 0.0}
UNDECIDED = [
    Undecided("small images, exact", (1000, 3, 8, 8), {"solver": "exact", **_NOTHING_PRUNED}, spread=4.0),
    Undecided("single pixels", (20000, 2, 1, 1), _SMOOTH, spread=1.0),
    Undecided("haze", (4, 150, 128, 128), _SMOOTH),
    Undecided("equal probabilities", (4, 150, 128, 128), _SMOOTH, spread=0.0),
    Undecided("small haze, exact", (4, 150, 64, 64), {"solver": "exact", **_NOTHING_PRUNED}),
    Undecided("small haze, TRNA", (4, 150, 64, 64), {"solver": "TRNA", "output_mode": "multilabel", **_NOTHING_PRUNED}),
]

VOC = Workload("VOC", (1, 21, 512, 512), field=(4, 4))
WORKLOADS = [
    VOC,
    Workload("VOC, soft", (1, 21, 512, 512), field=(2, 0)),
    Workload("VOC, haze", (1, 21, 512, 512), field=(0.5, 0)),
    Workload("Cityscapes", (1, 19, 1024, 2048), field=(4, 1.5)),
    Workload("Cityscapes, soft", (1, 19, 1024, 2048), field=(2, 0)),
    Workload("ADE20K", (1, 150, 512, 683), field=(5, 4)),
    Workload("batch", (8, 21, 256, 256), active=3),
    Workload("CT volume", (1, 2, 160, 512, 512), active=2),
    Workload("horses (real)", (1, 21, 257, 257), path=REAL / "voc21_horses" / "probs.npz"),
    Workload("CamVid (real)", (1, 11, 180, 240), path=REAL / "camvid" / "probs_val.npz"),
    Workload("binary", (16, 1, 512, 512), field=(4, 1.5), output_mode="multilabel"),
    Workload("small 4x21", (4, 21, 64, 64), active=3),
    Workload("small 1x2", (1, 2, 64, 64), active=2),
    Workload("small 64x1", (64, 1, 32, 32), active=1, output_mode="multilabel"),
]
