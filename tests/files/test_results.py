"""The file of results: what blocks a later run, and what does not."""

import contextlib
import functools
import json
import os
import shutil

import numpy as np
import pytest
from image_folders import DECODERS, environment, make_image
from typer.testing import CliRunner

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.cli import app
from rankseg_plugins.comparison import Recorder
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.files import run as files
from rankseg_plugins.files.cases import find_cases
from rankseg_plugins.files.errors import InputError
from rankseg_plugins.files.lines import collect, share_of
from rankseg_plugins.files.results import Result, ResultsFile, check_run

pytestmark = pytest.mark.usefixtures("unpainted")

#: Options that make a run short.
QUICK = {"compare": [], "tune": ["--temperatures", "1", "--pruning-probs", "0.5"]}
BOTH = ["--temperatures", "1", "--aggregation-levels", "global"]


def run(folder, command, *extra):
    paths = ["--probs", folder / "probs", "--labels", folder / "labels", "--out", folder / "out"]
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
    assert "probabilities must lie in [0, 1]" in failed.stderr
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
    check_run(path, {"classes": 2})
    with pytest.raises(InputError, match="belongs to a run with other contents"):
        ResultsFile(path, {"classes": 2})
    assert path.read_bytes() == b'["something else"]\n' + second


def test_a_torn_line_is_no_image(tmp_path):
    path = tmp_path / "results.jsonl"
    ResultsFile(path, {"classes": 2}).close()
    with path.open("ab") as file:
        file.write(b'{"image": "a"')
    check_run(path, {"classes": 3})
    ResultsFile(path, {"classes": 3}).close()
    assert [json.loads(line)["classes"] for line in path.read_text().splitlines()] == [3]


def test_what_processes_left_is_taken_into_one_file(tmp_path):
    path, other = tmp_path / "results.jsonl", tmp_path / "results-of-mine.jsonl"
    other.write_text("kept")
    for rank, lines in enumerate([b'{"image": "a"}\n', b"", b'{"image": "b"}\n{"image": "c"}\n{"image"']):
        ResultsFile(share_of(path, rank), {"classes": 2}).close()
        with share_of(path, rank).open("ab") as file:
            file.write(lines)
    collect(path)
    collect(path)
    assert [json.loads(line)["image"] for line in path.read_text().splitlines()[1:]] == ["a", "b", "c"]
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_but_not_into_those_of_another_run(tmp_path):
    path = tmp_path / "results.jsonl"
    for place, classes in ((path, 3), (share_of(path, 0), 2)):
        ResultsFile(place, {"classes": classes}).close()
        with place.open("ab") as file:
            file.write(b'{"image": "a"}\n')
    before = [place.read_bytes() for place in (path, share_of(path, 0))]
    with pytest.raises(InputError, match=r"results.jsonl: belongs to a run with other classes"):
        collect(path)
    assert [place.read_bytes() for place in (path, share_of(path, 0))] == before


def test_the_first_of_equal_images_is_drawn_also_if_later_ones_were_measured_before(folders):
    """As in a run that nothing interrupts."""
    for index in range(1, 5):
        for part in ("probs", "labels"):
            path = next((folders / part).glob("image00.*"))
            shutil.copy(path, folders / part / f"image{index:02d}{path.suffix}")
    cases = find_cases(folders / "probs", folders / "labels").cases[:5]

    def drawn(path, *parts):
        for part in parts:
            recorder = Recorder(DECODERS, num_classes=3, ignore_index=255, panels=2)
            results = ResultsFile(path, {})
            files.run(part, recorder, results)
            results.close()
        return [example.name for example in recorder.extremes.all()]

    assert drawn(folders / "one.jsonl", cases) == ["image00", "image01"]
    assert drawn(folders / "two.jsonl", cases[2:4], cases) == ["image00", "image01"]


#: Every way through a run: one pass, one pass of many candidates, and two passes.
PASSES = [("compare", []), ("tune", QUICK["tune"]), ("tune", BOTH)]


