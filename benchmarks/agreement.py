"""Volumes of this package beside those of the reference package, and what a difference costs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rankseg.functional import rankseg as reference
from torch import Tensor

from benchmarks.workloads import WORKLOADS
from rankseg_plugins import RankSEG, rankseg

HEADER = [
    "probabilities", "metric", "solver", "largest volume", "largest difference, float64", "largest difference, float32",
    "loss of the reference, float32", "our loss, float32",
]  # fmt: skip

EXPLANATION = """One mask per class, nothing pruned; differences in pixels. Loss: the larger exact
expected score of the two masks less that of one of them, at worst.

In float64 the volumes are the same. In float32 the reference scores every volume in float32: around the optimum
neighbouring volumes agree to the last digit, and rounding picks one of them; above 2^24 pixels float32 cannot count
them any more. The masks are wrong by up to thousands of pixels, the score by its last digit. Here sums and scores are
float64 for every input, so that the volume is that of float64. (RMA and BA are approximations: now and then rounding
hits the better mask by chance.)
"""

#: The reference's BA holds a table of all volumes, and its TRNA takes time that grows with their square.
_MOST = {"RMA": 1 << 25, "BA": 1 << 20, "TRNA": 1 << 12}


def inputs() -> Iterator[tuple[str, Tensor]]:
    """Independent pixels of three sizes, and the real probabilities where they are at hand."""
    for exponent in (3, 6, 7):
        generator = torch.Generator().manual_seed(exponent)
        yield f"random, 10^{exponent} pixels", torch.rand(1, 1, 10**exponent, generator=generator) ** 4
    for workload in WORKLOADS:
        if workload.available and "real" in workload.name:
            yield workload.name, workload.make()


def rows() -> Iterator[list[str]]:
    """One row for each input, metric and solver."""
    for name, probs in inputs():
        for metric, solver in (("dice", "RMA"), ("iou", "RMA"), ("dice", "BA"), ("dice", "TRNA")):
            if probs[0, 0].numel() <= _MOST[solver]:
                yield [name, metric, solver, *compare(probs, metric, solver)]


def compare(probs: Tensor, metric: str, solver: str) -> Iterator[str]:
    options = {"metric": metric, "solver": solver, "output_mode": "multilabel", "pruning_prob": 0.0}
    volumes = {}
    for dtype in (torch.float64, torch.float32):
        masks = [decide(probs.to(dtype), **options) for decide in (rankseg, reference)]
        volumes[dtype] = [each.flatten(2).sum(-1) for each in masks]
    yield f"{volumes[torch.float64][0].max():,}"
    for ours, theirs in volumes.values():
        yield f"{(ours - theirs).abs().max():,}"
    judge = RankSEG(metric, output_mode="multilabel", pruning_prob=0.0)
    ours, theirs = (judge.expected_score(probs.double(), each) for each in masks)
    best = torch.maximum(ours, theirs)
    for score in (theirs, ours):
        loss = (best - score).max().item()
        yield f"{loss:.1e}" if loss > 1e-13 else "0"
