"""Without numba the same solvers run on whole tensors and in Python's own loops, in more time."""

import os
import subprocess
import sys

import torch
from places import ROOT

from rankseg_plugins import RankSEG

CASES = [
    (solver, metric, smooth)
    for solver in ("exact", "BA", "TRNA")
    for metric in ("dice", "iou")
    for smooth in (0.0, 1.0)
    if metric == "dice" or solver == "exact"
]
DECIDE = """
import sys, torch
sys.modules["numba"] = None
from rankseg_plugins import RankSEG
cases, probs, valid, to = torch.load(sys.argv[1])
found = []
for solver, metric, smooth in cases:
    decoder = RankSEG(metric, smooth, "multilabel", solver, pruning_prob=0.0)
    masks = decoder(probs, valid)
    found.append((masks, decoder.expected_score(probs, masks, valid)))
torch.save(found, to)
"""


def inputs():
    """An object, an unsure one, a haze, equal probabilities, and certain pixels."""
    p = torch.rand(2, 5, 12, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p[:, 0] **= 4
    p[:, 2] *= 0.01
    p[:, 3] = 0.3
    p[:, 4] = (p[:, 4] > 0.8).double()
    return p.float()


def test_the_decisions_are_the_same(tmp_path):
    probs, valid = inputs(), torch.rand(2, 12, 15, generator=torch.Generator().manual_seed(1)) > 0.2
    given, to = tmp_path / "given.pt", tmp_path / "found.pt"
    torch.save((CASES, probs, valid, str(to)), given)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", DECIDE, str(given)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for (solver, metric, smooth), (masks, scores) in zip(CASES, torch.load(to), strict=True):
        decoder = RankSEG(metric, smooth, "multilabel", solver, pruning_prob=0.0)
        expected = decoder(probs, valid)
        assert expected.any(), (solver, metric, smooth)
        assert torch.equal(masks, expected), (solver, metric, smooth)
        torch.testing.assert_close(scores, decoder.expected_score(probs, expected, valid), rtol=1e-12, atol=1e-14)


def test_kernels_are_compiled_once_for_each_precision():
    """Whatever the shapes and layouts: compiling takes seconds."""
    from rankseg_plugins.core.kernels.cpu.solvers import moments, prefixes, shares

    for view in (lambda p: p, lambda p: p[:1, 1:2], lambda p: p.transpose(-1, -2), lambda p: p[:, 2:].movedim(1, 0)):
        for dtype in (torch.float32, torch.float64):
            for solver, metric, smooth in CASES:
                decoder = RankSEG(metric, smooth, "multilabel", solver, pruning_prob=0.0)
                probs = view(inputs()).to(dtype)
                decoder.expected_score(probs, decoder(probs))
    for kernel in (prefixes.prepare, prefixes.advance, shares.prepare, shares.advance):
        assert len(kernel.signatures) <= 2, kernel
    # It reads the probabilities themselves, which lie in a row or do not.
    assert len(moments.look.signatures) <= 4
