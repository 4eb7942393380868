"""RMA against BA against the exact optimum: what is lost in expected Dice, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from rankseg.functional import rankseg as reference
from torch import Tensor

from benchmarks.measure import interleave, ratio
from benchmarks.speed import Decide
from benchmarks.workloads import WORKLOADS, generate
from rankseg_plugins import RankSEG

SOLVERS = ("RMA", "BA", "TRNA", "exact")
HEADER = [
    "probabilities", "expected Dice of the optimum", *(f"{name}: mean loss" for name in SOLVERS[:-1]),
    *(f"{name}: largest loss" for name in SOLVERS[:-1]), *(f"{name}: time / RMA" for name in SOLVERS[1:]),
    *(f"`rankseg` {name}: time / ours" for name in SOLVERS[1:-1]),
]  # fmt: skip

#: Beyond this many pixels TRNA, which needs every pixel of a mask by itself, is left out.
_TRNA_PIXELS = 1 << 22

#: And beyond these the reference, whose BA holds a table of all volumes and whose TRNA takes one step for each.
_REFERENCE_PIXELS = {"BA": 1 << 19, "TRNA": 1 << 12}


def inputs() -> Iterator[tuple[str, Tensor]]:
    """Small objects of every size, and all workloads of which most pixels are decided."""
    for side in (4, 8, 16, 32, 64):
        yield f"small objects, d = {side * side}", generate((64, 1, side, side), active=1, seed=side)
    for workload in WORKLOADS:
        if workload.available and not workload.name.endswith(("soft", "haze")):
            yield workload.name, workload.make()


def rows() -> Iterator[list[str]]:
    """One row an input; losses against the exact optimum, over the classes that are not pruned."""
    for name, probs in inputs():
        pixels = probs[0, 0].numel()
        solvers = [each for each in SOLVERS if each != "TRNA" or pixels <= _TRNA_PIXELS]
        decoders: dict[str, Decide] = {each: RankSEG(output_mode="multilabel", solver=each) for each in solvers}
        judge = RankSEG(output_mode="multilabel")
        active = probs.flatten(2).amax(-1) > judge.pruning_prob
        scores = {each: judge.expected_score(probs, decide(probs))[active] for each, decide in decoders.items()}
        losses = {each: scores["exact"] - score for each, score in scores.items()}
        for solver, most in _REFERENCE_PIXELS.items():
            if pixels <= most:
                decoders[f"reference {solver}"] = partial(reference, output_mode="multilabel", solver=solver)
        times = interleave({each: lambda d=d, p=probs: d(p) for each, d in decoders.items()})
        yield [
            name,
            f"{scores['exact'].mean():.4f}",
            *(_number(losses, each, torch.mean) for each in SOLVERS[:-1]),
            *(_number(losses, each, torch.max) for each in SOLVERS[:-1]),
            *(_ratio(times, each, "RMA") for each in SOLVERS[1:]),
            *(_ratio(times, f"reference {each}", each) for each in SOLVERS[1:-1]),
        ]


def _ratio(times: dict[str, list[float]], name: str, to: str) -> str:
    return f"{ratio(times, name, to):.1f}" if name in times else "-"


def _number(losses: dict[str, Tensor], solver: str, reduce) -> str:
    if solver not in losses:
        return "-"
    # A loss below the precision of the scores is none; a gain on the optimum would be a mistake.
    if losses[solver].min() < -1e-12:
        raise AssertionError(f"{solver} beats the exact solver by {-losses[solver].min():.1e}")
    return f"{float(reduce(losses[solver])):.1e}" if losses[solver].max() > 1e-13 else "0"
