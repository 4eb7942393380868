"""What the commands make of files and options: the right value, or one line that says what is wrong."""

import json

import numpy as np
import pytest
import torch
from image_folders import make_image, run_cli
from PIL import Image

from rankseg_plugins.comparison import compare

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture
def binary(tmp_path):
    """Twelve foreground maps with masks that are drawn 0/255."""
    for name in ("probs", "labels"):
        (tmp_path / name).mkdir()
    for index in range(12):
        probs, labels = make_image(index)
        np.save(tmp_path / f"probs/image{index:02d}.npy", probs[1:2])
        Image.fromarray((255 * (labels == 1)).astype(np.uint8)).save(tmp_path / f"labels/image{index:02d}.png")
    return tmp_path


def expected_dice(threshold=0.5):
    """Of the foreground, by hand."""
    scores = []
    for index in range(12):
        probs, labels = make_image(index)
        prediction, truth = probs[1] > threshold, labels == 1
        if prediction.any() or truth.any():
            scores.append(2 * (prediction & truth).sum() / (prediction.sum() + truth.sum()))
    return np.mean(scores)


def dice(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["decoders"]["argmax"]["levels"]["dice_image"]


def test_masks_drawn_in_white(binary):
    assert dice(run_cli(binary, "--json", "--map-labels", "255:1")) == pytest.approx(expected_dice())
    refused = run_cli(binary, "--ignore-index", -1, out="a")
    assert refused.returncode == 2
    assert "image00.png: holds the label 255, allowed are 0 to 1 (--ignore-index -1; masks" in refused.stderr
    assert "masks drawn 0/255? --map-labels 255:1)" in refused.stderr
    unclear = run_cli(binary, out="b")  # 255 would be left out, and with it all of the foreground
    assert unclear.returncode == 2
    assert "image00.png: holds the label 255, which is ignored, and the first 10 images have no" in unclear.stderr
    assert "take --map-labels 255:1;" in unclear.stderr


def test_images_of_background_and_ignored_pixels(binary):
    """Whoever means it says so: nothing but background is scored, and predictions of foreground are wrong."""
    done = run_cli(binary, "--json", "--map-labels", "255:255")
    assert dice(done) == 0.0


def test_labels_of_classes_beside_one_channel(binary):
    """What was found in which file, what is allowed, and what makes it so."""
    for index in range(12):
        labels = make_image(index)[1]
        Image.fromarray(np.where(labels == 2, 7, labels == 1).astype(np.uint8)).save(
            binary / f"labels/image{index:02d}.png"
        )
    refused = run_cli(binary)
    assert refused.returncode == 2
    said = (
        f"error: {binary / 'labels/image00.png'}: holds the label 7, allowed are 0 to 1 (--ignore-index 255); a single"
    )
    assert said in refused.stderr
    assert refused.stderr.strip().endswith(f"the probabilities are {binary / 'probs/image00.npy'}")
    assert dice(run_cli(binary, "--json", "--map-labels", "7:0", out="mapped")) == pytest.approx(expected_dice())


def test_real_ignored_pixels_raise_no_question(binary):
    for index in range(12):
        labels = make_image(index)[1]
        drawn = np.where(labels == 255, 255, (labels == 1) & (index == 9)).astype(np.uint8)
        Image.fromarray(drawn).save(binary / f"labels/image{index:02d}.png")
    assert "drawn" not in run_cli(binary).stderr  # the tenth image has foreground


def test_labels_are_changed_at_once_also_bool_ones(binary):
    for index in range(12):
        np.save(binary / f"labels/image{index:02d}.npy", make_image(index)[1] == 1)
        (binary / f"labels/image{index:02d}.png").unlink()
    plain = dice(run_cli(binary, "--json"))
    assert plain == pytest.approx(expected_dice())
    assert (
        dice(run_cli(binary, "--json", "--map-labels", "0:255,1:1", out="a")) > plain
    )  # only the foreground is scored
    assert dice(run_cli(binary, "--json", "--map-labels", "0:1,1:0", out="b")) < plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--map-labels", "1:9"], "--map-labels must name classes in 0 to 2, got 9"),
        (["--map-labels", "1:-1"], "--map-labels must name classes in 0 to 2, got -1"),
        (["--map-labels", "1:2,1:0"], "--map-labels must say once what 1 becomes, got '1:2,1:0'"),
        (["--map-labels", ""], "--map-labels must be pairs such as '255:1,2:0', got ''"),
        (["--one-vs-rest", -1], "--one-vs-rest must name classes in 0 to 2, got -1"),
        (["--one-vs-rest", 2, "--ignore-index", 2], "--one-vs-rest 2 is what --ignore-index leaves out"),
        (["--class-names", "a,b,a"], "--class-names: must be 3 different names, got 3: a, b, a"),
        (["--class-names", ""], "--class-names: must be 3 different names"),
        (["--orientation", "ras"], "--orientation must be 'stored' or three letters such as RAS or LPS, got 'ras'"),
    ],
)
def test_options_that_fit_nothing(folders, options, message):
    done = run_cli(folders, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folders / "out/results.jsonl").exists()


