"""What the benchmark counts: memory whoever allocates it, and neighbours that run only when they should."""

import time
from pathlib import Path

import peaks
import pytest
import torch

from benchmarks.measure import extra_memory, interleave_in, mark, ratio
from benchmarks.neighbours import ALONE, BUSY, Neighbours
from benchmarks.workloads import WORKLOADS

HIDDEN = """
import json, numpy as np, torch
from benchmarks.measure import hidden_memory
probs = torch.rand(1, 4, 2048, 1024)  # 32 MiB
def by_numpy(probs):
    scratch = np.ones(probs.numel() // 2, dtype=np.float32)
    return probs[:, 0] * float(scratch[-1])
def by_torch(probs):
    scratch = torch.ones(probs.numel() // 2)
    return probs[:, 0] * float(scratch[-1])
print(json.dumps([hidden_memory(by_numpy, probs), hidden_memory(by_torch, probs)]))
"""


@peaks.needed
def test_memory_that_pytorch_does_not_count():
    by_numpy, by_torch = peaks.run(HIDDEN)
    assert by_numpy == pytest.approx(0.5, abs=0.05)
    assert by_torch <= 0.05


def test_memory_that_pytorch_counts():
    assert extra_memory(lambda p: (p + 1)[:, :1] * 1, torch.rand(1, 4, 256, 256)) == pytest.approx(1.0, abs=0.01)


def state(process):
    """T where it is halted, R and S where it runs, Z where it has ended."""
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="this system does not show processes as files")
def test_neighbours_run_in_their_condition_alone():
    with Neighbours() as neighbours:
        running = neighbours._running
        with neighbours.conditions[ALONE]():
            time.sleep(0.05)
            assert {state(each) for processes in running.values() for each in processes} == {"T"}
        assert 0 <= neighbours.others() <= 1.1
        for condition in BUSY:
            with neighbours.conditions[condition]():
                halted = {name: {state(each) == "T" for each in processes} for name, processes in running.items()}
                assert halted == {name: {name != condition} for name in BUSY}
    assert all(each.poll() is not None for processes in running.values() for each in processes)


def test_conditions_take_turns():
    seen = []

    class Condition:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            seen.append(self.name)

        def __exit__(self, *exception):
            pass

    times = interleave_in(
        {"one": lambda: time.sleep(0.06), "two": lambda: time.sleep(0.12)},
        {name: lambda name=name: Condition(name) for name in ("quiet", "busy")},
        rounds=2,
    )
    assert seen == ["quiet", "busy"] * 2
    assert {name: [len(each) for each in found.values()] for name, found in times.items()} == {
        "quiet": [2, 2],
        "busy": [2, 2],
    }
    assert ratio(times["quiet"], "two", "one") > 1.2


def test_bold_is_above_the_limit_as_printed():
    assert mark(0.904, 0.9) == "0.90"
    assert mark(0.906, 0.9) == "**0.91**"
    assert mark(100.0, None) == "100.00"


@pytest.mark.parametrize("workload", [each for each in WORKLOADS if "small" in each.name], ids=lambda each: each.name)
def test_logits_give_the_probabilities(workload):
    logits = workload.logits()
    probs = logits.sigmoid() if workload.shape[1] == 1 else logits.softmax(1)
    torch.testing.assert_close(probs, workload.make(), atol=2e-6, rtol=0)
