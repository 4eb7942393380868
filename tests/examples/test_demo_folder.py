import shutil

import numpy as np
import pytest
from PIL import Image

from examples.demo.__main__ import main
from examples.demo.folder import DataError, read_folder


def save(path, pixels, mode=None):
    Image.fromarray(np.asarray(pixels, np.uint8), mode).save(path)


def change(path, edit):
    """Load a mask, let `edit` change its pixels, and save it again."""
    pixels = np.array(Image.open(path))
    save(path, edit(pixels))


def label_at(value):
    def edit(pixels):
        pixels[0, 0] = value
        return pixels

    return edit


def remove_split(root):
    shutil.rmtree(root / "ann_dir/val")


def remove_mask(root):
    (root / "ann_dir/train/001.png").unlink()


def shrink_mask(root):
    change(root / "ann_dir/val/001.png", lambda pixels: pixels[:100, :90])


def damage_mask(root):
    (root / "ann_dir/train/000.png").write_bytes(b"no image")


def damage_image(root):
    (root / "img_dir/train/002.png").write_bytes(b"no image")


def cut_image_off(root):
    path = root / "img_dir/train/002.png"
    path.write_bytes(path.read_bytes()[:-2000])


def colour_mask(root):
    change(root / "ann_dir/train/000.png", lambda pixels: np.repeat(pixels[:, :, None], 3, axis=2))


def add_text(root):
    (root / "img_dir/val/notes.txt").write_text("")


def add_jpg(root):
    save(root / "img_dir/val/005.jpg", np.zeros((8, 8, 3)))


def remove_images(root):
    for path in (root / "img_dir/val").iterdir():
        path.unlink()


def only_background(root):
    for path in root.glob("ann_dir/*/*.png"):
        change(path, lambda pixels: pixels * 0)


WRONG = {
    "split": (remove_split, None, "{root}/ann_dir/val: no such folder"),
    "mask": (
        remove_mask,
        None,
        "{root}/img_dir/train/001.png: has no mask, {root}/ann_dir/train/001.png does not exist",
    ),
    "size": (
        shrink_mask,
        None,
        "{root}/ann_dir/val/001.png: is 90 x 100 pixels, its image {root}/img_dir/val/001.png is 128 x 128",
    ),
    "label": (
        lambda root: change(root / "ann_dir/val/000.png", label_at(4)),
        4,
        "{root}/ann_dir/val/000.png: the label 4 is out of range, allowed are 0 to 3, and 255 = ignore",
    ),
    "damaged mask": (damage_mask, None, "{root}/ann_dir/train/000.png: cannot be read as an image"),
    "image cut off": (cut_image_off, None, "{root}/img_dir/train/002.png: cannot be read as an image"),
    "damaged image": (damage_image, None, "{root}/img_dir/train/002.png: cannot be read as an image"),
    "colours": (
        colour_mask,
        None,
        "{root}/ann_dir/train/000.png: a mask has one channel of class labels, this file has 3 channels",
    ),
    "text": (add_text, None, "{root}/img_dir/val/notes.txt: images must end in .png or .jpg"),
    "endings": (
        add_jpg,
        None,
        "{root}/img_dir/val/005.jpg: all images must have the same ending, {root}/img_dir/train/000.png ends in .png",
    ),
    "empty": (remove_images, None, "{root}/img_dir/val: holds no images (.png or .jpg)"),
    "one class": (
        only_background,
        None,
        "{root}/ann_dir: the masks hold fewer than 2 classes (0, 1, ...; 255 = ignore)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_is_one_line_and_status_2(case, folder, capsys, tmp_path):
    damage, num_classes, message = WRONG[case]
    damage(folder)
    given = [] if num_classes is None else ["--num-classes", str(num_classes)]
    status = main(["--data", str(folder), "--out", str(tmp_path / "out"), *given])
    assert status == 2
    assert capsys.readouterr().err == f"demo: {message.format(root=folder)}\n"
    assert not (tmp_path / "out").exists()


def test_missing_folder(tmp_path, capsys):
    assert main(["--data", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"demo: {tmp_path}/nowhere: no such folder\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-classes", "3"], "--num-classes needs --data"),
        (["--data", ".", "--num-classes", "1"], "must be a whole number from 2 to 255, got '1'"),
        (["--data", ".", "--num-classes", "many"], "must be a whole number from 2 to 255, got 'many'"),
        (["--iterations", "0"], "must be a positive whole number, got '0'"),
    ],
)
def test_wrong_command_line_is_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_number_of_classes_comes_from_the_masks(folder):
    change(folder / "ann_dir/val/001.png", label_at(6))
    change(folder / "ann_dir/train/001.png", label_at(255))
    found = read_folder(folder)
    assert found.classes == tuple(f"class {label}" for label in range(7))
    assert found.notes == ("no mask holds the label 4, 5",)


def test_number_of_classes_may_be_given(folder):
    found = read_folder(folder, num_classes=6)
    assert len(found.classes) == 6
    assert found.notes == ("no mask holds the label 4, 5",)


def test_masks_without_an_image_are_noted(folder):
    (folder / "img_dir/train/001.png").unlink()
    found = read_folder(folder)
    assert [pair.image.name for pair in found.train] == ["000.png", "002.png"]
    assert found.notes == (f"1 files in {folder}/ann_dir/train belong to no image and are not used",)


def test_jpg_images_and_palette_masks(folder):
    for path in sorted(folder.glob("img_dir/*/*.png")):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    mask = Image.open(folder / "ann_dir/val/000.png")
    before = np.array(mask)
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    mask.save(folder / "ann_dir/val/000.png")
    found = read_folder(folder)
    assert found.image_suffix == ".jpg"
    np.testing.assert_array_equal(found.val[0].read_mask(), before)


def test_images_turned_by_exif_have_the_size_that_readers_see(folder):
    for path in sorted(folder.glob("img_dir/*/*.png")):
        image, exif = Image.open(path).crop((0, 0, 128, 100)), Image.Exif()
        exif[0x0112] = 6
        image.save(path.with_suffix(".jpg"), exif=exif)
        path.unlink()
    for path in folder.glob("ann_dir/*/*.png"):
        change(path, lambda pixels: pixels[:, :100])
    assert read_folder(folder).train[0].size == (128, 100)


def test_the_error_names_what_a_reader_must_change(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
