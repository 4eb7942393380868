"""Labels that ``decode`` writes as NIfTI lie in the patient as their reference does."""

import json
import pickle

import nibabel
import numpy as np
import pytest
from image_folders import run_cli
from typer.testing import CliRunner
from volumes import LABELS, NIBABEL, SEVERAL, SITK, SITK_TURNED, TURNED, nnunet, one_hot, save, stored

from rankseg_plugins.cli import app

pytestmark = pytest.mark.usefixtures("unpainted")

SIZES = {"R": 0.7, "L": 0.7, "A": 1.25, "P": 1.25, "S": 3.0, "I": 3.0}


@pytest.fixture
def folder(tmp_path):
    for name in ("probs", "images"):
        (tmp_path / name).mkdir()
    return tmp_path


def decode(folder, *options, reference=True, decoder="argmax"):
    given = ["--reference", folder / "images"] if reference else []
    paths = ["--probs", folder / "probs", "--out", folder / "out", *given]
    return CliRunner().invoke(app, ["decode", "--decoder", decoder, *map(str, (*paths, *options))])


def assert_lies_as(folder, path, orientation):
    """The labels of the patient, in the geometry of another file."""
    found, reference = nibabel.load(folder / "out/a.nii.gz"), nibabel.load(path)
    assert np.array_equal(np.asarray(found.dataobj), stored(LABELS, orientation))
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(found.affine, reference.affine)
    assert found.header.get_zooms()[:3] == reference.header.get_zooms()[:3]
    assert found.header["xyzt_units"] == reference.header["xyzt_units"]
    for code in ("qform_code", "sform_code"):
        assert found.header[code] == reference.header[code]


def decided(folder, *options, **more):
    done = decode(folder, "--overwrite", *options, **more)
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("orientation", SEVERAL[::2])
def test_nnunet(folder, orientation):
    """Turned by its reader or not, beside an image of the first channel, or the segmentation beside its arrays."""
    image = folder / "images/a_0000.nii.gz"
    save(image, LABELS, orientation, SIZES)
    for array, properties in ((LABELS, TURNED), (stored(LABELS, orientation), SITK)):
        np.savez(folder / "probs/a.npz", probabilities=nnunet(array))
        (folder / "probs/a.pkl").write_bytes(pickle.dumps(properties))
        decided(folder)
        assert_lies_as(folder, image, orientation)
    (folder / "probs/a.pkl").write_bytes(pickle.dumps(SITK_TURNED))
    np.savez(folder / "probs/a.npz", softmax=nnunet(LABELS))
    save(folder / "probs/a.nii.gz", np.zeros_like(LABELS), orientation, SIZES)
    decided(folder, reference=False)
    assert_lies_as(folder, image, orientation)


@pytest.mark.parametrize("orientation", SEVERAL[1::2])
def test_arrays_of_ones_own(folder, orientation):
    image = folder / "images/a.nii"
    save(image, LABELS, orientation, SIZES)
    for turned, array in (
        ("stored", stored(LABELS, orientation)),
        ("RAS", LABELS),
        ("PIR", stored(LABELS, "PIR")),
        (orientation, stored(LABELS, orientation)),
    ):
        np.save(folder / "probs/a.npy", one_hot(array))
        decided(folder, "--orientation", turned)
        assert_lies_as(folder, image, orientation)


def test_the_segmentation_that_nnunet_wrote_lies_otherwise_than_the_reference(folder):
    save(folder / "images/a.nii.gz", LABELS, "RSP")
    save(folder / "probs/a.nii.gz", LABELS, "LPS")
    np.savez(folder / "probs/a.npz", probabilities=nnunet(stored(LABELS, "LPS")))
    (folder / "probs/a.pkl").write_bytes(pickle.dumps(NIBABEL))
    decided(folder)
    assert_lies_as(folder, folder / "images/a.nii.gz", "RSP")


def test_masks(folder):
    """Those of every class along a last axis, which compare reads."""
    save(folder / "images/a.nii.gz", LABELS, "LPS")
    np.savez(folder / "probs/a.npz", probabilities=0.98 * nnunet(LABELS) + 0.01)
    decided(folder, "--orientation", "RAS", decoder="rankseg(output_mode=multilabel)")
    found = np.asarray(nibabel.load(folder / "out/a.nii.gz").dataobj)
    assert np.array_equal(found, np.stack([stored(label == LABELS, "LPS") for label in range(3)], -1))
    (folder / "out").rename(folder / "labels")
    masks = ("--decoder", "argmax(output_mode=multilabel)", "--decoder", "rankseg(output_mode=multilabel)")
    done = run_cli(folder, "--orientation", "RAS", "--json", *masks, out="report")
    assert json.loads(done.stdout)["decoders"]["argmax(output_mode=multilabel)"]["levels"]["dice_image"] == 1


