"""NIfTI labels beside arrays that lie as the file does, or were turned when the image was read."""

import json
import pickle
import struct

import nibabel
import numpy as np
import pytest
import torch
from image_folders import run_cli
from volumes import LABELS, NIBABEL, SEVERAL, SITK, SITK_TURNED, TURNED, nnunet, one_hot, save, stored

from rankseg_plugins.files.cases import find_cases
from rankseg_plugins.files.errors import InputError

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "probs").mkdir()
    (tmp_path / "labels").mkdir()
    return tmp_path


def sample_of(folder, orientation=None):
    return find_cases(folder / "probs", folder / "labels", orientation).cases[0].sample()


def agreement(folder, orientation=None):
    """Share of the voxels whose label is that of the argmax: 1 if both were paired rightly."""
    sample = sample_of(folder, orientation)
    return (sample.probs.argmax(0) == sample.labels).double().mean().item()


@pytest.mark.parametrize("orientation", SEVERAL)
def test_reorienting_reader(folder, orientation):
    """Its arrays are RAS, however labels are stored."""
    save(folder / "labels/a.nii.gz", LABELS, orientation)
    np.savez(folder / "probs/a.npz", probabilities=nnunet(LABELS))
    for properties in (TURNED, SITK_TURNED):
        (folder / "probs/a.pkl").write_bytes(pickle.dumps(properties))
        assert agreement(folder) == 1
    (folder / "probs/a.pkl").unlink()
    assert agreement(folder, "RAS") == 1
    for reader in ("NibabelIOWithReorient", "SimpleITKIOWithReorient"):
        (folder / "probs/plans.json").write_text(json.dumps({"image_reader_writer": reader}))
        assert agreement(folder) == 1


