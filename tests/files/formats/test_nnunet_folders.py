"""Folders as nnU-Net leaves them: the folds of a trained model, and what dataset.json says of the classes."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from rankseg_plugins.comparison import compare
from rankseg_plugins.files.cases import find_cases
from rankseg_plugins.files.errors import InputError
from rankseg_plugins.files.formats.nnunet import find_orientation

SHAPE = (4, 5, 6)
LABELS = {"background": 0, "lesion": 2, "organ": 1, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def make_model(root, described, classes=3, folds=(0, 1), values=3):
    """Two cases a fold, with their labels."""
    model, labels, rng = root / "Trainer__Plans__3d", root / "labelsTr", np.random.default_rng(0)
    labels.mkdir(parents=True)
    for fold in folds:
        folder = model / f"fold_{fold}" / "validation"
        folder.mkdir(parents=True)
        for index in range(2):
            name = f"case_{2 * fold + index}"
            logits = rng.normal(size=(classes, *SHAPE[::-1]))
            probs = np.exp(logits) / np.exp(logits).sum(0)
            np.savez_compressed(folder / f"{name}.npz", probabilities=probs.astype(np.float32))
            truth = rng.integers(0, values, SHAPE).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(truth, np.eye(4)), labels / f"{name}.nii.gz")
    (model / "dataset.json").write_text(json.dumps({"labels": described}))
    (model / "plans.json").write_text("{}")
    return model, labels


def test_the_folds_of_a_model(tmp_path):
    model, labels = make_model(tmp_path, LABELS)
    found = find_cases(model, labels)
    assert [case.name for case in found.cases] == ["case_0", "case_1", "case_2", "case_3"]
    assert found.unmatched == []
    assert (found.class_names, found.named_in) == (["background", "organ", "lesion"], model / "dataset.json")

    single = find_cases(model / "fold_1" / "validation", labels)
    assert [case.name for case in single.cases] == ["case_2", "case_3"]
    assert single.class_names == found.class_names

    # Those that the network was trained on.
    (model / "fold_1").rename(model / "fold_all")
    assert [case.name for case in find_cases(model, labels).cases] == ["case_0", "case_1"]
    (labels / "classes.txt").write_text("a\nb\nc\n")
    assert find_cases(model, labels).class_names == ["a", "b", "c"]


def test_a_path_from_where_one_stands(tmp_path, monkeypatch):
    model, labels = make_model(tmp_path, REGIONS, classes=2)
    monkeypatch.chdir(model / "fold_0")
    assert find_cases(Path("validation"), labels).class_names == ["whole", "core"]
    monkeypatch.chdir("validation")
    assert find_cases(Path("."), labels).class_names == ["whole", "core"]


@pytest.mark.parametrize(("reader", "orientation"), [("SimpleITKIO", "stored"), ("NibabelIOWithReorient", "RAS")])
def test_the_plans_of_the_model_say_how_arrays_lie(tmp_path, reader, orientation):
    model, _ = make_model(tmp_path, LABELS)
    (model / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
    assert find_orientation(model / "fold_0" / "validation" / "case_0.npz") == orientation


@pytest.mark.parametrize("described", [REGIONS, {**REGIONS, "ignore": 3}], ids=["regions", "with ignored"])
def test_regions_are_masks(tmp_path, described):
    model, labels = make_model(tmp_path, described, classes=2)
    found = find_cases(model, labels)
    assert found.class_names == ["whole", "core"]
    samples = [case.sample() for case in found.cases]
    for sample in samples:
        truth = np.asarray(nibabel.load(labels / f"{sample.name}.nii.gz").dataobj).transpose(2, 1, 0)
        np.testing.assert_array_equal(sample.labels, np.stack([truth > 0, truth == 2]))
    assert compare(samples).names == tuple(case.name for case in found.cases)


def test_what_is_refused(tmp_path):
    model, labels = make_model(tmp_path / "ignored", {**REGIONS, "ignore": 3}, classes=2, values=4)
    with pytest.raises(InputError, match=r"case_0\.nii\.gz: holds the label 3, which is ignored"):
        find_cases(model, labels).cases[0].sample()

    model, labels = make_model(tmp_path / "undeclared", REGIONS, classes=2, values=5)
    with pytest.raises(InputError, match=r"case_0\.nii\.gz: holds the label [34], which is in no region"):
        find_cases(model, labels).cases[0].sample()

    model, labels = make_model(tmp_path / "all", LABELS, folds=(0,))
    (model / "fold_0").rename(model / "fold_all")
    with pytest.raises(InputError, match=r"fold_all.validation: holds the cases that the network was trained on"):
        find_cases(model, labels)

    model, labels = make_model(tmp_path / "twice", LABELS)
    (model / "fold_1" / "validation" / "case_0.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"fold_1/validation/case_0\.npz: .*fold_0.*same name"):
        find_cases(model, labels)

    model, labels = make_model(tmp_path / "odd", {"background": 0, "organ": "one"})
    with pytest.raises(InputError, match=r"dataset\.json: the label 'organ' must be an integer"):
        find_cases(model, labels)
    (model / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json"):
        find_cases(model, labels)
    for other in ({"labels": ["a"]}, ["labels"], {"labels": {"a": 1}}):
        (model / "dataset.json").write_text(json.dumps(other))
        assert find_cases(model, labels).class_names is None