def rewrite(path, array):
    """Other content, the size and the time of before."""
    before = path.stat()
    np.save(path, array)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path, lambda probs: probs, count=12)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Gives the folder of a run through one of ``PASSES`` and what it printed.

    The run is made once, and its folder laid anew for each test: files of the same content that are other files.
    """

    @functools.cache
    def finished(number):
        command, options = PASSES[number]
        folder = write_images(tmp_path_factory.mktemp("run"), lambda probs: probs, count=12)
        done = run(folder, command, *options, "--json")
        assert done.exit_code == 0, done.stderr
        shutil.copytree(folder, kept := tmp_path_factory.mktemp("kept") / "run")
        return folder, kept, done.stdout

    def lay(command, options):
        folder, kept, printed = finished(PASSES.index((command, options)))
        shutil.rmtree(folder)
        return shutil.copytree(kept, folder), printed

    return lay


@pytest.mark.parametrize(("command", "options"), PASSES)
def test_changed_content_is_noticed(images, command, options):
    """In the very files that were measured, of which only the system knows that they were written to."""
    first = run(images, command, *options)
    assert first.exit_code == 0, first.stderr
    results = images / "out/results.jsonl"
    for part, name, how in (("probs", "3", []), ("labels", "5", ["--keep-going"])):
        path = images / part / f"{name}.npy"
        before = np.load(path)
        rewrite(path, np.load(images / part / "4.npy"))
        refused = run(images, command, *options, *how)
        assert refused.exit_code == 2
        problem = f"{path}: has changed since {name!r} was measured; choose another --out or remove {results}"
        assert refused.stderr.splitlines()[-1] == f"error: {problem}"
        if part == "probs":
            rewrite(path, before)
    results.unlink()
    assert run(images, command, *options, *how).exit_code == 0


@pytest.mark.parametrize(("command", "options"), PASSES)
def test_the_same_content_in_other_files_is_taken(measured, command, options):
    folder, first = measured(command, options)
    results = (folder / "out/results.jsonl").read_bytes()
    for part in ("probs", "labels"):
        os.utime(folder / part / "0.npy")
    again = run(folder, command, *options, "--json")
    assert again.exit_code == 0, again.stderr
    assert (folder / "out/results.jsonl").read_bytes() == results  # nothing was measured again
    assert without_times(again.stdout) == without_times(first)


@pytest.mark.parametrize(("command", "options"), PASSES[:2])
def test_a_repeated_line(measured, command, options):
    images, _ = measured(command, options)
    path = images / "out/results.jsonl"
    lines = path.read_text().splitlines()
    again = json.loads(lines[2])
    again["seconds"] = [second + 1 for second in again["seconds"]]
    path.write_text("\n".join([*lines, json.dumps(again), ""]))
    assert run(images, command, *options, "--json").exit_code == 0
    again["counts"][1][0][0] += 1
    path.write_text("\n".join([*lines, json.dumps(again), ""]))
    refused = run(images, command, *options, "--json")
    assert refused.exit_code == 2
    problem = f"line {len(lines) + 1} holds other results of '1' than a line before it; remove the file"
    assert f"error: {path}: {problem}" in refused.stderr


def without_times(text):
    found = json.loads(text)
    for part in (found, *(found[name] for name in ("validated", "candidates") if name in found)):
        part.pop("facts", None)
        for decoder in part.get("decoders", {}).values():
            del decoder["milliseconds"]
    return found


def test_measured_but_unreadable_now(measured):
    images, _ = measured(*PASSES[0])
    (images / "probs/3.npy").write_bytes(b"damaged")
    refused = run(images, "compare")
    assert refused.exit_code == 2
    assert f"error: {images}/probs/3.npy: cannot be read" in refused.stderr
    done = run(images, "compare", "--keep-going", "--json")
    assert done.exit_code == 0, done.stderr
    assert list(json.loads(done.stdout)["skipped"]) == ["3"]
    assert json.loads(done.stdout)["images"] == 11


@pytest.mark.parametrize(("command", "options"), PASSES)
def test_an_image_that_is_gone_is_noticed(measured, command, options):
    images, _ = measured(command, options)
    (images / "probs/3.npy").unlink()
    refused = run(images, command, *options)
    assert refused.exit_code == 2
    assert "results.jsonl: holds results of another '3'; choose another --out" in refused.stderr


@pytest.mark.parametrize(("command", "options"), PASSES)
def test_the_version_of_the_package_counts(measured, monkeypatch, command, options):
    images, _ = measured(command, options)
    monkeypatch.setattr("rankseg_plugins.files.results.__version__", "999.0")
    refused = run(images, command, *options)
    assert refused.exit_code == 2
    assert "belongs to a run with other version of rankseg_plugins; choose another --out" in refused.stderr


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[" * 100_000, "it is nested too deeply"),
        ('{"image": "3", "image": "4"}', "the key 'image' occurs twice in one object"),
        ('{"image": ["3"], "case": "3", "inputs": "", "stamp": "", "seconds": [], "counts": []}', "not a word: ['3']"),
        (
            '{"image": "3", "case": "3", "inputs": "", "stamp": "", "seconds": [], "counts": [1e400]}',
            "cannot convert float infinity to integer",
        ),
    ],
)
@pytest.mark.parametrize(("command", "options"), PASSES[::2])
def test_damaged_lines(measured, command, options, line, problem):
    images, _ = measured(command, options)
    path = images / "out/results.jsonl"
    path.write_text("\n".join([*path.read_text().splitlines()[:3], line, ""]))
    refused = run(images, command, *options)
    assert refused.exit_code == 2, refused.exception
    if command == "tune" and "seconds" in line:  # the pass that comes first reads nothing but hashes
        assert problem in refused.stderr or f"{images}/probs/3.npy: has changed" in refused.stderr
    else:
        assert f"{path}: line 4 is damaged ({problem}" in refused.stderr


@pytest.mark.parametrize(
    ("key", "problem"),
    [("counts", "counts of '1' must have shape (2, 3, 3)"), ("seconds", "seconds of '1' must be 2, got [")],
)
def test_measurements_of_another_shape_are_damage(measured, key, problem):
    images, _ = measured(*PASSES[0])
    path = images / "out/results.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2][key] = lines[2][key][:1]
    path.write_text("\n".join([*map(json.dumps, lines), ""]))
    refused = run(images, "compare")
    assert refused.exit_code == 2, refused.exception
    assert f"results.jsonl: line 3 is damaged ({problem}" in refused.stderr


def test_what_is_known_of_presence_goes_on(images, tmp_path):
    """As does a line that tells another number of classes, which is damage."""
    TunedDecoder(PresenceRankSEG(3, frequencies=[0.9, 0.7, 0.4]), 3).save(tmp_path / "decoder.json")
    options = ["--decoder", "argmax", "--decoder", tmp_path / "decoder.json", "--json"]
    whole = json.loads(run(images, "compare", *options).stdout)["decoders"]
    path = images / "out/results.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], ""]))
    assert json.loads(run(images, "compare", *options).stdout)["decoders"] == {
        name: {**each, "milliseconds": pytest.approx(each["milliseconds"], abs=1e9)} for name, each in whole.items()
    }
    assert sum(number for _, _, number in whole[str(tmp_path / "decoder.json")]["presence"]["bins"]) == 12 * 3
    row = json.loads(lines[2])
    row["presence"][:2] = [3, 2]
    path.write_text("\n".join([*lines[:2], json.dumps(row), ""]))
    refused = run(images, "compare", *options)
    assert refused.exit_code == 2, refused.exception
    assert "results.jsonl: line 3 is damaged (presence of '1' must have shape (2, 3), got (3, 2)" in refused.stderr


def test_a_measurement_of_which_nobody_looked_which_decisions_are_the_same(tmp_path):
    recorder = Recorder({"argmax": RankSEG("acc"), "dice": RankSEG()}, num_classes=2)
    counts = np.arange(12).reshape(2, 3, 2)
    with contextlib.closing(ResultsFile(tmp_path / "results.jsonl", {})) as results:
        results.append(Result(Measurement("a", "a", counts, np.array([0.1, 0.2])), "inputs", "stamp"))
    with contextlib.closing(ResultsFile(tmp_path / "results.jsonl", {})) as results:
        (found,) = results
    recorder.restore(found.measurement)
    assert recorder.measurements[0].same is None
    np.testing.assert_array_equal(recorder.measurements[0].counts, counts)


@pytest.mark.parametrize("option", ["--probs", "--labels"])
@pytest.mark.parametrize(("command", "options"), PASSES[::2])
def test_an_empty_path_is_not_the_folder_one_is_in(images, monkeypatch, command, options, option):
    monkeypatch.chdir(images / option.removeprefix("--"))
    refused = run(images, command, *options, option, "")
    assert refused.exit_code == 2, refused.exception
    assert f"Invalid value for '{option}': must not be empty" in " ".join(refused.stderr.replace("│", " ").split())


@pytest.mark.parametrize("first", ["[" * 100_000, '{"format": 2, "format": 2}'])
@pytest.mark.parametrize(("command", "options"), PASSES)
def test_odd_first_lines(images, command, options, first):
    (images / "out").mkdir()
    (images / "out/results.jsonl").write_text(first + "\n")
    refused = run(images, command, *options)
    assert refused.exit_code == 2, refused.exception
    assert "results.jsonl: belongs to a run with other contents" in refused.stderr
    assert (images / "out/results.jsonl").read_text() == first + "\n"


@pytest.mark.parametrize("command", QUICK)
def test_a_pattern_with_an_empty_match_is_refused(images, command):
    refused = run(images, command, *QUICK[command], "--group-by", "[a-z]*")
    assert refused.exit_code == 2
    assert "--group-by '[a-z]*' has an empty match in the name '0'" in refused.stderr
    assert not (images / "out/results.jsonl").exists()


def test_cases_are_those_of_a_run_that_was_not_interrupted(images):
    """Also where the pattern is another one than that of the run that is continued."""
    options = ["--json", "--group-by"]
    whole = run(images, "compare", *options, "^1?")
    assert whole.exit_code == 2
    pairs = json.loads(run(images, "compare", *options, "^.").stdout)["cases"]
    assert pairs == 10
    assert json.loads(run(images, "compare", *options, "^.").stdout)["cases"] == pairs
    assert json.loads(run(images, "compare", "--json").stdout)["cases"] == 12


@pytest.mark.parametrize("kind", ["empty", "file", "below a file", "report", "long"])
@pytest.mark.parametrize(("command", "options"), PASSES)
def test_a_folder_that_cannot_be_written_is_refused_first(images, monkeypatch, command, options, kind):
    monkeypatch.setattr("rankseg_plugins.cli.reading.find_cases", pytest.fail)
    monkeypatch.chdir(images)
    out = {"empty": "", "file": "a", "below a file": "a/b", "report": "out", "long": "x" * 300}[kind]
    (images / "a").write_text("")
    (images / "out/report.html").mkdir(parents=True)
    refused = run(images, command, *options, "--out", out)
    assert refused.exit_code == 2, refused.exception
    expected = {
        "empty": "must not be empty",
        "file": "error: a: cannot be written: it is a file",
        "below a file": "error: a/b: cannot be written: Not a directory",
        "report": "error: out/report.html: cannot be written: it is a folder",
        "long": f"error: {out}: cannot be written: File name too long",
    }[kind]
    assert expected in refused.stderr
    assert sorted(os.listdir(images)) == ["a", "labels", "out", "probs"]
