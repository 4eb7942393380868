"""The command line: what it prints and writes, and the faults that it survives."""

import contextlib
import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from image_folders import DECODERS, command, environment, make_image, run_cli
from PIL import Image
from sweeps import sweep
from typer.testing import CliRunner

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.cli import app
from rankseg_plugins.comparison import compare

pytestmark = pytest.mark.usefixtures("unpainted")

TUNED = DECODERS[1]


def expected_comparison(indices=range(12)):
    images = [make_image(index) for index in indices]
    samples = [
        (f"image{index:02d}", torch.from_numpy(probs), torch.from_numpy(labels.astype(np.int64)))
        for index, (probs, labels) in zip(indices, images, strict=True)
    ]
    with pytest.warns(UserWarning, match="the probabilities are too unsure"):
        return compare(samples, DECODERS, ignore_index=255)


def measurements(folder, out="out"):
    """Everything in the results but the times."""
    lines = [json.loads(line) for line in (folder / out / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def figures(folder, out="out"):
    found = json.loads((folder / out / "report.json").read_text())
    for decoder in found["decoders"].values():
        del decoder["milliseconds"]
    return {key: value for key, value in found.items() if key != "facts"}


@pytest.mark.painted
def test_report_holds_what_the_python_api_finds(folders):
    done = run_cli(folders, "--json")
    assert done.returncode == 0, done.stderr
    printed, expected = json.loads(done.stdout), expected_comparison()
    paired = expected.paired(TUNED)
    found = printed["decoders"][TUNED]["paired"]
    assert found["mean"] == pytest.approx(paired.mean, abs=1e-12)
    assert found["interval"] == pytest.approx(list(paired.interval), abs=1e-12)
    assert (found["wins"], found["losses"], found["ties"]) == (paired.wins, paired.losses, paired.ties)
    assert found["regressions"] == [list(each) for each in paired.regressions()]
    assert printed["decoders"]["argmax"]["levels"]["iou_dataset"] == expected.level("argmax", "iou", "dataset")
    assert json.loads((folders / "out/report.json").read_text()) == printed
    with (folders / "out/images.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["decoder"] == TUNED]
    assert [float(row["dice"]) for row in rows] == pytest.approx(paired.scores.tolist())
    assert [row["image"] for row in rows] == list(paired.names)
    for name in ("report.html", "report.md"):
        assert f"{paired.losses} of 12 images got worse" in (folders / "out" / name).read_text()
    assert "Report:" in done.stderr


def test_table_on_the_terminal(folders):
    done = run_cli(folders)
    assert done.returncode == 0, done.stderr
    assert TUNED in done.stdout
    assert "of 12 images got worse" in done.stdout
    low, high = expected_comparison().paired(TUNED).interval
    assert f"{100 * low:+.2f} to {100 * high:+.2f}" in done.stdout


def test_no_partner_is_listed(folders):
    (folders / "labels/image05.png").unlink()
    done = run_cli(folders)
    assert done.returncode == 0
    assert f"no partner: {folders / 'probs/image05.npz'}" in done.stderr
    assert figures(folders)["images"] == 11


def test_many_without_a_partner_are_counted(folders):
    """A folder of labels of the whole data set beside probabilities of some images."""
    for image in range(8):
        (folders / f"labels/other{image}.png").write_bytes((folders / "labels/image00.png").read_bytes())
    done = run_cli(folders)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("no partner: ")]
    assert told == [
        *(f"no partner: {folders / f'labels/other{image}.png'}" for image in range(5)),
        "no partner: 3 more; the report names all of them",
    ]
    named = json.loads((folders / "out/report.json").read_text())["facts"]["without partner"]
    assert named == [str(folders / f"labels/other{image}.png") for image in range(8)]


def test_options_change_what_they_say(folders):
    def of(*options):
        done = run_cli(
            folders, "--json", "--panels", 0, *options, out="x" + "".join(map(str, options)).replace("^", "")
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    plain = of()
    assert (plain["classes"], plain["cases"]) == (["class 0", "class 1", "class 2"], 12)
    assert plain["score"] == "image dice"
    several = of("--exclude", 0, "--score", "iou", "--group-by", "image.")
    assert (several["classes"], several["score"], several["cases"]) == (["class 1", "class 2"], "image iou", 2)
    assert of("--one-vs-rest", 2)["classes"] == ["foreground"]
    swapped = of("--map-labels", "0:1,1:0")["decoders"]["argmax"]["levels"]["dice_image"]
    assert swapped < plain["decoders"]["argmax"]["levels"]["dice_image"]
    narrow = of("--confidence", 0.5, "--class-names", "a,b,c")
    assert narrow["classes"] == ["a", "b", "c"]
    widths = [np.ptp(each["decoders"][TUNED]["paired"]["interval"]) for each in (plain, narrow)]
    assert widths[0] > widths[1] > 0


def test_logits(folders):
    (folders / "logits").mkdir()
    for path in sorted((folders / "probs").iterdir()):
        with np.load(path) as file:
            np.save(folders / f"logits/{path.stem}.npy", np.log(file["probs"]) + 3)
    done = run_cli(folders, "--json", "--activation", "softmax", "--probs", folders / "logits")
    assert done.returncode == 0, done.stderr
    paired = expected_comparison().paired(TUNED)
    assert json.loads(done.stdout)["decoders"][TUNED]["paired"]["mean"] == pytest.approx(paired.mean, abs=1e-3)


@sweep(("below", "status"), [(-100, 0), (0.0, None), (100, 3)], quick=lambda below, status: below != 0)
def test_fail_below(folders, below, status):
    low = 100 * expected_comparison().paired(TUNED).interval[0]
    status = (0 if low >= below else 3) if status is None else status
    done = run_cli(folders, "--fail-below", below)
    assert done.returncode == status, done.stderr
    assert (f"{TUNED}: the lower bound of the gain is {low:+.2f} points" in done.stderr) == (status == 3)


def test_a_bound_that_is_not_known_fails(folders):
    for index in range(4, 12):
        (folders / f"probs/image{index:02d}.npz").unlink()
    done = run_cli(folders, "--fail-below", -100)
    assert done.returncode == 3, done.stderr
    assert f"{TUNED}: the lower bound of the gain is not known, of too few cases" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decoder", "rankseg(metrc=dice)"], "unknown option 'metrc', did you mean 'metric'"),
        (["--score", "f1"], "score must be one of"),
        (["--map-labels", "1-2"], "--map-labels must be pairs"),
        (["--group-by", "("], "--group-by must be a regular expression"),
        (["--group-by", "patient"], "does not match the name 'image00'"),
        (["--one-vs-rest", "7"], "--one-vs-rest must name classes in 0 to 2, got 7"),
        (["--class-names", "a,b"], "must be 3 different names"),
        (["--exclude", "5"], "--exclude must lie in 0 to 2"),
        (["--device", "abacus"], "--device 'abacus' cannot be used"),
        (["--activation", "tanh"], "activation must be one of"),
        (["--confidence", "1.5"], "Invalid value for '--confidence'"),
    ],
)
def test_bad_options(folders, options, message):
    done = run_cli(folders, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def one_line(stderr, path, message):
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return line.startswith(f"error: {path}: ") and message in line and "Traceback" not in stderr


#: What may be wrong with one image: how it comes about, the file that is to be named, and the message.
FAULTS = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "probs", "no complete .npz archive"),
    "nan": (lambda path: np.savez(path, probs=with_nan(path)), "probs", "probabilities must be finite"),
    "size": (lambda path: label_map(path, (8, 8)), "labels", "labels of size 8 x 8"),
    "value": (lambda path: label_map(path, (16, 20)), "labels", "holds the label 7, allowed are 0 to 2"),
}


