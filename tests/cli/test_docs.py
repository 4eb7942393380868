"""The pages about comparing say what the command does, and repeat what it measured."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pytest
import typer
from image_folders import environment, make_image
from pages import commands, read_blocks
from places import DATA, ROOT
from sweeps import sweep
from typer.testing import CliRunner

from benchmarks.datasets import DATASETS
from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.cli import app
from rankseg_plugins.comparison.pictures.colours import class_colours
from rankseg_plugins.files.label_files import encode_png

pytestmark = pytest.mark.usefixtures("unpainted")

PAGES = [
    *(ROOT / f"docs/{name}.md" for name in ("compare", "tuning", "decode", "torchgeo")),
    *sorted((ROOT / "docs/evidence").glob("*.md")),
    ROOT / ".github/ISSUE_TEMPLATE/evidence.yml",
]
EVIDENCE = ROOT / "docs/evidence"
REAL = {"camvid/probs_val.npz", "voc21_horses/probs.npz", "drone_small/probs.npz", "voc21_people/probs.npz"}


def tables(path):
    """Rows of all tables of a page, without their heads."""
    blocks = [block.splitlines()[2:] for block in path.read_text().split("\n\n") if block.startswith("| ")]
    return [[[cell.strip(" *") for cell in row[1:-1].split("|")] for row in block] for block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    commands = typer.main.get_command(app).commands.values()
    known = {option for command in commands for each in command.params for option in each.opts}
    known |= {"--split", "--nproc-per-node"}  # of benchmarks.datasets and torchrun
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()))
    assert used <= known, used - known


def run_command(words):
    """As from a shell, in this process; of ``torchrun`` the one process that it starts first, without a GPU."""
    words = words[words.index("rankseg_plugins") :] if words[0] == "torchrun" else words
    words = ["cpu" if word == "cuda" else word for word in words[1:]]
    out = Path(words[words.index("--out") + 1] if "--out" in words else "report")
    shutil.rmtree(out, ignore_errors=True)
    done = CliRunner().invoke(app, words, env=environment())
    assert done.exit_code == 0, done.output
    return out


def test_commands_of_the_page_on_decode(tmp_path, monkeypatch):
    """Each of them writes labels of all images."""
    monkeypatch.chdir(tmp_path)
    for name in ("test", "truth", "tuned", "volumes", "images"):
        (tmp_path / name).mkdir()
    for index in range(2):
        probs, labels = make_image(index)
        np.save(tmp_path / f"test/{index:04d}.npy", probs)
        (tmp_path / f"truth/{index:04d}.png").write_bytes(encode_png(labels, class_colours(3)))
        np.save(tmp_path / f"volumes/{index}.npy", probs[..., None])
        nibabel.save(nibabel.Nifti1Image(labels[::-1, ::-1, None], np.diag([-1, -1, 1, 1])), f"images/{index}.nii.gz")
    TunedDecoder(RankSEG(), 3, 0.7).save("tuned/decoder.json")
    found = commands("docs/decode.md")
    assert len(found) == 7
    for words in found:
        assert len(list(run_command(words).iterdir())) == 3
    assert (tmp_path / "scores.csv").exists()


@pytest.fixture
def patients(tmp_path, monkeypatch):
    """Images of the patients of the page's table of groups, in ``probs`` and ``labels``."""
    monkeypatch.chdir(tmp_path)
    for name in ("probs", "labels"):
        (tmp_path / name).mkdir()
    for index in range(6, 12):
        probs, labels = make_image(index)
        np.save(tmp_path / f"probs/patient{index:02d}.npy", probs)
        np.save(tmp_path / f"labels/patient{index:02d}.npy", labels)
    return tmp_path


def test_commands_of_the_page_on_comparing(patients):
    (table,) = read_blocks("docs/compare.md", "csv")
    rows = (f"patient{index:02d},A,north\n" for index in (6, 9, 10, 11))
    Path("groups.csv").write_text(table.code + "".join(rows))
    install, *found = commands("docs/compare.md")
    assert install[:3] == ["pip", "install", "-e"]
    assert len(found) == 5
    for words in found:
        run_command(words)
    run_command([*found[0], "--groups", "groups.csv"])
    report = Path("report/report.md").read_text()
    assert all(column in report for column in ("scanner", "site", "north"))


