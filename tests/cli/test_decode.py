"""``rankseg-plugins decode`` writes what decoders decide in Python, read back by other readers."""

import csv
import json
import os
import time

import numpy as np
import pytest
import torch
from image_folders import environment, make_image, run_cli
from PIL import Image
from test_cli import limited_files
from typer.testing import CliRunner

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.cli import app
from rankseg_plugins.files.decoding.scratch import Scratch

pytestmark = pytest.mark.usefixtures("unpainted")

TEXT = "rankseg(metric=dice,pruning_prob=0.1)"
DECODER = RankSEG("dice", pruning_prob=0.1)
NAMES = [f"image{index:02d}" for index in range(12)]


def decode(folder, *options, decoder=TEXT, probs="probs", out="out"):
    given = ["decode", "--probs", folder / probs, "--decoder", decoder, "--out", folder / out, *options]
    return CliRunner().invoke(app, list(map(str, given)), env=environment())


def succeed(*args, **options):
    done = decode(*args, **options)
    assert done.exit_code == 0, done.stderr
    return done


def refuse(*args, **options):
    """The one line."""
    done = decode(*args, **options)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def said(done):
    """The lines; before 14.3 Rich adds an empty one where progress is not shown."""
    return [line for line in done.stderr.splitlines() if line]


def probs_of(index):
    return torch.from_numpy(make_image(index)[0])[None]


def pictures(folder, out="out"):
    return {path.stem: np.array(Image.open(path)) for path in sorted((folder / out).glob("*.png"))}


def assert_decided(found, decide=DECODER):
    assert list(found) == NAMES
    for index, labels in enumerate(found.values()):
        assert np.array_equal(labels, decide(probs_of(index))[0].numpy())


def fitted(decoder):
    for index in range(12):
        decoder.update(probs_of(index))
    decoder.fit()
    return decoder


DECODERS = {
    "argmax": lambda: RankSEG("acc"),
    "rankseg(metric=iou,smooth=1)": lambda: RankSEG("iou", smooth=1.0),
    "rankseg(solver=exact)": lambda: RankSEG(solver="exact"),
    "tuned.json": lambda: TunedDecoder(DECODER, 3, 0.7),
    "global.json": lambda: TunedDecoder(fitted(GlobalRankSEG(3, min_images=0, min_gain=0)), 3, 1.4),
    "presence.json": lambda: TunedDecoder(PresenceRankSEG(3, frequencies=[0.9, 0.6, 0.3]), 3),
}


@pytest.mark.parametrize("text", DECODERS)
def test_labels_are_those_of_the_decoder(folders, text):
    decoder = DECODERS[text]()
    if text.endswith(".json"):
        text = folders / text
        decoder.save(text)
    done = succeed(folders, decoder=text)
    assert done.stdout == ""
    assert said(done) == [f"Labels: {folders / 'out'}"]
    assert_decided(pictures(folders), decoder)


@pytest.mark.parametrize("decoder", [DECODER, TunedDecoder(DECODER, 3, 0.7)], ids=["plain", "tuned"])
def test_logits(folders, decoder):
    (folders / "logits").mkdir()
    for index, name in enumerate(NAMES):
        np.save(folders / f"logits/{name}.npy", (probs_of(index)[0].log() + 3).numpy())
    path = folders / "decoder.json"
    (decoder if isinstance(decoder, TunedDecoder) else TunedDecoder(decoder, 3)).save(path)
    succeed(folders, "--activation", "softmax", decoder=path, probs="logits")
    assert_decided(pictures(folders), lambda probs: decoder.predict_logits(probs.log() + 3, "softmax"))
    assert "probabilities must lie in [0, 1]" in refuse(folders, decoder=path, probs="logits", out="other")


def test_colours(folders):
    succeed(folders)
    grey = Image.open(folders / "out/image00.png")
    (folders / "colours.txt").write_text("1, 2, 3\n\n40 50 60\n128,64,128\n")
    for palette, colours in (
        ("voc", [(0, 0, 0), (128, 0, 0), (0, 128, 0)]),
        ("distinct", [(0, 0, 0), (0, 158, 115), (240, 228, 66)]),
        (folders / "colours.txt", [(1, 2, 3), (40, 50, 60), (128, 64, 128)]),
        (folders / "out/image03.png", [(1, 2, 3), (40, 50, 60), (128, 64, 128)]),
    ):
        out = "painted" if palette == folders / "out/image03.png" else "out"
        succeed(folders, "--palette", palette, "--overwrite", out=out)
        picture = Image.open(folders / out / "image00.png")
        assert (grey.mode, picture.mode) == ("L", "P")
        assert np.array_equal(np.array(picture), np.array(grey))
        assert np.array_equal(np.array(picture.convert("RGB")), np.array(colours)[np.array(grey)])


