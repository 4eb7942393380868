import hashlib

import numpy as np
import pytest
from PIL import Image

from examples.demo import microscopy
from examples.demo.folder import read_folder


def digest(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        microscopy.generate(tmp_path / name, train=3, val=2, seed=seed)
    first, second, other = (digest(tmp_path / name) for name in "abc")
    assert first == second
    assert len(first) == 10
    assert len(set(first.values())) == 10  # training and validation images share nothing
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_fewer_images_leave_none_of_an_earlier_run(tmp_path):
    microscopy.generate(tmp_path, train=4, val=3)
    microscopy.generate(tmp_path, train=2, val=1)
    assert len(digest(tmp_path)) == 6


def test_files_are_a_valid_folder_with_every_class(tmp_path):
    microscopy.generate(tmp_path, train=6, val=4)
    folder = read_folder(tmp_path)
    assert (len(folder.train), len(folder.val), len(folder.classes)) == (6, 4, len(microscopy.CLASSES))
    assert folder.notes == ()
    for pair in folder.train + folder.val:
        assert pair.read_image().shape == (microscopy.SIZE, microscopy.SIZE, 3)
        assert pair.read_mask().dtype == np.uint8


def test_small_classes_are_small_and_some_images_hold_no_filament():
    masks = np.stack([microscopy.draw(np.random.default_rng(index))[1] for index in range(60)])
    shares = np.stack([(masks == label).mean((1, 2)) for label in range(len(microscopy.CLASSES))])
    background, body, nucleus, filament = shares.mean(1)
    assert background > body > 4 * max(nucleus, filament)
    assert min(nucleus, filament) > 0.002
    assert (shares[3] == 0).any()


@pytest.mark.parametrize("label", range(1, 4))
def test_every_class_is_brighter_than_the_background(label):
    inside, outside = [], []
    for index in range(20):
        image, mask = microscopy.draw(np.random.default_rng(index))
        if (mask == label).any():
            inside.append(image[mask == label].mean())
            outside.append(image[mask == 0].mean())
    assert np.mean(inside) > np.mean(outside) + 5


def test_images_are_png_files(tmp_path):
    microscopy.generate(tmp_path, train=1, val=1)
    with Image.open(tmp_path / "img_dir/train/000.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (microscopy.SIZE, microscopy.SIZE))
    with Image.open(tmp_path / "ann_dir/val/000.png") as mask:
        assert (mask.format, mask.mode) == ("PNG", "L")
