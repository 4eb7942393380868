"""What ``rankseg-plugins tune`` refuses, says once, passes over, and goes on with."""

import json
import warnings

import numpy as np
import pytest
import torch
from image_folders import make_image
from softened_images import IMAGES, OPTIONS, OPTIONS_OF, make_images, run

from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.tuning.candidates import GlobalCandidates
from rankseg_plugins.tuning.presence import PresenceCandidates

pytestmark = pytest.mark.usefixtures("unpainted")


def test_an_empty_folder(softened):
    (softened / "none").mkdir()
    for command in ("tune", "compare"):
        done = run(softened, "--probs", softened / "none", command=command)
        assert done.exit_code == 2
        assert f"error: {softened / 'none'}: holds no .npz, .npy or .pt file" in done.stderr


def test_warnings_of_the_fitting_pass_are_notes(softened, monkeypatch):
    def update(self, *given):
        warnings.warn("something about the images", UserWarning, stacklevel=2)
        return original(self, *given)

    original = GlobalCandidates.update
    monkeypatch.setattr(GlobalCandidates, "update", update)
    done = run(softened, *OPTIONS_OF["global"], "--aggregation-levels", "global")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("something about the images") == 1
    assert "warning: something about the images" in done.stderr


def test_presence_of_another_fit_is_not_gone_on_with(softened, monkeypatch):
    assert run(softened, *OPTIONS).exit_code == 0
    again = run(softened, *OPTIONS)
    assert again.exit_code == 0, again.stderr
    monkeypatch.setattr(PresenceCandidates, "update", lambda *given: pytest.fail("a pass over the files was begun"))
    for option, name in (
        (("--seed", 3), "seed"),
        (("--folds", 4), "folds"),
        (("--absent", "one"), "absent"),
        (("--objective", "dice_class"), "level"),
        (("--group-by", r"\d"), "group_by"),
    ):
        other = run(softened, *OPTIONS, *option)
        assert other.exit_code == 2
        assert f"belongs to a run with other {name}" in other.stderr


def test_goes_on_where_it_stopped(softened, monkeypatch):
    """And refuses what cannot go on, before any file is fitted to."""
    both = ("--aggregation-levels", "samplewise,global")
    assert run(softened, *OPTIONS, *both).exit_code == 0
    results = softened / "tuned/results.jsonl"
    whole, decoder = results.read_bytes(), (softened / "tuned/decoder.json").read_bytes()
    kept = b"".join(whole.splitlines(keepends=True)[:9])
    results.write_bytes(kept + b'{"image": "im')
    assert run(softened, *OPTIONS, *both).exit_code == 0
    assert results.read_bytes().startswith(kept)
    assert len(results.read_bytes().splitlines()) == 1 + IMAGES
    assert (softened / "tuned/decoder.json").read_bytes() == decoder
    other = run(softened, *both)
    assert other.exit_code == 2
    assert "belongs to a run with other decoders" in other.stderr
    with monkeypatch.context() as unfitted:
        unfitted.setattr(GlobalCandidates, "update", lambda *given: pytest.fail("a pass over the files was begun"))
        for extra, message in (
            (["--folds", "5", "--exclude", "7"], "--exclude must lie in 0 to 1, got 7"),
            (["--min-cases", "3", "--solvers", "magic"], "--solvers must be one of"),
            (["--temperatures", "0.9"], "belongs to a run with other decoders"),
        ):
            done = run(softened, *OPTIONS, *both, *extra)
            assert done.exit_code == 2
            assert message in done.stderr
    np.save(softened / "probs/image03.npy", make_images()[0][5].numpy())
    changed = run(softened, *OPTIONS, *both)
    assert changed.exit_code == 2
    assert "probs/image03.npy: has changed since 'image03' was measured" in changed.stderr


@pytest.mark.parametrize("level", ["samplewise", "global"])
def test_one_bad_image(softened, level):
    path = softened / "probs/image07.npy"
    np.save(path, np.full((2, 24, 24), 3.0))
    stopped = run(softened, *OPTIONS_OF[level], "--aggregation-levels", level)
    assert stopped.exit_code == 2
    assert f"error: {path}: probabilities must lie in [0, 1]" in stopped.stderr
    assert not (softened / "tuned/decoder.json").exists()
    done = run(softened, *OPTIONS_OF[level], "--aggregation-levels", level, "--keep-going")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count(f"skipped: {path}: ") == 1
    assert TunedDecoder.load(softened / "tuned/decoder.json").evidence["images"] == IMAGES - 1
    assert path.name in (softened / "tuned/report.html").read_text()