def test_more_labels_than_255(tmp_path):
    (tmp_path / "probs").mkdir()
    labels = np.arange(20 * 20).reshape(20, 20) % 300
    np.save(tmp_path / "probs/a.npy", np.eye(300, dtype=np.float32)[labels].transpose(2, 0, 1))
    succeed(tmp_path, decoder="argmax")
    picture = Image.open(tmp_path / "out/a.png")
    assert picture.mode == "I;16"
    assert np.array_equal(np.array(picture), labels)
    succeed(tmp_path, "--format", "npy", decoder="argmax", out="arrays")
    assert np.load(tmp_path / "arrays/a.npy").dtype == np.uint16
    assert np.array_equal(np.load(tmp_path / "arrays/a.npy"), labels)
    assert "--palette has an effect only on PNG" in refuse(tmp_path, "--palette", "voc", decoder="argmax", out="b")


def test_void(folders):
    text = "rankseg(unassigned_policy=void, void_index={})"
    for void, kind in ((255, np.uint8), (1000, np.uint16), (-1, np.int32)):
        decoder = RankSEG(unassigned_policy="void", void_index=void)
        succeed(folders, "--format", "npy", decoder=text.format(void), out=f"out{void}")
        for index, name in enumerate(NAMES):
            labels = np.load(folders / f"out{void}/{name}.npy")
            assert labels.dtype == kind
            assert np.array_equal(labels, decoder(probs_of(index))[0].numpy())
    assert (labels == -1).any()
    line = refuse(folders, "--format", "png", decoder=text.format(-1), out="png")
    assert line == "error: --format png holds the labels 0 to 65535, and void_index is -1: --format npy"


def test_masks_that_overlap(folders):
    text = "rankseg(output_mode=multilabel)"
    succeed(folders, decoder=text)
    decoder = RankSEG(output_mode="multilabel")
    for index, name in enumerate(NAMES):
        masks = np.load(folders / f"out/{name}.npy")
        assert masks.dtype == bool
        assert np.array_equal(masks, decoder(probs_of(index))[0].numpy())
    line = refuse(folders, "--format", "png", decoder=text, out="png")
    assert line == "error: --format png holds one label a pixel, and masks are decided: --format npy holds them"


def test_compare_reads_them(folders):
    """As the truth, against which the decoder that wrote them is perfect."""
    for text, out in ((TEXT, "multiclass"), ("rankseg(output_mode=multilabel)", "multilabel")):
        succeed(folders, decoder=text, out=f"{out}/labels")
        (folders / out / "probs").symlink_to(folders / "probs")
        first = "argmax" if out == "multiclass" else "argmax(output_mode=multilabel)"
        chosen = ("compare", "--decoder", first, "--decoder", text)
        paths = ("--probs", folders / out / "probs", "--labels", folders / out / "labels", "--out", folders / out / "r")
        done = CliRunner().invoke(app, list(map(str, (*chosen, *paths, "--json"))), env=environment())
        levels = {name: each["levels"] for name, each in json.loads(done.stdout)["decoders"].items()}
        assert levels[text.replace(" ", "")]["dice_image"] == 1
        assert levels[first]["dice_image"] < 1


@pytest.mark.parametrize("kind", ["npz", "stored npz", "npy", "pt", "rows", "stored rows", "rows npy"])
def test_files(tmp_path, kind, monkeypatch):
    """Every kind of file, and all images in one; every array in a file, as if it was large."""
    monkeypatch.setattr(Scratch.__init__, "__defaults__", (0,))
    probs, name = torch.cat([probs_of(index) for index in range(12)]), "probs"
    (tmp_path / "probs").mkdir()
    save = np.savez if "stored" in kind else np.savez_compressed
    if kind == "rows npy":
        name = "all.npy"
        np.save(tmp_path / name, probs)
    elif "rows" in kind:
        name = "all.npz"
        save(tmp_path / name, probs=probs.double(), names=[f"{each}.jpg" for each in NAMES])
    for index, each in enumerate(NAMES if name == "probs" else ()):
        path = tmp_path / "probs" / each
        if kind == "pt":
            torch.save({"probs": probs[index]}, path.with_suffix(".pt"))
        elif kind == "npy":  # in the other order of axes, and of bytes
            np.save(path.with_suffix(".npy"), np.asfortranarray(probs[index]).astype(">f4"))
        else:
            save(path.with_suffix(".npz"), probs=probs[index])
    succeed(tmp_path, probs=name)
    found = pictures(tmp_path)
    assert_decided(dict(zip(NAMES, found.values(), strict=True)) if kind == "rows npy" else found)


