"""Extra memory of a decision, whoever allocates it.

``python -m benchmarks.memory NAME THREADS`` prints what no allocator of PyTorch's counts, for ``rows``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import extra_memory, hidden_memory, mark
from benchmarks.speed import Decide, ours, theirs
from benchmarks.workloads import ROOT, WORKLOADS, Workload

#: Of the input, at most.
FROM_PROBS, FROM_LOGITS = 0.15, 0.25
EXPLANATION = f"""Largest memory allocated at any time over the input's size, input and result not counted; Dice at
the defaults unless said otherwise. Bold: above {FROM_PROBS} from probabilities, {FROM_LOGITS} from logits. PyTorch's
allocator is asked. "Hidden" is what the process grew beyond it, as NumPy's and numba's memory would. Softmax alone
takes 1.00.
"""
HEADER = [
    "workload", "ours", "hidden", "IoU", "`smooth` 1", "`pruning_prob` 0", "multilabel", "float16 input",
    "bfloat16 input", "a crop", "exact", "logits", "hidden, logits", "float16 logits", "bfloat16 logits", "`rankseg`",
    "`rankseg` auto",
]  # fmt: skip


def rows() -> Iterator[list[str]]:
    """Extra peak memory as a share of the input, the result not counted."""
    for workload in filter(lambda each: each.available and "small" not in each.name, WORKLOADS):
        hidden = _hidden_elsewhere(workload.name)
        yield [
            workload.name,
            *_from_probabilities(workload, hidden[0]),
            *_from_logits(workload, hidden[1]),
            *_of_the_reference(workload),
        ]


def _from_probabilities(workload: Workload, hidden: float) -> Iterator[str]:
    probs = workload.make()
    width = probs.shape[-1]
    decide = ours(workload)
    known = extra_memory(decide, probs)
    # Bold is the sum of both.
    yield mark(known, FROM_PROBS - hidden)
    yield f"{hidden:.2f}"
    for other, values in (
        (ours(workload, metric="iou"), probs),
        (ours(workload, smooth=1.0), probs),
        (ours(workload, pruning_prob=0.0), probs),
        (ours(workload, output_mode="multilabel"), probs),
        (decide, probs.half()),
        (decide, probs.bfloat16()),
        (decide, torch.cat([probs, probs[..., :1]], dim=-1)[..., :width]),
    ):
        yield mark(extra_memory(other, values), FROM_PROBS)
    yield f"{extra_memory(ours(workload, solver='exact'), probs):.2f}"


def _from_logits(workload: Workload, hidden: float) -> Iterator[str]:
    logits, decide = workload.logits(), _from_logits_of(workload)
    yield mark(extra_memory(decide, logits), FROM_LOGITS - hidden)
    yield f"{hidden:.2f}"
    for dtype in (torch.float16, torch.bfloat16):
        yield mark(extra_memory(decide, logits.to(dtype)), FROM_LOGITS)


def _of_the_reference(workload: Workload) -> Iterator[str]:
    probs = workload.make()
    for decide in (theirs(workload), theirs(workload, safe_screening="auto")):
        yield f"{extra_memory(decide, probs):.2f}"


def _from_logits_of(workload: Workload) -> Decide:
    return partial(_decide, ours(workload).predict_logits, "sigmoid" if workload.shape[1] == 1 else "softmax")


def _decide(predict, activation: str, logits: Tensor) -> Tensor:
    return predict(logits, activation)


def _hidden_elsewhere(name: str) -> list[float]:
    """From probabilities and from logits, in a process that gives back at once what is freed."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "benchmarks.memory", name, str(torch.get_num_threads())]
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main(name: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    workload = next(each for each in WORKLOADS if each.name == name)
    from_probabilities = hidden_memory(ours(workload), workload.make())
    from_logits = hidden_memory(_from_logits_of(workload), workload.logits())
    print(json.dumps([from_probabilities, from_logits]))


if __name__ == "__main__":
    main(*sys.argv[1:])
