"""The pages about comparing say what the command does, and repeat what it measured."""

import re
import shlex

import nibabel
import numpy as np
import pytest
import typer
from image_folders import environment, make_image
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
]
EVIDENCE = ROOT / "docs/evidence"


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
    page = (ROOT / "docs/decode.md").read_text()
    commands = re.findall(r"^(?:rankseg-plugins|torchrun .* rankseg_plugins) (.*)$", page, re.MULTILINE)
    assert len(commands) == 7
    for command in map(shlex.split, commands):
        done = CliRunner().invoke(app, command, env=environment())
        assert done.exit_code == 0, done.output
        out = tmp_path / command[command.index("--out") + 1]
        assert len(list(out.iterdir())) == 3
    assert (tmp_path / "scores.csv").exists()


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