def test_commands_of_the_readme(patients):
    Path("test").symlink_to("probs")
    found = [words for words in commands("README.md") if words[0] == "rankseg-plugins"]
    written = [sorted(path.suffix for path in run_command(words).iterdir()) for words in found]
    assert ".html" in written[0]
    assert ".json" in written[1]
    assert written[2].count(".png") == 6


def test_commands_of_the_page_on_tuning(patients):
    (words,) = commands("docs/tuning.md")
    assert (run_command(words) / "decoder.json").is_file()


def test_comparisons_of_the_papers(patients):
    """The decoders and conventions that they ask for; data sets and networks have tests of their own."""
    found = [words for words in commands("docs/evidence/reproduce.md") if words[0] == "rankseg-plugins"]
    assert len(found) == 3
    for words in found:
        made = [re.sub(r"(probs|labels)_fold\$fold/", r"\1/", word).replace("^[0-9]+", "[0-9]+$") for word in words]
        assert (run_command(made) / "report.md").is_file()


@pytest.mark.parametrize("page", sorted(EVIDENCE.glob("*.md")), ids=lambda page: page.name)
def test_measurements_of_a_page_exist(page):
    """What takes hours is not run here; its parts are, in tests/benchmarks."""
    for words in commands(page):
        if words[0] == "python":
            assert words[1] == "-m"
            assert find_spec(words[2]) is not None
            assert {word for word in words if word.endswith(".npz")} <= REAL


def test_data_sets_exist():
    rows = tables(EVIDENCE / "reproduce.md")[0]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row[0])}
    assert named == set(DATASETS)


def named(row):
    """The decoder of a row of the page, as the command calls it."""
    metric, option = re.match(r"(dice|iou), (exact|`pruning_prob` [\d.]+)", row[0]).groups()
    return f"rankseg(metric={metric},{'solver=exact' if option == 'exact' else 'pruning_prob=' + option.split()[-1]})"


@pytest.mark.parametrize(
    ("number", "columns", "report"),
    [(0, slice(1, 5), "camvid"), (1, slice(1, 4), "horses"), (1, slice(4, 7), "horses_present_in_truth")],
)
def test_page_repeats_the_reports(number, columns, report):
    (decoders, levels, *_) = tables(EVIDENCE / report / "report.md")
    by_name = {row[0]: row for row in decoders}
    argmax, *rows = tables(EVIDENCE / "README.md")[number]
    assert argmax[columns][0] == by_name["argmax"][1]
    assert [named(row) for row in rows] == list(by_name)[1:]
    for row in rows:
        image, gain, interval, *wins = row[columns]
        expected = by_name[named(row)]
        assert [image, gain, interval] == expected[1:4]
        assert not wins or wins[0] == expected[4].rsplit(" /", 1)[0]
    if report == "camvid":
        by_level = {row[0]: [cell.split()[0] for cell in row[1:]] for row in levels}
        assert [row[5] for row in (argmax, *rows)] == by_level["dataset IoU"]
        assert [row[6] for row in (argmax, *rows)] == by_level["dataset accuracy"]


@sweep(
    ("report", "file"),
    [("camvid", "camvid/probs_val.npz"), ("horses", "voc21_horses/probs.npz")],
    quick=lambda report, file: report == "horses",
)
def test_reports_are_what_the_command_finds(report, file, tmp_path):
    if not (DATA / file).exists():
        pytest.skip("the real probabilities are not beside this checkout")
    (decoders, *_) = tables(EVIDENCE / report / "report.md")
    chosen = [part for row in decoders for part in ("--decoder", row[0])]
    options = ["--probs", str(DATA / file), *chosen, "--panels", "0", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["compare", *options], env=environment())
    assert done.exit_code == 0, done.output
    (found, *_) = tables(tmp_path / "report.md")
    for row, expected in zip(found, decoders, strict=True):
        assert row[:5] == expected[:5]
