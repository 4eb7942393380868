"""Boundaries and lesions from the command line: the figures of the Python API, in all forms, resumed, or refused."""

import json

import nibabel
import numpy as np
import pytest
import torch
from image_folders import DECODERS, make_image, run_cli

from rankseg_plugins.comparison import compare
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.lesions import Lesions

pytestmark = pytest.mark.usefixtures("unpainted")

TUNED = DECODERS[1]
ASKED = ("--boundary", "1,2mm", "--spacing", "1,2.5", "--lesions", "--lesion-class", "2", "--lesion-overlap", "0.5")
EXTRA = (Boundaries((1, 2), "mm"), Lesions(0.5, classes=2))


def expected_comparison(**options):
    images = [make_image(index) for index in range(12)]
    samples = [
        (f"image{index:02d}", torch.from_numpy(probs), torch.from_numpy(labels.astype(np.int64)), None, (1, 2.5))
        for index, (probs, labels) in enumerate(images)
    ]
    with pytest.warns(UserWarning, match="the probabilities are too unsure"):
        return compare(samples, DECODERS, ignore_index=255, panels=0, extra=EXTRA, **options)


def test_report_holds_what_the_python_api_finds(folders):
    done = run_cli(folders, *ASKED, "--json", "--panels", 0)
    assert done.returncode == 0, done.stderr
    expected = expected_comparison()
    found, figures = json.loads(done.stdout)["extra"], expected.extra_figures
    columns = [column for score in EXTRA for column in score.columns]
    assert list(found) == [column.name for column in columns]
    for k, column in enumerate(columns):
        assert found[column.name]["higher_is_better"] == column.higher_is_better
        argmax, tuned = (found[column.name]["decoders"][name] for name in DECODERS)
        assert [argmax["mean"], tuned["mean"]] == figures.means[:, k].tolist()
        paired = tuned["paired"]
        assert [paired["mean"], *paired["interval"]] == figures.gains[0, k].tolist()
        assert [argmax["entries"], tuned["entries"], paired["entries"]] == [
            *figures.numbers[:, k],
            figures.pairs[0, k],
        ]
        by_class = np.array(list(argmax["classes"].values()), dtype=float)
        np.testing.assert_equal(by_class, figures.classes[0, k])
        gains = np.array(list(paired["classes"].values()), dtype=float)
        np.testing.assert_equal(gains, figures.class_gains[0, k])
    hd95 = found["hd95_mm"]["decoders"]
    for name in ("report.html", "report.md"):
        text = (folders / "out" / name).read_text()
        assert "HD95, mm (lower is better)" in text
        assert f"{hd95[TUNED]['mean']:.2f}" in text
        assert "at least 50 % of its pixels" in text
    with (folders / "out/images.csv").open() as file:
        assert {"nsd_1mm", "lesion_f1"} <= set(file.readline().strip().split(","))


def test_resumed(folders):
    whole = run_cli(folders, *ASKED, "--json")
    path = folders / "out/results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]))
    resumed = run_cli(folders, *ASKED, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["extra"] == json.loads(whole.stdout)["extra"]
    for asked, named in ((ASKED[4:], "extra scores"), ((*ASKED[:2], "--spacing", "1,2", *ASKED[4:]), "spacing")):
        refused = run_cli(folders, *asked)
        assert refused.returncode == 2
        assert f"belongs to a run with other {named}" in refused.stderr
    row = json.loads(lines[1])
    row["extra"][0] += 1
    path.write_text(lines[0] + json.dumps(row) + "\n")
    damaged = run_cli(folders, *ASKED)
    assert damaged.returncode == 2
    assert "results.jsonl: line 2 is damaged" in damaged.stderr


def test_spacing_of_nifti_labels(tmp_path):
    for name in ("probs", "labels"):
        (tmp_path / name).mkdir()
    probs, labels = (np.stack([each] * 3, -1) for each in make_image(0))
    np.save(tmp_path / "probs/a.npy", probs)
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([0.7, 1.25, 3, 1])), tmp_path / "labels/a.nii.gz")
    done = run_cli(tmp_path, "--boundary", "2mm", "--json", "--panels", 0)
    assert done.returncode == 0, done.stderr
    argmax = json.loads(done.stdout)["extra"]["assd_mm"]["decoders"]["argmax"]["mean"]
    both = [[((each == c) & (labels != 255)) for each in (probs.argmax(0), labels)] for c in range(3)]
    expected = [Boundaries(2, "mm").measure(*masks, (0.7, 1.25, 3))[-1] for masks in both]
    assert argmax == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--boundary", "2cm"], "--boundary: a boundary must be a tolerance such as '2', '2mm' or '1,2px', got '2cm'"),
        (["--boundary", "2", "--spacing", "1,1"], "--spacing has an effect only on distances in mm"),
        (["--spacing", "1,1"], "--spacing has an effect only on distances in mm"),
        (["--boundary", "2mm"], "boundaries in mm need the size of a pixel: --spacing gives it"),
        (["--boundary", "2mm", "--spacing", "1,x"], "--spacing must be numbers such as 1,1,3, got '1,x'"),
        (["--boundary", "2mm", "--spacing", "1,0"], "--spacing must be finite numbers above 0"),
        (
            ["--boundary", "2mm", "--spacing", "1,1,1"],
            "spacing must have a number for each of 2 axes, got (1.0, 1.0, 1.0)",
        ),
        (["--lesion-class", "1"], "--lesion-class and --lesion-overlap have an effect only with --lesions"),
        (["--lesion-overlap", "0"], "--lesion-class and --lesion-overlap have an effect only with --lesions"),
        (["--lesions", "--lesion-class", "3"], "--lesion-class must lie in 0 to 2, got 3"),
        (["--lesions", "--lesion-overlap", "2"], "--lesion-overlap must be in [0, 1], got 2.0"),
    ],
)
def test_bad_options(folders, options, message):
    done = run_cli(folders, *options)
    assert done.returncode == 2
    assert message in done.stderr