def with_nan(path):
    probs = np.load(path)["probs"]
    probs[1, 3, 4] = np.nan
    return probs


def label_map(path, size):
    Image.fromarray(np.full(size, 7, np.uint8)).save(path)


def damage(folders, fault, index):
    do, part, message = FAULTS[fault]
    path = folders / part / f"image{index:02d}.{'npz' if part == 'probs' else 'png'}"
    do(path)
    return path, message


@pytest.mark.parametrize("fault", FAULTS)
def test_one_bad_image(folders, fault):
    path, message = damage(folders, fault, 7)
    stopped = run_cli(folders)
    assert stopped.returncode == 2
    assert one_line(stopped.stderr, path, message)
    assert not (folders / "out/report.html").exists()


def test_bad_images_are_passed_over(folders):
    paths = [damage(folders, fault, 4 + number)[0] for number, fault in enumerate(FAULTS)]
    assert run_cli(folders).returncode == 2
    done = run_cli(folders, "--keep-going")  # goes on where it stopped
    assert done.returncode == 0, done.stderr
    expected = expected_comparison([*range(4), *range(8, 12)])
    assert figures(folders)["decoders"][TUNED]["paired"]["mean"] == pytest.approx(expected.paired(TUNED).mean)
    assert list(figures(folders)["skipped"]) == [path.stem for path in paths]
    for path in paths:
        assert f"skipped: {path}: " in done.stderr
        assert path.name in (folders / "out/report.html").read_text()