@pytest.mark.parametrize("name", ["../a", "/a", ".."])
def test_names_that_lead_out_of_the_folder(tmp_path, name):
    np.savez(tmp_path / "all.npz", probs=probs_of(0), names=[name])
    assert f"the name {name!r} of an image is none of a file" in refuse(tmp_path, probs="all.npz")


def test_one_channel(tmp_path):
    (tmp_path / "probs").mkdir()
    probs = torch.rand(1, 1, 16, 20, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "probs/a.npy", probs[0])
    for text, decoder in (
        ("argmax", RankSEG("acc", output_mode="multilabel")),
        ("rankseg", RankSEG(output_mode="multilabel")),
    ):
        succeed(tmp_path, "--overwrite", decoder=text)
        assert np.array_equal(pictures(tmp_path)["a"], decoder(probs)[0, 0].byte().numpy())


def test_one_class(folders):
    decoder = TunedDecoder(RankSEG(output_mode="multilabel"), 1, 0.7, {"one_vs_rest": 2})
    decoder.save(folders / "decoder.json")
    expected = {name: decoder(probs_of(i)[:, 2:])[0, 0].numpy() for i, name in enumerate(NAMES)}
    for activation, folder in (("identity", "probs"), ("softmax", "logits")):
        (folders / "logits").mkdir(exist_ok=True)
        for index, name in enumerate(NAMES):
            np.save(folders / f"logits/{name}.npy", probs_of(index)[0].log().numpy())
        options = ("--one-vs-rest", 2, "--activation", activation)
        succeed(folders, *options, decoder=folders / "decoder.json", probs=folder, out=f"{folder}_labels")
        for name, labels in pictures(folders, f"{folder}_labels").items():
            assert labels.max() == 1
            assert np.array_equal(labels, expected[name])
    line = refuse(folders, decoder=folders / "decoder.json", out="other")
    assert "was tuned for 1 classes, got probabilities of 3" in line
    done = succeed(folders, "--one-vs-rest", 1, decoder=folders / "decoder.json", out="other")
    assert "warning: " in done.stderr
    assert "decoder.json was tuned with --one-vs-rest 2" in done.stderr
    assert "has 3 channels: there is no class 3 with a rest" in refuse(folders, "--one-vs-rest", 3, out="third")


def test_expected_scores_are_those_of_compare(folders):
    TunedDecoder(DECODER, 3, 0.7).save(folders / "decoder.json")
    for options in ((), ("--score", "iou", "--absent", "one", "--exclude", 0)):
        table = folders / f"scores{len(options)}.csv"
        text = str(folders / "decoder.json")
        done = succeed(
            folders, "--expected-score", table, *options, "--json", decoder=text, out=f"labels{len(options)}"
        )
        compared = run_cli(folders, "--risk-coverage", "--decoder", text, *options, out=f"report{len(options)}")
        assert compared.returncode == 0, compared.stderr
        column = "expected_iou" if options else "expected_dice"
        with table.open() as ours, (folders / f"report{len(options)}/images.csv").open() as theirs:
            found = list(csv.DictReader(ours))
            expected = [float(row[column]) for row in csv.DictReader(theirs) if row["decoder"] == text]
        assert [row["image"] for row in found] == NAMES
        assert {row["decoder"] for row in found} == {text}
        assert [float(row[column]) for row in found] == pytest.approx(expected, abs=1e-9)
        assert json.loads(done.stdout)[column] == {row["image"]: float(row[column]) for row in found}


def test_figures(folders):
    done = succeed(folders, "--json")
    assert json.loads(done.stdout) == {
        "decoder": TEXT,
        "classes": 3,
        "output_mode": "multiclass",
        "format": "png",
        "labels": {name: str(folders / f"out/{name}.png") for name in NAMES},
        "skipped": {},
    }


# Runs that do not go through.


