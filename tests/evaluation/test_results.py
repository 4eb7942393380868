"""The file of results: what blocks a later run, and what does not."""

import json

import numpy as np
import pytest
from image_folders import environment, make_image
from typer.testing import CliRunner

from rankseg_plugins.cli import app
from rankseg_plugins.cli.reading import check_results
from rankseg_plugins.evaluation.files import InputError
from rankseg_plugins.evaluation.results import ResultsFile

#: Options that make a run short.
QUICK = {"compare": [], "tune": ["--temperatures", "1", "--pruning-probs", "0.5"]}
BOTH = ["--temperatures", "1", "--aggregation-levels", "global"]


def run(folder, command, *extra):
    paths = ["--probs", folder / "probs", "--labels", folder / "labels", "--out", folder / "out", "--resamples", 20]
    return CliRunner().invoke(app, [command, *map(str, paths), *extra], env=environment())


def write_images(folder, values, count=6):
    for part in ("probs", "labels"):
        (folder / part).mkdir(exist_ok=True)
    for index in range(count):
        probs, labels = make_image(index)
        np.save(folder / f"probs/{index}.npy", values(probs))
        np.save(folder / f"labels/{index}.npy", labels)
    return folder


@pytest.fixture
def logits(tmp_path):
    return write_images(tmp_path, lambda probs: np.log(probs) + 3)


@pytest.mark.parametrize("command", QUICK)
def test_a_run_that_failed_at_once_does_not_block_the_corrected_one(logits, command):
    options = QUICK[command]
    failed = run(logits, command, *options)
    assert failed.exit_code == 2
    assert "probs must lie in [0, 1]" in failed.stderr
    assert "--activation softmax" in failed.stderr
    done = run(logits, command, *options, "--activation", "softmax")
    assert done.exit_code == 0, done.stderr
    refused = run(logits, command, *options, "--activation", "sigmoid")
    assert refused.exit_code == 2
    assert "results.jsonl: belongs to a run with other activation" in refused.stderr


def test_nor_does_it_where_the_files_are_read_twice(logits):
    (logits / "out").mkdir()
    ResultsFile(logits / "out/results.jsonl", {"activation": "identity"}).close()
    done = run(logits, "tune", *BOTH, "--activation", "softmax")
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("command", QUICK)
def test_an_activation_is_checked_before_any_image(logits, command):
    done = run(logits, command, *QUICK[command], "--activation", "foo")
    assert done.exit_code == 2
    assert "error: --activation must be one of 'softmax', 'sigmoid'" in done.stderr
    assert not (logits / "out").exists()


@pytest.mark.parametrize("second", [b'{"image":"a"}\n', b""])
def test_what_is_no_first_line_of_a_run_is_left_alone(tmp_path, second):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'["something else"]\n' + second)
    check_results(path, {"classes": 2})
    with pytest.raises(InputError, match="belongs to a run with other contents"):
        ResultsFile(path, {"classes": 2})
    assert path.read_bytes() == b'["something else"]\n' + second


def test_a_torn_line_is_no_image(tmp_path):
    path = tmp_path / "results.jsonl"
    ResultsFile(path, {"classes": 2}).close()
    with path.open("ab") as file:
        file.write(b'{"image": "a"')
    check_results(path, {"classes": 3})
    ResultsFile(path, {"classes": 3}).close()
    assert [json.loads(line)["classes"] for line in path.read_text().splitlines()] == [3]


@pytest.mark.parametrize("command", QUICK)
def test_a_repeated_line(tmp_path, command):
    options = [*QUICK[command], "--json"]
    first = run(write_images(tmp_path, lambda probs: probs), command, *options)
    assert first.exit_code == 0, first.stderr
    path = tmp_path / "out/results.jsonl"
    lines = path.read_text().splitlines()
    again = json.loads(lines[2])
    again["seconds"] = [second + 1 for second in again["seconds"]]
    path.write_text("\n".join([*lines, json.dumps(again), ""]))
    assert run(tmp_path, command, *options).exit_code == 0
    again["counts"][1][0][0] += 1
    path.write_text("\n".join([*lines, json.dumps(again), ""]))
    refused = run(tmp_path, command, *options)
    assert refused.exit_code == 2
    assert f"error: {path}: line 8 holds other results of '1' than a line before it; remove the file" in refused.stderr
