"""Several processes give the report of one to the last digit, and end together."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from image_folders import environment, make_image
from launching import Launcher

from rankseg_plugins.cli import console, processes
from rankseg_plugins.cli.processes import own_device

COMPARE = ("compare", "--probs", "probs", "--labels", "labels")
TUNE = ("tune", *COMPARE[1:], "--temperatures", 0.7, "--aggregation-levels", "samplewise,global")


@pytest.fixture(scope="module")
def launch():
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture
def places(tmp_path):
    """Makes folders of their own for runs that read the same images, so that the command is the same."""

    def make(images, *names):
        for part in ("probs", "labels"):
            (tmp_path / part).mkdir()
        for index in range(images):
            for part, values in zip(("probs", "labels"), make_image(index), strict=True):
                np.save(tmp_path / part / f"image{index:02d}.npy", values)
        return [_place(tmp_path, name) for name in names]

    return make


def _place(folder, name):
    (folder / name).mkdir()
    for part in ("probs", "labels"):
        (folder / name / part).symlink_to(folder / part)
    return folder / name


def spoil(place, *indices):
    for index in indices:
        (place / f"probs/image{index:02d}.npy").write_bytes(b"no array")


def report(place, out):
    """Everything in it but when it was made, and how long decoders took."""

    def timeless(found):
        if not isinstance(found, dict):
            return found
        return {key: timeless(value) for key, value in found.items() if key not in ("date", "milliseconds")}

    return json.dumps(timeless(json.loads((place / out / "report.json").read_text())))


def pictures(place, out):
    """Of single images; what else is drawn follows from the figures."""
    return re.findall('src="data:image/png;base64,([^"]+)"', (place / out / "report.html").read_text())


def assert_same(one, several, out="report"):
    assert report(one, out) == report(several, out)
    assert sorted(os.listdir(one / out)) == sorted(os.listdir(several / out))
    found = [sorted(map(measured, (each / out / "results.jsonl").open())) for each in (one, several)]
    assert found[0] == found[1]


def measured(line):
    return json.dumps({key: value for key, value in json.loads(line).items() if key not in ("seconds", "stamp")})


def assert_succeeded(runs):
    assert [each.returncode for each in runs] == [0] * len(runs), [each.stderr for each in runs]
    assert not any(each.stdout + each.stderr for each in runs[1:])


def torchrun(place, number, *arguments, **options):
    how = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", number, "-m", "rankseg_plugins"]
    variables = {**environment(), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*map(str, (*how, *arguments))], cwd=place, env=variables, text=True, **pipes, **options)


def test_torchrun_reports_what_one_process_does(places, launch):
    one, two = places(7, "one", "two")
    spoil(one, 3, 4)
    alone = launch([one], *COMPARE, "--keep-going")
    assert_succeeded(alone)
    started = torchrun(two, 2, *COMPARE, "--keep-going")
    printed, said = started.communicate()
    assert started.returncode == 0, said
    assert_same(one, two)
    assert said == alone[0].stderr  # nothing of the other process
    assert (said.count("skipped: "), said.index("image03") < said.index("image04")) == (2, True)
    assert printed.splitlines()[3].split()[:2] == alone[0].stdout.splitlines()[3].split()[:2]


def test_tuning_in_two_processes(places, launch):
    one, two = places(11, "one", "two")
    runs = launch([two, two], *TUNE)
    assert_succeeded(runs)
    alone = launch([one], *TUNE)
    assert_succeeded(alone)
    assert_same(one, two, "tuned")
    assert (one / "tuned/decoder.json").read_bytes() == (two / "tuned/decoder.json").read_bytes()
    assert runs[0].stderr == alone[0].stderr


def test_more_processes_than_images(places, launch):
    one, three = places(2, "one", "three")
    assert_succeeded(launch([three] * 3, *COMPARE))
    assert_succeeded(launch([one], *COMPARE))
    assert_same(one, three)


def test_an_interrupted_run_goes_on_in_other_processes(places, launch):
    """With all that is measured of an image, and groups."""
    one, two, again = places(7, "one", "two", "again")
    command = (*COMPARE, "--risk-coverage", "--groups", "groups.csv")
    for place in (one, two, again):
        rows = (f"image{index:02d},{index % 2}\n" for index in range(7))
        (place / "groups.csv").write_text("".join(["name,site\n", *rows]))
    assert_succeeded(launch([one], *command))
    head, *lines = (one / "report/results.jsonl").read_bytes().splitlines(keepends=True)
    shares = {"results.jsonl": lines[5:6], "results-0.jsonl": lines[0:2], "results-2.jsonl": [lines[4], lines[3][:50]]}
    for place in (two, again):
        (place / "report").mkdir()
        for name, held in shares.items():
            (place / "report" / name).write_bytes(head + b"".join(held))
    assert_succeeded(launch([two, two], *command))
    assert_succeeded(launch([again], *command))
    for place in (two, again):
        assert_same(one, place)
        assert len(pictures(one, "report")) > 20
        assert pictures(one, "report") == pictures(place, "report")


def test_what_fails_in_one_process_ends_all_with_one_message(places, launch):
    (place,) = places(7, "place")
    spoil(place, 1, 2, 5)
    runs = launch([place] * 3, *COMPARE)
    assert [each.returncode for each in runs] == [2, 2, 2]
    said = "".join(each.stderr for each in runs)
    assert said.count("error: ") == 1
    assert said.startswith("error: probs/image0")
    assert said.endswith("\n")
    assert said.count("\n") == 1
    # Nothing is lost: the same command goes on.
    assert_succeeded(launch([place] * 2, *COMPARE, "--keep-going"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--score", "abc"), "error: --score must be one of 'iou', 'dice', 'precision', 'recall', got 'abc'"),
        (("--confidence", "abc"), "Invalid value for '--confidence'"),
        (("--device", "cuda:1"), "error: --device must be cuda in several processes"),
    ],
)
def test_what_fails_in_all_processes_is_said_once(places, launch, option, message):
    (place,) = places(1, "place")
    runs = launch([place] * 2, *COMPARE, *option)
    assert [each.returncode for each in runs] == [2, 2]
    assert sorted([message in each.stderr for each in runs]) == [False, True]
    assert "" in [each.stderr for each in runs]


def test_the_status_of_a_gain_that_is_too_small_is_that_of_the_first(places, launch):
    (place,) = places(2, "place")
    runs = launch([place] * 2, *COMPARE, "--fail-below", 90)
    assert [each.returncode for each in runs] == [3, 0]


def test_the_folder_is_one_for_all_processes(places, launch):
    apart = places(3, "one", "other")
    runs = launch(apart, *COMPARE)
    assert [each.returncode for each in runs] == [2, 0]
    assert runs[0].stderr.startswith("error: report: must be one folder for all processes")


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [2, 3])
def test_torchrun_tunes_as_one_process_does(places, launch, number):
    one, several = places(23, "one", "several")
    started = torchrun(several, number, *TUNE)
    _, said = started.communicate()
    assert started.returncode == 0, said
    alone = launch([one], *TUNE)
    assert_same(one, several, "tuned")
    assert (one / "tuned/decoder.json").read_bytes() == (several / "tuned/decoder.json").read_bytes()
    assert said == alone[0].stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("bad", [("--confidence", "abc"), ("--score", "abc"), ()])
def test_torchrun_shows_one_error(places, bad):
    (place,) = places(5, "place")
    spoil(place, 1, 2)
    started = torchrun(place, 2, *COMPARE, *bad)
    said = started.communicate()[1]
    assert started.returncode == 1
    assert len(re.findall("^error: |Invalid value for", said, re.MULTILINE)) == 1
    assert re.search(r"Root Cause \(first observed failure\):[^=]*exitcode *: 2 ", said)


@pytest.mark.exhaustive
def test_ctrl_c_ends_all_and_the_run_goes_on(places, launch):
    one, two = places(200, "one", "two")
    started = torchrun(two, 2, *COMPARE, start_new_session=True)
    while started.poll() is None and not any((two / "report").glob("results-*.jsonl")):
        time.sleep(0.05)
    os.killpg(started.pid, signal.SIGINT)
    started.communicate()
    assert started.returncode == 1
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)
    assert not (two / "report/report.json").exists()
    assert_succeeded(launch([two] * 3, *COMPARE))
    assert_succeeded(launch([one], *COMPARE))
    assert_same(one, two)


def test_what_only_another_process_has_to_say_is_said(monkeypatch, capsys):
    console.note("of both")
    monkeypatch.setattr(console, "gather", lambda ours: [ours, {"of both": None, "of the other": "yellow"}])
    console.note_for_all()
    assert capsys.readouterr().err.splitlines() == ["of both", "of the other"]


def test_each_process_has_its_own_gpu(monkeypatch):
    assert own_device("device", "cuda:1") == "cuda:1"
    monkeypatch.setattr(processes, "_group", object())
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="--device cuda in several processes needs the variable LOCAL_RANK"):
        own_device("--device", "cuda")
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert [own_device("device", each) for each in ("cuda", "cpu")] == ["cuda:2", "cpu"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # on each machine one
    assert own_device("device", "cuda:1") == "cuda:1"
