"""Groups of images and risk-coverage as options of the command, against the Python API."""

import csv
import json

import numpy as np
import pytest
import torch
from image_folders import DECODERS, make_image, run_cli

from rankseg_plugins.comparison import Sample, compare
from rankseg_plugins.report.values import to_dict

# The made images are; that this is said is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:the probabilities are too unsure")

IMAGES = 14
#: By case, which is the part of a name before the low line.
SCANNERS = {f"p{case}": "AB"[case % 2] for case in range(7)}
SITES = {f"p{index // 2}_{index}": "north" if index < 8 else "=south" for index in range(IMAGES)}


@pytest.fixture
def folders(tmp_path):
    for part in ("probs", "labels"):
        (tmp_path / part).mkdir()
    for index in range(IMAGES):
        for part, values in zip(("probs", "labels"), make_image(index), strict=True):
            np.save(tmp_path / part / f"p{index // 2}_{index}.npy", values)
    return tmp_path


def write_table(folder, columns, name="groups.csv", encoding="utf-8"):
    names = dict.fromkeys(name for values in columns.values() for name in values)
    with (folder / name).open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file)
        writer.writerow(["name", *columns])
        writer.writerows([each, *(values[each] for values in columns.values())] for each in names)
    return str(folder / name)


def expected_comparison(**options):
    samples = []
    for index in range(IMAGES):
        probs, labels = make_image(index)
        probs, labels = torch.from_numpy(probs), torch.from_numpy(labels.astype(np.int64))
        samples.append(Sample(f"p{index // 2}_{index}", probs, labels, f"p{index // 2}"))
    samples.sort(key=lambda sample: (sample.case, int(sample.name.split("_")[1])))
    return compare(samples, DECODERS, ignore_index=255, panels=0, **options)


def test_report_holds_what_the_python_api_finds(folders):
    table = write_table(folders, {"scanner": {**SCANNERS, "p9": "B"}}, encoding="utf-8-sig")
    options = ("--groups", table, "--group-by", "^[^_]+", "--risk-coverage", "--panels", 0)
    done = run_cli(folders, *options, "--json")
    assert done.returncode == 0, done.stderr
    expected = expected_comparison(groups={"scanner": SCANNERS}, risk_coverage=True)
    found, wanted = json.loads(done.stdout), to_dict(expected)
    assert found["groups"] == wanted["groups"]
    assert {name: row["cases"] for name, row in found["groups"]["scanner"].items()} == {"A": 4, "B": 3}
    assert found["risk_coverage"].keys() == wanted["risk_coverage"].keys()
    for name, figures in wanted["risk_coverage"].items():
        assert found["risk_coverage"][name] == pytest.approx(figures)
    area = f"{100 * expected.risk_coverage(DECODERS[1]).area:.2f}"
    for name in ("report.html", "report.md"):
        text = (folders / "out" / name).read_text()
        for said in (
            "Groups by scanner",
            "Which images can be trusted",
            area,
            "fewer than 5 cases with a score are too small to say: scanner A (4), scanner B (3)",
            "The groups by scanner hold 1 name of no image here: p9.",
        ):
            assert said in text
    assert (folders / "out/pictures/trust.png").stat().st_size > 1000
    with (folders / "out/images.csv").open() as file:
        rows = {(row["image"], row["decoder"]): float(row["expected_dice"]) for row in csv.DictReader(file)}
    for name, scores in zip(DECODERS, expected.expected_scores, strict=True):
        assert [rows[image, name] for image in expected.names] == pytest.approx(scores.tolist())


def test_another_table_does_not_undo_what_was_measured(folders):
    assert run_cli(folders, "--groups", write_table(folders, {"site": SITES})).returncode == 0
    before = (folders / "out/results.jsonl").read_bytes()
    sizes = dict.fromkeys(SITES, "large")
    again = run_cli(folders, "--groups", write_table(folders, {"site": SITES, "size": sizes}, "other.csv"), "--json")
    assert again.returncode == 0, again.stderr
    assert {name: list(rows) for name, rows in json.loads(again.stdout)["groups"].items()} == {
        "site": ["=south", "north"],
        "size": ["large"],
    }
    assert (folders / "out/results.jsonl").read_bytes() == before


def test_the_terminal_shows_the_areas(folders):
    shown = run_cli(folders, "--risk-coverage", "--panels", 0).stdout
    expected = expected_comparison(risk_coverage=True)
    for name in ("argmax", DECODERS[1]):
        curve = expected.risk_coverage(name)
        areas = [f"{100 * each:.2f} %" for each in (curve.area, curve.ideal, curve.random)]
        assert f"{name} is expected to score" in shown
        assert f"curve of {areas[0]} (ideal order {areas[1]}, random order {areas[2]})" in shown


def test_risk_coverage_goes_on(folders):
    whole = json.loads(run_cli(folders, "--risk-coverage", "--json").stdout)["risk_coverage"]
    path = folders / "out/results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]))
    resumed = run_cli(folders, "--risk-coverage", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["risk_coverage"] == whole
    for other in ((), ("--risk-coverage", "--score", "iou")):
        refused = run_cli(folders, *other)
        assert refused.returncode == 2
        assert "belongs to a run with other expected score" in refused.stderr
    row = json.loads(lines[1])
    row["expected"][1:3] = [3, 2]
    path.write_text(lines[0] + json.dumps(row) + "\n")
    damaged = run_cli(folders, "--risk-coverage")
    assert damaged.returncode == 2
    assert "results.jsonl: line 2 is damaged (expected scores of 'p0_0' must be two for each class" in damaged.stderr


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("name,site\np0_0,a\n", "groups must have a site for every image or its case, and have none for 'p0_1', "),
        ("image,site\np0_0,a\n", "must begin with the columns 'name' and one or more of groups, got 'image, site'"),
        ("name\np0_0\n", "must begin with the columns 'name' and one or more of groups, got 'name'"),
        ("name,site,site\n", "must begin with the columns"),
        ("", "must begin with the columns"),
        ("name,site\np0_0,a\n\np0_0,b\n", "row 4 is another one of 'p0_0'"),
        ("name,site\np0_0, \n", "row 2 has no site"),
        ("name,site\np0_0,a,b\n", "row 2 must have 2 cells, got 3"),
        ('name,site\np0_0,"a\n', "cannot be read: unexpected end of data"),
        ("näme".encode("latin-1"), "cannot be read: 'utf-8' codec"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_bad_table_is_refused_before_any_image_is_measured(folders, table, problem):
    path = folders / "groups.csv"
    if table is not None:
        path.write_bytes(table if isinstance(table, bytes) else table.encode())
    refused = run_cli(folders, "--groups", str(path))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {path}: {problem}")
    assert refused.stderr.count("\n") == 1
    assert not (folders / "out/results.jsonl").exists()


def test_risk_coverage_of_a_score_without_expectation(folders):
    refused = run_cli(folders, "--risk-coverage", "--score", "recall")
    assert refused.returncode == 2
    assert "the score of risk_coverage must be" in refused.stderr