def test_what_is_skipped_does_not_shape_the_rule(softened):
    """The labels of an image are out of range; its probabilities would change the rule."""
    race = (*OPTIONS, "--aggregation-levels", "samplewise,global", "--keep-going")
    np.save(softened / "probs/image07.npy", np.stack([np.full((24, 24), 0.1), np.full((24, 24), 0.9)]))
    np.save(softened / "labels/image07.npy", np.full((24, 24), 9))
    done = run(softened, *race)
    assert done.exit_code == 0, done.stderr
    assert "skipped: " in done.stderr
    for part in ("probs", "labels"):
        (softened / part / "image07.npy").unlink()
    assert run(softened, *race, out="without").exit_code == 0
    heads = [json.loads((softened / out / "results.jsonl").read_text().splitlines()[0]) for out in ("tuned", "without")]
    assert heads[0]["tuned decoders"] == heads[1]["tuned decoders"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "dice"], "--objective must be one of 'dice_dataset'"),
        (["--temperatures", "0.7,hot"], "--temperatures must be numbers separated by commas, got '0.7,hot'"),
        (["--temperatures", "0"], "--temperatures must be in [0.001, 1000], got 0.0"),
        (["--pruning-probs", "2"], "--pruning-probs must be in [0, 1]"),
        (["--pruning-probs", ","], "--pruning-probs must be numbers separated by commas, got ','"),
        (["--solvers", "RMA,"], "--solvers must be words separated by commas, none of them empty, got 'RMA,'"),
        (["--temperatures", "1,,1"], "--temperatures must be numbers separated by commas"),
        (["--temperatures", "1,1"], "two candidates are called 'rankseg(metric=dice,pruning_prob=0.5)'"),
        (["--aggregation-levels", "global", "--pruning-probs", "0.05"], "--pruning-probs is an option of 'samplewise'"),
        (["--aggregation-levels", "global", "--solvers", "exact"], "--solvers is an option of 'samplewise'"),
        (["--aggregation-levels", "global,global"], "--aggregation-levels must differ"),
        (["--output-mode", ""], "--output-mode must be one of"),
        (["--metrics", "acc"], "--metrics must be one of 'dice', 'iou', got 'acc'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--metrics", "f1"], "--metrics must be one of"),
        (["--solvers", "magic"], "--solvers must be one of"),
        (["--aggregation-levels", "local"], "--aggregation-levels must be one of 'samplewise', 'global'"),
        (["--output-mode", "both"], "--output-mode must be one of"),
        (["--presence", "best"], "--presence must be 'score' or a number in [0, 1], got 'best'; --presence none"),
        (["--presence", "1.5"], "must be in [0, 1], got 1.5"),
        (["--presence", "0.2", "--aggregation-levels", "global"], "presence is an option of 'samplewise' candidates"),
        (["--folds", "1"], "Invalid value for '--folds'"),
        (["--present", "maybe"], "present must be one of"),
        (["--probs", "nowhere"], "nowhere: no such file"),
    ],
)
def test_bad_options(softened, options, message):
    done = run(softened, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_too_few_images_for_a_global_rule(softened):
    for index in range(4, IMAGES):
        (softened / f"probs/image{index:02d}.npy").unlink()
    done = run(softened, "--aggregation-levels", "global")
    assert done.exit_code == 2
    assert (
        "error: --aggregation-levels 'global' needs at least 5 images to fit its rule to, got 4: add images"
        in done.stderr
    )


def test_softmax_twice_is_one_line(tmp_path):
    """And only one, though these probabilities are too unsure as well."""
    for part in ("probs", "labels"):
        (tmp_path / part).mkdir()
    for index in range(8):
        probs, labels = make_image(index)
        np.save(tmp_path / f"probs/{index}.npy", torch.from_numpy(probs).softmax(0).numpy())
        np.save(tmp_path / f"labels/{index}.npy", labels)
    for command in ("compare", "tune"):
        done = run(tmp_path, command=command, out=command)
        assert done.exit_code == 0, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        assert "softmax was applied twice" in line


@pytest.mark.parametrize("options", [OPTIONS, (*OPTIONS_OF["global"], "--aggregation-levels", "global")])
def test_images_that_are_all_bad_are_named(softened, options):
    """Also where something is fitted to them first."""
    paths = sorted((softened / "probs").iterdir())
    for path in paths:
        np.save(path, np.full((2, 24, 24), np.nan, np.float32))
    done = run(softened, *options, "--keep-going")
    assert done.exit_code == 2
    *skipped, last = done.stderr.splitlines()
    assert last == f"error: {softened / 'probs'}: no image could be scored"
    assert [line.split(": ")[1] for line in skipped if line.startswith("skipped")] == list(map(str, paths))