def test_bad_images_are_passed_over(folders):
    np.savez(folders / "probs/image00.npz", probs=np.full((3, 4, 4), np.nan, np.float32))
    (folders / "probs/image04.npz").write_bytes(b"no array")
    np.savez(folders / "probs/image07.npz", probs=np.full((2, 4, 4), 0.5, np.float32))
    np.savez(folders / "probs/image09.npz", probs=np.full((3, 4, 4), 0.9, np.float32))
    assert refuse(folders).startswith(f"error: {folders / 'probs/image00.npz'}: probabilities must be finite")
    done = succeed(folders, "--keep-going", "--json")
    problems = json.loads(done.stdout)["skipped"]
    assert list(problems) == ["image00", "image04", "image07", "image09"]
    assert [line.removeprefix("skipped: ") for line in said(done)[:4]] == list(problems.values())
    assert "no complete .npz archive" in problems["image04"]
    assert "must have 3 classes" in problems["image07"]
    assert "must add up to 1" in problems["image09"]
    assert sorted(pictures(folders)) == [name for name in NAMES if name not in problems]
    for name in NAMES:
        (folders / f"probs/{name}.npz").write_bytes(b"no array")
    done = decode(folders, "--keep-going", out="other")
    *told, last = done.stderr.splitlines()
    assert (done.exit_code, last) == (2, f"error: {folders / 'probs'}: no image can be read")
    paths = [f"{folders}/probs/{name}.npz" for name in NAMES]
    assert [line.split(": ")[:2] for line in told] == [["skipped", path] for path in paths]


def test_goes_on_where_it_stopped(folders):
    bad, good = folders / "probs/image05.npz", (folders / "probs/image05.npz").read_bytes()
    bad.write_bytes(b"no array")
    refuse(folders)
    assert sorted(pictures(folders)) == NAMES[:5]
    with (folders / "out/decode.jsonl").open("ab") as file:
        file.write(b'{"image": "ima')  # as if it was killed
    bad.write_bytes(good)
    before = {name: (folders / f"out/{name}.png").stat().st_ino for name in NAMES[:5]}
    (folders / "out/image01.png").unlink()
    np.savez(folders / "probs/image02.npz", probs=probs_of(7)[0])
    succeed(folders)
    found = pictures(folders)
    assert np.array_equal(found["image02"], found["image07"])
    np.savez(folders / "probs/image02.npz", probs=probs_of(2)[0])
    succeed(folders)
    assert_decided(pictures(folders))
    kept = [name for name in before if (folders / f"out/{name}.png").stat().st_ino == before[name]]
    assert {"image00", "image03", "image04"} <= set(kept)
    assert not list((folders / "out").glob("*.tmp"))


def test_labels_of_other_runs_are_not_mixed(folders):
    succeed(folders)
    line = refuse(folders, decoder="argmax")
    assert line.endswith("belongs to a run with other decoder; choose another --out, or begin anew with --overwrite")
    TunedDecoder(DECODER, 3).save(folders / "decoder.json")
    succeed(folders, "--overwrite", decoder=folders / "decoder.json")
    TunedDecoder(RankSEG("acc"), 3).save(folders / "decoder.json")
    assert "belongs to a run with other tuned decoders" in refuse(folders, decoder=folders / "decoder.json")
    succeed(folders, "--overwrite", "--format", "npy", decoder=folders / "decoder.json")
    assert sorted(os.listdir(folders / "out")) == ["decode.jsonl", *(f"{name}.npy" for name in NAMES)]
    expected = RankSEG("acc")(probs_of(3))[0].numpy()
    assert np.array_equal(np.load(folders / "out/image03.npy"), expected)


def test_files_that_no_run_wrote_stay(folders):
    before = {path: path.read_bytes() for path in (folders / "labels").iterdir()}
    for options in ((), ("--overwrite",), ("--format", "npy")):
        line = refuse(folders, *options, out="labels")
        problem = "is there already, and no run of decode wrote it; choose another --out"
        assert line.endswith(f"labels/image00.png: {problem}")
    assert {path: path.read_bytes() for path in (folders / "labels").iterdir()} == before
    assert refuse(folders, out="probs").endswith("probs: is the folder of --probs; choose another --out")