def test_nothing_can_be_read(folders):
    for path in (folders / "probs").iterdir():
        path.write_bytes(b"")
    done = run_cli(folders, "--keep-going")
    assert done.returncode == 2
    *skipped, last = done.stderr.splitlines()
    assert last == f"error: {folders / 'probs'}: no image can be read"
    begins = [f"skipped: {folders}/probs/image{index:02d}.npz: cannot be read: no complete .npz" for index in range(12)]
    assert [line[: len(begin)] for line, begin in zip(skipped, begins, strict=True)] == begins


def test_a_class_missing_everywhere(folders):
    for index in range(12):
        probs, _ = make_image(index)
        np.savez(folders / f"probs/image{index:02d}.npz", probs=np.concatenate([probs, 0 * probs[:1]]))
    done = run_cli(folders)
    assert done.returncode == 0, done.stderr
    assert "No truth holds class 3" in done.stdout
    assert figures(folders)["decoders"]["argmax"]["classes"]["dice_class"][3] is None
    mean = figures(folders)["decoders"][TUNED]["paired"]["mean"]
    assert mean == pytest.approx(expected_comparison().paired(TUNED).mean)


def test_killed_and_resumed(folders):
    whole = run_cli(folders, out="whole")
    assert whole.returncode == 0, whole.stderr
    results = folders / "out/results.jsonl"
    process = subprocess.Popen(
        command(folders), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment()
    )
    deadline = time.monotonic() + 120
    while not (results.exists() and results.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = results.read_bytes().splitlines(keepends=True)
    # However far it came, cut the file inside a line, as a power failure may.
    results.write_bytes(b"".join(lines[:6]) + lines[6][:50] if len(lines) > 6 else b"".join(lines) + b'{"image":"im')
    kept = len(lines[:6]) if len(lines) > 6 else len(lines)
    before = results.read_bytes().splitlines(keepends=True)[:kept]
    done = run_cli(folders)
    assert done.returncode == 0, done.stderr
    assert results.read_bytes().splitlines(keepends=True)[:kept] == before  # measured once, not again
    assert measurements(folders)[1:] == measurements(folders, "whole")[1:]
    assert figures(folders) == figures(folders, "whole")
    pages = [(folders / out / "report.html").read_text() for out in ("out", "whole")]
    pictures = [page[page.index("Images that change most") : page.index("How it was made")] for page in pages]
    assert pictures[0] == pictures[1]


def test_results_of_another_run_are_not_mixed(folders):
    assert run_cli(folders).returncode == 0
    other = run_cli(folders, "--decoder", "rankseg(metric=iou)")
    assert other.returncode == 2
    assert "belongs to a run with other decoders" in other.stderr
    Image.fromarray(make_image(50)[1]).save(folders / "labels/image03.png")
    changed = run_cli(folders)
    assert changed.returncode == 2
    assert "labels/image03.png: has changed since 'image03' was measured" in changed.stderr
    (folders / "out/results.jsonl").write_text("no json\n")
    assert "belongs to a run with other contents" in run_cli(folders).stderr


@contextlib.contextmanager
def limited_files(size):
    """Like a full disk: writing past ``size`` bytes fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.painted
def test_disk_full_again_and_again(folders):
    """Each run goes on where the one before it had to stop."""
    results = folders / "out/results.jsonl"
    for size, name, images in ((100, "results.jsonl", 0), (4000, "results.jsonl", 3), (20000, "histogram.png", 12)):
        with limited_files(size):
            done = run_cli(folders)
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert name in line
        assert "cannot be written: File too large" in line
        assert not [path for path in (folders / "out").rglob("*.tmp")]
        assert not (folders / "out/report.html").exists()
        assert len(results.read_bytes().splitlines()[1:]) == images
    resumed = run_cli(folders)
    assert resumed.returncode == 0, resumed.stderr
    assert figures(folders)["images"] == 12


def test_standard_output_on_a_full_disk(folders, monkeypatch, capsys):
    error = "error: standard output: cannot be written: No space left on device"
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(folders), stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == error
    assert figures(folders)["images"] == 12
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # what waits in it fails once more
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as stopped:
            app(command(folders, "--json")[3:])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == error


def test_interrupted_and_resumed(folders):
    """Ctrl-C while images are read: what was measured is taken over."""
    process = subprocess.Popen(command(folders), stderr=subprocess.PIPE, text=True, env=environment())
    results = folders / "out/results.jsonl"
    while not (results.exists() and results.read_bytes().count(b"\n") > 2) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=120)[1]
    assert "Traceback" not in stderr
    before = results.read_bytes()
    resumed = run_cli(folders)
    assert resumed.returncode == 0, resumed.stderr
    assert results.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert figures(folders)["images"] == 12


def test_output_that_takes_ascii_only(folders):
    decoder = folders / "\u00e4 \udce9.json"
    TunedDecoder(RankSEG(), 3).save(decoder)
    done = subprocess.run(
        command(folders, "--decoder", decoder),
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert "/\\xe4 \\udce9.json decides as" in done.stdout
    assert f"{TUNED} makes no certain difference to image Dice" in done.stdout


def test_out_that_is_a_file(folders):
    (folders / "out").write_text("")
    done = run_cli(folders)
    assert done.returncode == 2
    assert "out: cannot be written: it is a file" in done.stderr


def test_internal_errors_are_told_apart(folders):
    code = "from rankseg_plugins import cli; cli.reading.find_cases = lambda *a: 1 / 0; cli.app()"
    arguments = command(folders)[3:]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment())
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


WITHOUT = """
import sys
from rankseg_plugins.__main__ import main
for module in ("rich", "matplotlib"):
    sys.modules[module] = None
    try:
        main()
    except SystemExit as stopped:
        print(stopped.code, file=sys.stderr)
    del sys.modules[module]
sys.modules["typer"] = None
main()
"""


def test_without_the_extra():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 1
    needs = "this part of rankseg_plugins needs '{}': install its extra, rankseg-plugins[report]"
    assert done.stderr.splitlines() == [needs.format(module) for module in ("rich", "matplotlib", "typer")]


def test_help_and_version():
    for options, expected in ((["--help"], "compare"), (["compare", "--help"], "--fail-below")):
        shown = CliRunner().invoke(app, options, env=environment())
        assert shown.exit_code == 0
        assert expected in shown.stdout
    version = [sys.executable, "-m", "rankseg_plugins", "--version"]
    done = subprocess.run(version, capture_output=True, text=True, env=environment())
    assert done.returncode == 0
    assert "0." in done.stdout


MANY = """
import resource, sys, torch
import scipy.stats  # which the intervals load
from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison import compare
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
probs, labels = torch.rand(2, 64, 64, generator=generator), torch.randint(0, 2, (64, 64), generator=generator)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB

def samples():
    for index in range(int(sys.argv[1])):
        if index == 500:
            samples.early = peak()
        yield str(index), probs.clone(), labels.clone()

found = compare(samples())
print(len(found.names), peak() - samples.early)
"""


@sweep(("images", "most"), [(2_500, 20), (10_000, 80)], quick=lambda images, most: images < 10_000)
def test_thousands_of_images_in_bounded_memory(images, most):
    """The pixels alone of 2,500 would take 160 MB, those of 10,000 four times that."""
    program = [sys.executable, "-c", MANY, str(images)]
    done = subprocess.run(program, capture_output=True, text=True, env=dict(os.environ))
    found, grown = map(int, done.stdout.split())
    assert found == images
    assert grown < most * 1024, f"{grown} KiB"