def test_one_channel_has_no_rest(binary):
    done = run_cli(binary, "--one-vs-rest", 0, "--map-labels", "255:1")
    assert done.returncode == 2
    assert "--one-vs-rest needs a channel for each class, these probabilities have one channel" in done.stderr


def test_one_class_of_logits(folders):
    """The softmax takes all channels, also where one of them is chosen."""
    (folders / "logits").mkdir()
    plain = dice(run_cli(folders, "--json", "--one-vs-rest", 1))
    for path in (folders / "probs").iterdir():
        with np.load(path) as file:
            logits = np.log(file["probs"]) + 3
        np.savez(path, probs=logits)
    assert dice(run_cli(folders, "--json", "--one-vs-rest", 1, "--activation", "softmax", out="a")) == pytest.approx(
        plain
    )
    assert 0 < plain < 1


def test_masks_for_each_class(folders):
    for index in range(12):
        labels = make_image(index)[1]
        (folders / f"labels/image{index:02d}.png").unlink()
        masks = np.stack([labels == label for label in range(3)])
        np.save(folders / f"labels/image{index:02d}.npy", masks)
    refused = run_cli(folders, "--map-labels", "0:1")
    assert refused.returncode == 2
    assert "image00.npy: holds a mask for each class, in which no label but 255 can be changed" in refused.stderr
    assert dice(run_cli(folders, "--json", "--one-vs-rest", 1)) == pytest.approx(expected_dice())
    images = [make_image(index) for index in range(12)]
    samples = [
        (str(index), torch.from_numpy(probs), torch.from_numpy(labels == np.arange(3)[:, None, None]))
        for index, (probs, labels) in enumerate(images)
    ]
    plain = compare(samples).level("argmax", "dice", "image")
    for path in (folders / "labels").iterdir():
        np.save(path, 255 * np.load(path).astype(np.uint8))
    assert "masks drawn 0/255 take --map-labels 255:1" in run_cli(folders, out="white").stderr
    assert dice(run_cli(folders, "--json", "--map-labels", "255:1", out="mapped")) == plain


def test_names_of_classes_that_do_not_fit(folders):
    (folders / "labels/classes.txt").write_text("a\nb\n")
    done = run_cli(folders)
    assert done.returncode == 2
    assert f"{folders / 'labels/classes.txt'}: must be 3 different names, got 2: a, b" in done.stderr
    np.savez(folders / "all.npz", probs=[make_image(0)[0]], labels=[make_image(0)[1]], classes=["a", "b"])
    done = run_cli(folders, "--probs", folders / "all.npz", "--labels", folders / "all.npz")
    assert f"{folders / 'all.npz'}: must be 3 different names, got 2: a, b" in done.stderr
    named = json.loads(run_cli(folders, "--class-names", "one, two,three", "--json").stdout)
    assert named["classes"] == ["one", "two", "three"]


BROKEN = {
    "header": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}".ljust(117)
    + b"\n",
    "text": b"hello",
    "nothing": b"",
}


UNREADABLE = {
    "probs/image00.npy": "header",
    "probs/image05.npz": "nothing",
    "probs/image06.pt": "text",
    "labels/image07.nii.gz": "text",
}


def put(folders, name, content):
    """A file that no reader can make sense of, in place of the image's own."""
    path = folders / name
    for old in path.parent.glob(f"{path.name[:7]}.*"):
        old.unlink()
    path.write_bytes(BROKEN[content])
    return path


def test_whatever_a_reader_raises_is_passed_over(folders):
    paths = [put(folders, name, content) for name, content in UNREADABLE.items()]
    done = run_cli(folders, "--keep-going", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["skipped"]) == [path.name[:7] for path in paths]
    for path in paths:
        assert f"skipped: {path}: cannot be read: " in done.stderr


@pytest.mark.parametrize("name", UNREADABLE)
def test_whatever_a_reader_raises(folders, name):
    """The first image is read before the others, to learn the number of classes."""
    path = put(folders, name, UNREADABLE[name])
    stopped = run_cli(folders)
    assert stopped.returncode == 2
    (line,) = [line for line in stopped.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {path}: cannot be read: ")


def test_the_image_of_one_file_is_named(tmp_path):
    images = [make_image(index) for index in range(12)]
    probs, labels = (np.stack(each) for each in zip(*images, strict=True))
    probs[7, 0, 0, 0] = np.nan
    labels[3] = 9
    np.savez(tmp_path / "all.npz", probs=probs, labels=labels, names=[f"im{index}" for index in range(12)])
    arguments = ["--probs", tmp_path / "all.npz", "--labels", tmp_path / "all.npz"]
    stopped = run_cli(tmp_path, *arguments)
    assert f"error: {tmp_path / 'all.npz'}: image im3: holds the label 9" in stopped.stderr
    done = run_cli(tmp_path, *arguments, "--keep-going")
    assert done.returncode == 0, done.stderr
    assert f"skipped: {tmp_path / 'all.npz'}: image im7: probabilities must be finite" in done.stderr


def test_a_folder_that_cannot_be_listed(folders):
    (folders / "probs").rename(folders / "old")
    (folders / "probs").mkdir(mode=0o000)
    done = run_cli(folders)
    (folders / "probs").chmod(0o755)
    assert done.returncode == 2
    assert f"error: {folders / 'probs'}: " in done.stderr