def test_a_full_disk(folders):
    for size, name in ((1000, "image00.npy"), (1400, "decode.jsonl")):
        with limited_files(size):
            line = refuse(folders, decoder="rankseg(output_mode=multilabel)")
        assert line == f"error: {folders / 'out' / name}: cannot be written: File too large"
        assert not list((folders / "out").glob(".*"))
    succeed(folders, decoder="rankseg(output_mode=multilabel)")
    assert sorted(os.listdir(folders / "out")) == ["decode.jsonl", *(f"{name}.npy" for name in NAMES)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "jpg"), "--format must be one of 'png', 'nifti', 'npy', got 'jpg'"),
        (("--decoder", "rankseg(metrik=dice)"), "unknown option 'metrik'"),
        (("--decoder", "missing.json"), "cannot be read: No such file or directory"),
        (("--palette", "rainbow"), "--palette must be voc, distinct or the file of one, got 'rainbow'"),
        (("--palette", "voc", "--format", "npy"), "--palette has an effect only on PNG labels of at most 255"),
        (("--reference", "missing"), "missing: no such folder"),
        (("--score", "iou"), "--score, --absent and --exclude have an effect only with --expected-score"),
        (("--score", "recall", "--expected-score", "a.csv"), "--score must be one of 'dice', 'iou', got 'recall'"),
        (("--exclude", "3", "--expected-score", "a.csv"), "--exclude must lie in 0 to 2, got 3"),
        (("--expected-score", "missing/a.csv"), "missing/a.csv: cannot be written: its folder does not exist"),
        (("--activation", "softplus"), "--activation must be one of"),
        (("--orientation", "RAX"), "--orientation must be 'stored' or three letters"),
        (("--device", "abacus"), "--device 'abacus' cannot be used"),
        (("--probs", "missing"), "missing: no such file or folder"),
        pytest.param(
            ("--device", "cuda", "--probs", "missing"),
            "--device 'cuda' cannot be used: ",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_options(folders, options, message):
    assert message in refuse(folders, *options)
    assert not pictures(folders)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1 2 3\n1 2", "a.txt: line 2 must be three numbers such as 128, 64, 128, got '1 2'"),
        ("a.txt", "1 2 300", "a.txt: palette must hold values from 0 to 255, got 1 to 300"),
        ("a.txt", "", "a.txt: palette must hold 1 to 256 colours"),
        ("a.png", None, "a.png: has no palette: its values are of the mode L, not indices"),
        ("a.png", "text", "a.png: cannot be read"),
    ],
)
def test_bad_palettes(folders, name, content, message):
    if content is None:
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folders / name)
    else:
        (folders / name).write_text(content)
    assert message in refuse(folders, "--palette", folders / name)


def test_softmax_twice_is_said_once(tmp_path):
    (tmp_path / "probs").mkdir()
    for index in range(3):
        np.save(tmp_path / f"probs/{index}.npy", probs_of(index)[0].softmax(0).numpy())
    done = succeed(tmp_path)
    assert done.stderr.count("look as if softmax was applied twice") == 1


def test_a_file_that_is_written_to_meanwhile(folders, monkeypatch):
    """It is decided on again."""
    from rankseg_plugins.files.decoding import run

    plain = run.decide

    def decide(*args):
        if not changed:
            changed.append(time.time())
            np.savez(folders / "probs/image00.npz", probs=probs_of(5)[0])
        return plain(*args)

    changed = []
    monkeypatch.setattr(run, "decide", decide)
    succeed(folders)
    succeed(folders)
    found = pictures(folders)
    assert np.array_equal(found["image00"], found["image05"])


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate"), RuntimeError("can't allocate memory"), torch.OutOfMemoryError("CUDA")]
)
def test_an_image_that_does_not_fit_into_memory(folders, monkeypatch, error):
    """Is named, and passed over where others are to be decided on."""
    from rankseg_plugins.files.decoding import run

    plain = run.decide

    def decide(decoder, values, *others):
        if torch.equal(values, probs_of(4)[0]):
            raise error
        return plain(decoder, values, *others)

    monkeypatch.setattr(run, "decide", decide)
    assert "image04.npz: there is not enough memory for it." in refuse(folders)
    assert "image04.npz: there is not enough memory for it." in succeed(folders, "--keep-going").stderr
    assert list(pictures(folders)) == [name for name in NAMES if name != "image04"]
    error = RuntimeError("of another kind")
    assert isinstance(decode(folders, out="other").exception, RuntimeError)


@pytest.mark.parametrize("size", [(24, 32), (6, 5, 8)], ids=str)
def test_classes_last(tmp_path, size):
    """Arrays (*spatial, C), which add up to 1 over another axis, or have as many classes there as the decoder."""
    (tmp_path / "probs").mkdir()
    logits = torch.randn(*size, 3, generator=torch.Generator().manual_seed(0))
    hint = "the classes seem to be the last dimension of the probabilities and must come before the spatial ones"
    TunedDecoder(DECODER, 3).save(tmp_path / "decoder.json")
    np.save(tmp_path / "probs/a.npy", logits.softmax(-1).numpy())
    assert hint in refuse(tmp_path)
    np.save(tmp_path / "probs/a.npy", logits.numpy())
    line = refuse(tmp_path, "--activation", "softmax", decoder=tmp_path / "decoder.json")
    assert line.startswith(f"error: {tmp_path / 'probs/a.npy'}: --decoder ")
    assert hint in line
    done = succeed(tmp_path, "--activation", "softmax", out="logits")
    assert (hint in done.stderr) == (len(size) == 2)  # of volumes nothing tells
