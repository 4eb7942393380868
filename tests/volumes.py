"""A patient in NIfTI files of every orientation, and as toolkits hand over arrays."""

import itertools

import nibabel
import numpy as np

#: The patient: (x, y, z), right, anterior and superior are where the indices grow. No side equals another.
LABELS = np.zeros((6, 6, 6), np.uint8)
LABELS[4:, 1:4, 2:] = 1
LABELS[0, 5, 1:3] = 2
ORIENTATIONS = [
    "".join(sides) for order in itertools.permutations(("RL", "AP", "SI")) for sides in itertools.product(*order)
]
SEVERAL = [*ORIENTATIONS[:8], *ORIENTATIONS[8::5]]
SITK, NIBABEL = {"sitk_stuff": {"spacing": (1.0, 1.0, 1.0)}}, {"nibabel_stuff": {"original_affine": np.eye(4)}}
TURNED = {"nibabel_stuff": {"original_affine": np.eye(4), "reoriented_affine": np.eye(4)}}
SITK_TURNED = {"sitk_stuff": {"spacing": (1.0, 1.0, 1.0), "original_orientation": "LPS"}}


def stored(labels, orientation):
    """What a scanner that stores volumes so would have written: worked out by hand, not by the code that is tested."""
    opposite = dict(zip("RLAPSI", "LRPAIS", strict=True))
    for axis, side in enumerate("RAS"):
        if side not in orientation:
            labels = np.flip(labels, axis)
    order = ["RAS".index(side if side in "RAS" else opposite[side]) for side in orientation]
    return labels.transpose(order)


def save(path, labels, orientation, sizes=None):
    affine = np.diag([0.0, 0, 0, 1])
    for axis, side in enumerate(orientation):
        affine["RLAPSI".index(side) // 2, axis] = (1 if side in "RAS" else -1) * (1 if sizes is None else sizes[side])
    image = nibabel.Nifti1Image(stored(labels, orientation), affine)
    assert "".join(nibabel.aff2axcodes(image.affine)) == orientation
    nibabel.save(image, path)


def one_hot(labels):
    return np.eye(3, dtype=np.float32)[labels].transpose(3, 0, 1, 2)


def nnunet(array):
    """(x, y, z) as nnU-Net's (C, z, y, x)."""
    return one_hot(array.transpose(2, 1, 0))
