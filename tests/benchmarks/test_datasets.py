"""Every loader on a tiny made copy of the layout of its data set, all the way into a comparison."""

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from benchmarks.datasets import DATASETS, LayoutError
from benchmarks.datasets.__main__ import main
from rankseg_plugins.cli import app
from rankseg_plugins.comparison import Scoring, compare
from rankseg_plugins.files.cases import find_cases

pytestmark = pytest.mark.usefixtures("unpainted")

RNG = np.random.default_rng(0)


def picture(path, labels, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8))
    if palette:
        image.putpalette(RNG.integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(path)


def volume(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), np.eye(4)), path)


def voc(root):
    names = ["2007_000033", "2007_000042"]
    found = {}
    for name in [*names, "2007_000061"]:  # the last one is not in the split
        found[name] = RNG.choice([*range(21), 255], (12, 10))
        picture(root / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png", found[name], palette=True)
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation").mkdir(parents=True)
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("\n".join(names) + "\n")
    return root / "VOCdevkit", {name: found[name] for name in names}


def sbd(root):
    (root / "cls").mkdir(parents=True)
    found = {}
    for name in ("2008_000002", "2008_000003"):
        found[name] = RNG.integers(0, 21, (9, 11))
        category = {"Segmentation": found[name].astype(np.uint8), "CategoriesPresent": np.unique(found[name])}
        savemat(root / f"cls/{name}.mat", {"GTcls": category})
    (root / "val.txt").write_text("\n".join(found))
    return root, found


def cityscapes(root):
    # Id and train id as the data set's own table of labels has them.
    table = {0: 255, 7: 0, 8: 1, 9: 255, 11: 2, 12: 3, 13: 4, 14: 255, 17: 5, 18: 255, 19: 6, 20: 7, 21: 8, 22: 9}
    table |= {23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 29: 255, 30: 255, 31: 16, 32: 17, 33: 18}
    found = {}
    for city, number in (("frankfurt", 294), ("lindau", 12)):
        ids = RNG.choice(list(table), (8, 16))
        name = f"{city}_000000_{number:06d}"
        picture(root / f"gtFine/val/{city}/{name}_gtFine_labelIds.png", ids)
        picture(root / f"gtFine/val/{city}/{name}_gtFine_instanceIds.png", ids)
        picture(root / f"gtFine/train/aachen/{name}_gtFine_labelIds.png", ids)
        found[f"{name}_leftImg8bit"] = np.vectorize(table.get)(ids)
    return root, found


def ade20k(root):
    found = {}
    for number in (1, 2):
        stored = RNG.integers(0, 151, (10, 9))
        picture(root / f"ADEChallengeData2016/annotations/validation/ADE_val_{number:08d}.png", stored)
        found[f"ADE_val_{number:08d}"] = np.where(stored == 0, 255, stored - 1)
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *(f"{i}\t0.1\t1\t1\t1\tthing {i}, part" for i in range(1, 151))]
    (root / "ADEChallengeData2016/objectInfo150.txt").write_text("\n".join(lines) + "\n")
    return root, found


def lits(root, slices=False):
    found = {}
    for case, folder in ((0, "Training Batch 1"), (30, "Training Batch 2")):
        labels = RNG.integers(0, 3, (6, 5, 4))
        labels[:, :, 1] = 1  # a slice of liver only
        volume(root / f"{folder}/segmentation-{case}.nii", labels)
        volume(root / f"{folder}/volume-{case}.nii", labels)
        found |= slices_of(case, labels == 2, 2) if slices else {f"volume-{case}": labels == 2}
    return root, found


def kits19(root, slices=False):
    found = {}
    for case in (0, 43):
        labels = RNG.integers(0, 3, (4, 5, 6))
        labels[2] = 0
        volume(root / f"data/case_{case:05d}/segmentation.nii.gz", labels)
        found |= slices_of(f"{case:05d}", labels == 2, 0) if slices else {f"case_{case:05d}": labels == 2}
    return root, found


def slices_of(case, tumour, axis):
    planes = {f"{case}_{i}": tumour.take(i, axis) for i in range(tumour.shape[axis])}
    return {name: plane for name, plane in planes.items() if plane.any()}