def test_what_the_header_says_of_the_values_of_the_reference_is_left_out(folder):
    image = nibabel.Nifti1Image(np.full(LABELS.shape, 1000, np.int16), np.eye(4))
    image.header.set_intent("estimate", name="thickness")
    image.header["cal_max"] = 1000
    image.header.set_slope_inter(0.5, 3)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nibabel.save(image, folder / "images/a.nii.gz")
    np.save(folder / "probs/a.npy", one_hot(LABELS))
    decided(folder)
    assert_lies_as(folder, folder / "images/a.nii.gz", "RAS")
    found = nibabel.load(folder / "out/a.nii.gz")
    assert found.header.get_intent()[0] == "none"
    assert found.header["cal_max"] == 0
    assert found.dataobj.slope == 1
    assert found.dataobj.inter == 0
    assert not found.header.extensions


def test_more_labels_than_255_and_another_version_of_nifti(folder):
    nibabel.save(nibabel.Nifti2Image(np.zeros((1, 1, 1)), np.eye(4)), folder / "images/a.nii.gz")
    np.save(folder / "probs/a.npy", np.eye(300, dtype=np.float32)[299].reshape(300, 1, 1, 1))
    decided(folder)
    found = nibabel.load(folder / "out/a.nii.gz")
    assert isinstance(found, nibabel.Nifti2Image)
    assert found.get_data_dtype() == np.uint16
    assert np.asarray(found.dataobj).tolist() == [[[299]]]


def test_plain_pictures(folder):
    picture = LABELS[:, :5, 2]
    nibabel.save(nibabel.Nifti1Image(picture, np.diag([-1.0, -1, 1, 1])), folder / "images/a.nii")
    for save_probs in (
        lambda path: np.save(path.with_suffix(".npy"), one_hot(picture[..., None])[..., 0]),
        lambda path: np.savez(path.with_suffix(".npz"), probabilities=nnunet(picture[..., None])),
    ):
        save_probs(folder / "probs/a")
        decided(folder)
        assert np.array_equal(np.asarray(nibabel.load(folder / "out/a.nii.gz").dataobj), picture)
        (folder / "probs/a.npy").unlink(missing_ok=True)
    refused = decode(folder, "--orientation", "RAS", "--overwrite")
    assert refused.exit_code == 2
    assert "images/a.nii: a plain picture cannot be turned to RAS" in refused.stderr


def test_refused(folder):
    np.save(folder / "probs/a.npy", one_hot(LABELS))
    save(folder / "images/a.nii.gz", LABELS, "LPS")

    def problem(*options, **more):
        done = decode(folder, *options, **more)
        assert done.exit_code == 2
        return done.stderr

    assert "a.nii.gz: is stored as LPS: do the probabilities lie so too" in problem()
    save(folder / "images/a.nii.gz", LABELS[:, :5, :4], "RAS")
    assert "a.npy: labels of size 6 x 6 x 6 for 6 x 5 x 4 of" in problem()
    np.save(folder / "probs/a.npy", nnunet(LABELS[:, :5, :4]))
    assert "arrays (z, y, x) must be called probabilities or softmax" in problem()
    np.save(folder / "probs/a.npy", one_hot(LABELS)[..., 0])
    assert "labels of size 6 x 6 for 6 x 5 x 4 of" in problem("--orientation", "LPS")
    assert "--reference has an effect only on NIfTI labels, and these are npy" in problem("--format", "npy")
    assert "--orientation has an effect only on NIfTI labels, and these are png" in problem(
        "--orientation", "RAS", reference=False
    )
    assert "needs the affine of a volume: give --reference" in problem("--format", "nifti", reference=False)
    np.save(folder / "probs/b.npy", one_hot(LABELS))
    assert "images: holds no NIfTI file for 1 of 2 images, such as 'b'" in problem()
    (folder / "images/a.nii.gz").write_bytes(b"")
    (folder / "probs/b.npy").unlink()
    assert "images/a.nii.gz: cannot be read" in problem()


def test_a_segmentation_is_missing_beside_one_of_them(folder):
    for name in "ab":
        np.savez(folder / f"probs/{name}.npz", probabilities=nnunet(LABELS))
    save(folder / "probs/a.nii.gz", LABELS, "RAS")
    done = decode(folder, reference=False)
    assert done.exit_code == 2
    assert "b.npz: has no NIfTI file beside it, as the first image has: give --reference" in done.stderr