@pytest.mark.parametrize("orientation", SEVERAL)
def test_plain_readers(folder, orientation):
    """Their arrays lie as the image was stored, which is mostly how its labels are."""
    save(folder / "labels/a.nii.gz", LABELS, orientation)
    np.savez(folder / "probs/a.npz", probabilities=nnunet(stored(LABELS, orientation)))
    for properties, protocol in ((SITK, 4), (NIBABEL, 2), ({"itk_direction": (1.0,)}, 5)):
        (folder / "probs/a.pkl").write_bytes(pickle.dumps(properties, protocol))
        assert agreement(folder) == 1
    (folder / "probs/a.pkl").unlink()
    assert agreement(folder, "stored") == 1
    (folder / "probs/plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    assert agreement(folder) == 1


@pytest.mark.parametrize("orientation", SEVERAL)
def test_spacing_lies_as_the_labels_do(folder, orientation):
    """From right to left a voxel is 0.7 mm, then 1.25 and 3."""
    sizes = {"R": 0.7, "L": 0.7, "A": 1.25, "P": 1.25, "S": 3.0, "I": 3.0}
    save(folder / "labels/a.nii.gz", LABELS, orientation, sizes)
    ours = tuple(sizes[side] for side in orientation)
    for array, turned, expected in (
        (one_hot(stored(LABELS, orientation)), "stored", ours),
        (one_hot(LABELS), "RAS", (0.7, 1.25, 3.0)),
    ):
        np.savez(folder / "probs/a.npz", probs=array)
        assert sample_of(folder, turned).spacing == expected
        np.savez(folder / "probs/a.npz", probabilities=array.transpose(0, 3, 2, 1))
        assert sample_of(folder, turned).spacing == expected[::-1]


def test_spacing_of_plain_pictures_and_units(folder):
    picture = LABELS[:, :, 2]
    image = nibabel.Nifti1Image(picture, np.diag([0.5, 2, 1, 1]))
    np.save(folder / "probs/a.npy", np.eye(3, dtype=np.float32)[picture].transpose(2, 0, 1))
    for unit, factor in (("mm", 1), ("meter", 1000), ("micron", 0.001)):
        image.header.set_xyzt_units(unit)
        nibabel.save(image, folder / "labels/a.nii")
        assert sample_of(folder).spacing == (0.5 * factor, 2 * factor)
    np.savez(folder / "probs/b.npz", probabilities=np.eye(3, dtype=np.float32)[picture.T].transpose(2, 0, 1)[:, None])
    (folder / "labels/a.nii").rename(folder / "labels/b.nii")
    assert sample_of(folder).spacing == (1, 0.002, 0.0005)


def test_labels_that_are_stored_otherwise_than_the_image(folder):
    """The segmentation that nnU-Net wrote beside its probabilities has the header of the image."""
    save(folder / "labels/a.nii.gz", LABELS, "RSP")
    np.savez(folder / "probs/a.npz", probabilities=nnunet(stored(LABELS, "LPS")))
    (folder / "probs/a.pkl").write_bytes(pickle.dumps(SITK))
    assert agreement(folder) < 1
    save(folder / "probs/a.nii.gz", LABELS, "LPS")
    assert agreement(folder) == 1
    (folder / "probs/a.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"probs/a.nii.gz: cannot be read"):
        agreement(folder)


@pytest.mark.parametrize(
    ("name", "array"), [("probabilities", nnunet(LABELS)), ("softmax", nnunet(LABELS)), ("probs", one_hot(LABELS))]
)
def test_refused_unless_something_tells(folder, name, array):
    np.savez(folder / "probs/a.npz", **{name: array})
    save(folder / "labels/a.nii.gz", LABELS, "RAS")
    assert agreement(folder) == 1  # the two ways are one
    save(folder / "labels/a.nii.gz", LABELS, "LPS")
    with pytest.raises(InputError, match=r"a.nii.gz: is stored as LPS: .* or in RAS, .* Say --orientation stored or"):
        agreement(folder)
    assert agreement(folder, "RAS") == 1
    assert agreement(folder, "stored") < 1
    # Files that know nothing, or are not nnU-Net's, decide nothing.
    (folder / "probs/a.pkl").write_bytes(pickle.dumps({"shape": (6, 6, 6)}))
    (folder / "probs/plans.json").write_text('["NibabelIOWithReorient"]')
    with pytest.raises(InputError, match="is stored as LPS"):
        agreement(folder)


@pytest.mark.parametrize("orientation", ["LPS", "SRA", "PIR"])
def test_arrays_of_ones_own(folder, orientation):
    """(x, y, z), as nibabel and MONAI read them, turned to whatever was asked for."""
    np.save(folder / "probs/a.npy", one_hot(stored(LABELS, orientation)))
    for each in SEVERAL:
        save(folder / "labels/a.nii", LABELS, each)
        assert agreement(folder, orientation) == 1


def test_all_images_in_one_file(folder):
    for name, orientation in (("a", "LPS"), ("b", "RAS")):
        save(folder / f"labels/{name}.nii.gz", LABELS, orientation)
    for key, array in (("probs", one_hot(LABELS)), ("probabilities", nnunet(LABELS))):
        np.savez(folder / "all.npz", names=["a", "b"], **{key: np.stack([array, array])})
        for case in find_cases(folder / "all.npz", folder / "labels", "RAS").cases:
            sample = case.sample()
            assert torch.equal(sample.probs.argmax(0), sample.labels)


def test_masks_and_needless_axes(folder):
    affine = np.diag([-1.0, -1, 1, 1])
    np.savez(folder / "probs/a.npz", probabilities=nnunet(LABELS))
    nibabel.save(nibabel.Nifti1Image(stored(LABELS, "LPS")[..., None, None], affine), folder / "labels/a.nii")
    assert agreement(folder, "RAS") == 1
    masks = np.stack([label == LABELS for label in range(3)], -1).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(masks[::-1, ::-1], affine), folder / "labels/a.nii")
    for key, array in (("probabilities", nnunet(LABELS)), ("probs", one_hot(LABELS))):
        np.savez(folder / "probs/a.npz", **{key: array})
        sample = find_cases(folder / "probs", folder / "labels", "RAS").cases[0].sample()
        assert torch.equal(sample.probs.long(), sample.labels)
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4, 5, 6), np.uint8), affine), folder / "labels/a.nii")
    with pytest.raises(InputError, match=r"must have the axes x, y, z, .* got the shape \(2, 3, 4, 5, 6\)"):
        agreement(folder, "RAS")