LAYOUTS = {
    "voc2012": voc,
    "sbd": sbd,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "lits": lits,
    "lits-slices": lambda root: lits(root, slices=True),
    "kits19": kits19,
    "kits19-slices": lambda root: kits19(root, slices=True),
}


def test_every_data_set_has_a_test():
    assert LAYOUTS.keys() == DATASETS.keys()


def make_probs(folder, expected, classes):
    """Probabilities that are certain of the truth."""
    (folder / "probs").mkdir()
    for image, labels in expected.items():
        masks = np.eye(classes, dtype=np.float16)[np.where(labels == 255, 0, labels).astype(int)]
        np.savez_compressed(folder / f"probs/{image}.npz", probs=np.moveaxis(masks, -1, 0))


@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_and_comparison(name, tmp_path, capsys):
    root, expected = LAYOUTS[name](tmp_path / "root")
    assert main([name, str(root), str(tmp_path / "labels")]) == 0
    assert f"{len(expected)} truths" in capsys.readouterr().out
    classes = (tmp_path / "labels/classes.txt").read_text().splitlines()
    assert len(classes) == {"voc2012": 21, "sbd": 21, "cityscapes": 19, "ade20k": 150}.get(name, 2)
    make_probs(tmp_path, expected, len(classes))
    found = find_cases(tmp_path / "probs", tmp_path / "labels")
    assert {case.name for case in found.cases} == set(expected)
    assert found.class_names == classes
    for case in found.cases:
        assert torch.equal(case.sample().labels, torch.from_numpy(expected[case.name].astype(np.int64)))
    samples = (case.sample() for case in found.cases)
    scoring = Scoring(present="label")
    compared = compare(samples, scoring=scoring, ignore_index=255, class_names=classes, panels=0)
    assert [compared.level(decoder, "dice", "image") for decoder in compared.decoders] == [1, 1]


@pytest.mark.parametrize("name", ["ade20k", "kits19"])
def test_command(name, tmp_path):
    """Pictures of many classes, and volumes."""
    root, expected = LAYOUTS[name](tmp_path / "root")
    assert main([name, str(root), str(tmp_path / "labels")]) == 0
    make_probs(tmp_path, expected, len((tmp_path / "labels/classes.txt").read_text().splitlines()))
    paths = ["--probs", tmp_path / "probs", "--labels", tmp_path / "labels", "--out", tmp_path / "out"]
    options = ["--panels", 0, "--present", "label"]
    done = CliRunner().invoke(app, ["compare", *map(str, (*paths, *options))])
    assert done.exit_code == 0, done.output
    assert "100.00" in done.output


def test_folds_of_the_published_cross_validation(tmp_path):
    for case in (0, 25, 26, 51, 52, 103, 104, 130):
        volume(tmp_path / f"segmentation-{case}.nii", np.full((2, 2, 2), 2))
    found = [[t.name for t in DATASETS["lits"].truths(tmp_path, f"fold{fold}")] for fold in range(5)]
    assert found == [
        ["volume-0", "volume-25"],
        ["volume-26", "volume-51"],
        ["volume-52"],
        ["volume-103"],
        ["volume-104", "volume-130"],
    ]
    with pytest.raises(LayoutError, match="split must be 'all' or 'fold0' to 'fold4', got 'val'"):
        list(DATASETS["lits"].truths(tmp_path, "val"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_another_layout(name, tmp_path, capsys):
    assert main([name, str(tmp_path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert DATASETS[name].layout.split()[0].split("*")[0][:7] in error


def test_pictures_that_hold_something_else(tmp_path):
    path = tmp_path / "annotations/validation/a.png"
    picture(path, np.full((4, 4), 200))
    with pytest.raises(LayoutError, match="holds the label 200, allowed are 0 to 150"):
        list(DATASETS["ade20k"].truths(tmp_path, "validation"))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    with pytest.raises(LayoutError, match="holds colours, not labels"):
        list(DATASETS["ade20k"].truths(tmp_path, "validation"))
