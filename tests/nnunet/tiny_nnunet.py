"""A trained model of nnU-Net, as it lies on disk, with a tiny network at random; and images for it."""

import nibabel
import numpy as np
import torch

from examples.nnunet_model import make_dataset, make_network, make_plans, write_model

LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS = {"background": 0, "whole": [1, 2], "lesion": 2}


def make_model(folder, labels=LABELS, reader="SimpleITKIO", file_ending=".nii.gz", ignore=False, **configuration):
    """Write the folder of a trained model."""
    plans = make_plans(reader, 2 if file_ending == ".png" else 3, **configuration)
    dataset = make_dataset({**labels, "ignore": 3} if ignore else labels, file_ending)
    torch.manual_seed(0)
    network = make_network(plans, dataset)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2)
    write_model(folder, plans, dataset, network)
    return folder


def make_image(path, seed=0):
    """A volume that lies neither as RAS nor as LPS, a rim of zeros around it."""
    values = np.zeros((20, 24, 14), np.float32)
    values[3:18, 2:22, 2:13] = np.random.default_rng(seed).random((15, 20, 11)) + 0.1
    affine = np.array([[0, -1.5, 0, 10], [2.0, 0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return affine