def test_plain_pictures_have_no_orientation(folder):
    labels = LABELS[:, :5, 2]
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([-1.0, -1, 1, 1])), folder / "labels/a.nii")
    np.savez(folder / "probs/a.npz", probabilities=nnunet(labels[..., None]))
    assert agreement(folder) == 1
    with pytest.raises(InputError, match="a plain picture cannot be turned to RAS"):
        agreement(folder, "RAS")


def test_scaled_values(folder):
    """A header may say that what is stored is to be multiplied."""
    path = folder / "labels/a.nii"
    np.savez(folder / "probs/a.npz", probs=one_hot(LABELS))
    nibabel.save(nibabel.Nifti1Image(2 * LABELS, np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[112:116] = struct.pack("<f", 0.5)  # scl_slope
    path.write_bytes(data)
    assert agreement(folder) == 1
    data[112:116] = struct.pack("<f", 0.3)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a.nii: labels must be whole numbers"):
        agreement(folder)


def test_headers_that_tell_nothing(folder):
    np.savez(folder / "probs/a.npz", probs=one_hot(LABELS))
    nibabel.save(nibabel.Nifti1Image(LABELS, np.eye(4)), folder / "labels/a.nii")
    data = bytearray((folder / "labels/a.nii").read_bytes())
    data[280:296] = bytes(16)  # srow_x
    (folder / "labels/a.nii").write_bytes(data)
    with pytest.raises(InputError, match=r"a.nii: cannot be read: its header does not say how its axes lie"):
        agreement(folder)


def test_size_of_arrays_in_the_order_of_nnunet(folder):
    labels = LABELS[:, :5, :4]
    np.savez(folder / "probs/a.npz", probs=nnunet(labels))
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "labels/a.nii")
    with pytest.raises(InputError, match=r"size 6 x 5 x 4 for .* 4 x 5 x 6 .*\(z, y, x\) must be called probabilities"):
        agreement(folder)


def dice(done):
    return json.loads(done.stdout)["decoders"]["argmax"]["levels"]["dice_image"]


def test_command(folder):
    """Dice by hand: the 24 voxels of class 1 have no voxel in common with their mirror image in x."""
    probs = nnunet(LABELS)
    np.savez(folder / "probs/a.npz", probabilities=0.98 * probs + 0.02 / 3)
    save(folder / "labels/a.nii.gz", LABELS, "LAS")
    refused = run_cli(folder, "--json")
    assert refused.returncode == 2
    assert "a.nii.gz: is stored as LAS" in refused.stderr
    turned = run_cli(folder, "--json", "--exclude", 0, "--exclude", 2, "--orientation", "RAS")
    assert turned.returncode == 0, turned.stderr
    assert dice(turned) == 1
    other = run_cli(folder, "--json", "--exclude", 0, "--exclude", 2, "--orientation", "stored")
    assert "belongs to a run with other orientation" in other.stderr
    other = run_cli(folder, "--json", "--exclude", 0, "--exclude", 2, "--orientation", "stored", out="stored")
    assert dice(other) == 0
    (folder / "probs/a.pkl").write_bytes(pickle.dumps(TURNED))
    assert dice(run_cli(folder, "--json", "--exclude", 0, "--exclude", 2, out="told")) == 1
    wrong = run_cli(folder, "--orientation", "RAX", out="x")
    assert wrong.returncode == 2
    assert "--orientation must be 'stored' or three letters such as RAS or LPS, got 'RAX'" in wrong.stderr
