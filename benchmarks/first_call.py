"""What the first call of a process takes: once on a machine, where kernels are compiled, and from their cache."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import torch

from benchmarks import measure
from benchmarks.measure import mark
from benchmarks.workloads import ROOT

EXPLANATION = """Seconds of the first call in a process that has imported PyTorch and this package, on 1x21x64x64
values; the import of numba is part of it. "compiling": once, with an empty cache; "from the cache": every process after
it.
"""
HEADER = ["call", "compiling (at most 10)", "from the cache (at most 0.5)", "the call after it"]

_PROBS = "probs = torch.randn(1, 21, 64, 64).softmax(1)"
_LOGITS = "logits = torch.randn(1, 21, 64, 64)"
#: By name: what is made, and what is called.
CALLS = {
    "import numba": ("", "import numba"),
    "RankSEG()(probs)": (_PROBS, "RankSEG()(probs)"),
    "RankSEG('iou', smooth=1)(probs)": (_PROBS, "RankSEG('iou', smooth=1.0)(probs)"),
    "RankSEG()(probs.half())": (_PROBS, "RankSEG()(probs.half())"),
    "RankSEG().predict_logits(logits)": (_LOGITS, "RankSEG().predict_logits(logits)"),
    "RankSEG().predict_logits(logits.bfloat16())": (_LOGITS, "RankSEG().predict_logits(logits.bfloat16())"),
    "RankSEG(solver='exact')(probs)": (_PROBS, "RankSEG(solver='exact')(probs)"),
}
_PROGRAM = """
import json, time
import torch
from rankseg_plugins import RankSEG
torch.set_num_threads({threads})
{made}
seconds = []
for _ in range(3):
    start = time.perf_counter()
    {called}
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


def rows() -> Iterator[list[str]]:
    """One row a call, each with a cache of its own."""
    for name, (made, called) in CALLS.items():
        program = _PROGRAM.format(threads=torch.get_num_threads(), made=made, called=called)
        with tempfile.TemporaryDirectory() as cache:
            compiling, *_ = _run(program, cache)
            cached = [_run(program, cache) for _ in range(measure.ROUNDS)]
        first, last = (statistics.median(each[place] for each in cached) for place in (0, -1))
        yield [f"`{name}`", mark(compiling, 10), mark(first, 0.5), f"{last:.4f}"]


def _run(program: str, cache: str) -> list[float]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)
