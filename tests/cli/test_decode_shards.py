"""Several processes write the labels that one does, byte for byte."""

import os
import subprocess
import sys

import numpy as np
import pytest
from image_folders import environment, make_image
from launching import Launcher

COMMAND = ("decode", "--probs", "probs", "--decoder", "rankseg(pruning_prob=0.1)", "--palette", "voc")
EXPECTED = ("--expected-score", "scores.csv")


@pytest.fixture(scope="module")
def launch():
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture
def places(tmp_path):
    """Folders of their own for runs that read the same images, of which the fourth is none."""

    def make(*names):
        (tmp_path / "probs").mkdir()
        for index in range(7):
            np.save(tmp_path / f"probs/image{index}.npy", make_image(index)[0])
        (tmp_path / "probs/image3.npy").write_bytes(b"no array")
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "probs").symlink_to(tmp_path / "probs")
        return [tmp_path / name for name in names]

    return make


def written(place):
    return {path.name: path.read_bytes() for path in (place / "labels").glob("*.png")}


def assert_same(one, several):
    assert len(written(one)) == 6
    assert written(one) == written(several)
    assert sorted(os.listdir(one / "labels")) == sorted(os.listdir(several / "labels"))
    assert sorted((one / "labels/decode.jsonl").open()) == sorted((several / "labels/decode.jsonl").open())
    assert (one / "scores.csv").read_bytes() == (several / "scores.csv").read_bytes()


def test_torchrun(places, launch):
    one, two = places("one", "two")
    (alone,) = launch([one], *COMMAND, *EXPECTED, "--keep-going")
    assert alone.returncode == 0, alone.stderr
    how = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "rankseg_plugins"]
    variables = {**environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*how, *COMMAND, *EXPECTED, "--keep-going"], cwd=two, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_same(one, two)
    assert done.stderr == alone.stderr
    assert done.stderr.count("skipped: ") == 1


def test_an_interrupted_run_goes_on_in_other_processes(places, launch):
    one, several = places("one", "several")
    runs = launch([several] * 3, *COMMAND, *EXPECTED)
    assert [each.returncode for each in runs] == [2, 2, 2]
    said = "".join(each.stderr for each in runs)
    assert said.startswith("error: probs/image3.npy: ")
    assert said.count("\n") == 1
    assert not (several / "scores.csv").exists()
    runs = launch([several] * 2, *COMMAND, *EXPECTED, "--keep-going")
    assert [each.returncode for each in runs] == [0, 0]
    assert runs[1].stderr == ""
    assert launch([one], *COMMAND, *EXPECTED, "--keep-going")[0].returncode == 0
    assert_same(one, several)


def test_the_folder_is_one_for_all_processes(places, launch):
    runs = launch(places("one", "other"), *COMMAND, "--keep-going")
    assert [each.returncode for each in runs] == [2, 0]
    assert runs[0].stderr.startswith("error: labels: must be one folder for all processes")
