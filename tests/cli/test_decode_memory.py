"""``rankseg-plugins decode`` in a quarter of the memory that a volume takes."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison.blocks.expected import expect, expected_image_scores
from rankseg_plugins.comparison.scoring import Scoring

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")

SIZE = (40, 320, 320)


def pooled():
    """A rule for a data set of noise."""
    decoder = GlobalRankSEG(3, min_images=1, min_gain=0)
    decoder.update(torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)).mul(3).softmax(1))
    decoder.fit()
    return decoder


DECODERS = {
    "argmax": RankSEG("acc"),
    "rankseg(pruning_prob=0.1)": RankSEG(pruning_prob=0.1),
    "rankseg(output_mode=multilabel)": RankSEG(output_mode="multilabel"),
    "tuned.json": TunedDecoder(RankSEG(pruning_prob=0.1), 3, 0.7),
    "presence.json": TunedDecoder(PresenceRankSEG(3, frequencies=[0.9, 0.6, 0.3]), 3),
    "pooled.json": TunedDecoder(pooled(), 3),
}
#: Kinds of files, and the decoders that decide on each.
OTHERS = ("float32", "packed", "logits", "fortran", "packed_fortran")
FILES = {"float16": list(DECODERS), **dict.fromkeys(OTHERS, list(DECODERS)[1:2])}

#: Each run decides on a small image first, which loads all that it needs; then on the volume, with so much memory for
#: data beyond that which is used by then. Mapped files are no data.
LIMITED = """
import json, re, resource, sys
from pathlib import Path
from rankseg_plugins.cli import app
from rankseg_plugins.files.decoding import scratch

most, runs = json.loads(sys.argv[1])
scratch.Scratch.__init__.__defaults__ = (most,)
for kind, decoder, allowed, out in runs:
    activation = "softmax" if kind == "logits" else "identity"
    expected = ["--expected-score", f"{out}.csv", "--score", "iou" if kind == "float32" else "dice"]
    decide = ["decode", "--decoder", decoder, "--activation", activation, "--format", "npy", *expected, "--probs"]
    app([*decide, f"{kind}/small", "--out", f"{out}/small"], standalone_mode=False)
    used = 1024 * int(re.search(r"VmData:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (used + allowed, resource.RLIM_INFINITY))
    if app([*decide, f"{kind}/large", "--out", f"{out}/large"], standalone_mode=False):
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Volumes of round bodies, with some noise."""
    folder = tmp_path_factory.mktemp("volumes")
    for name, decoder in DECODERS.items():
        if isinstance(decoder, TunedDecoder):
            decoder.save(folder / name)
    radius = sum(axis**2 for axis in np.ogrid[tuple(slice(-1, 1, 1j * size) for size in SIZE)])
    rng = np.random.default_rng(0)
    logits = [4 * np.cos(3 * radius + 2 * label) + rng.normal(size=SIZE) for label in range(3)]
    logits = torch.tensor(np.stack(logits), dtype=torch.float32)
    probs = logits.softmax(0).numpy()
    for kind in FILES:
        values = logits.numpy() if kind == "logits" else probs
        values = values.astype(np.float32 if kind == "float32" else np.float16)
        for name, part in (("large", values), ("small", values[:, :20, :40, :40])):
            (folder / kind / name).mkdir(parents=True)
            part = np.asfortranarray(part) if "fortran" in kind else part
            if "packed" in kind:
                np.savez_compressed(folder / kind / name / "volume.npz", probs=part)
            else:
                np.save(folder / kind / name / "volume.npy", part)
    return folder


def run(folder, most, runs):
    command = [sys.executable, "-c", LIMITED, json.dumps([most, runs])]
    # Stacks of more threads would count, and so would pieces of memory that are free but not given back.
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    return subprocess.run(command, cwd=folder, env=alone, capture_output=True, text=True)


def quarter(kind):
    return 3 * SIZE[0] * SIZE[1] * SIZE[2] * (4 if kind == "float32" else 2) // 4


def test_a_quarter_of_the_volume_is_enough(folder):
    runs = [(kind, name, quarter(kind), f"{kind}-{i}") for kind in FILES for i, name in enumerate(FILES[kind])]
    done = run(folder, 1 << 20, runs)
    assert done.returncode == 0, done.stderr
    for kind, name, _, out in runs:
        values = np.load(folder / (kind if kind in ("float32", "logits") else "float16") / "large/volume.npy")
        probs = torch.from_numpy(values.astype(np.float32) if kind == "logits" else values)
        probs, decoder = probs.softmax(0) if kind == "logits" else probs, DECODERS[name]
        decision = decoder(probs[None])[0]
        assert np.array_equal(np.load(folder / out / "large/volume.npy"), decision), (kind, name)
        scoring = Scoring("iou" if kind == "float32" else "dice")
        expected = expected_image_scores(expect(scoring.score, [decoder], [decision], probs)[0], scoring)
        with (folder / f"{out}.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert float(row[f"expected_{scoring.score}"]) == pytest.approx(expected, rel=0, abs=1e-9), (kind, name)


def test_with_arrays_in_memory_it_is_not(folder):
    """The limit is felt."""
    done = run(folder, 1 << 40, [("float16", "rankseg(pruning_prob=0.1)", quarter("float16"), "out")])
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: float16/large/volume.npy: there is not enough memory")
