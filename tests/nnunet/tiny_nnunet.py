"""A trained model of nnU-Net, as it lies on disk, with a tiny network at random; and images for it."""

import json

import nibabel
import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS = {"background": 0, "whole": [1, 2], "lesion": 2}
RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def plans(reader, dimensions):
    conv = f"torch.nn.modules.conv.Conv{dimensions}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d"
    network = {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": conv,
        "kernel_sizes": [[3] * dimensions] * 2,
        "strides": [[1] * dimensions, [2] * dimensions],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16] * dimensions,
        "spacing": [1.5] * dimensions,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**RESAMPLING, "order": 3},
        "resampling_fn_seg_kwargs": {**RESAMPLING, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": RESAMPLING,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": network,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": [2, 0, 1] if dimensions == 3 else [0, 1, 2],
        "transpose_backward": [1, 2, 0] if dimensions == 3 else [0, 1, 2],
        "configurations": {"tiny": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }


def make_model(folder, labels=LABELS, reader="SimpleITKIO", file_ending=".nii.gz", ignore=False):
    """Write the folder of a trained model."""
    dimensions = 2 if file_ending == ".png" else 3
    found = plans(reader, dimensions)
    labels = {**labels, "ignore": 3} if ignore else labels
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "file_ending": file_ending,
        "numTraining": 1,
        "regions_class_order": [1, 2],
    }
    (folder / "fold_0").mkdir(parents=True)
    for name, content in (("plans", found), ("dataset", dataset)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    manager = PlansManager(found)
    configuration = manager.get_configuration("tiny")
    torch.manual_seed(0)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    network = nnUNetTrainer.build_network_architecture(manager, configuration, 1, heads, enable_deep_supervision=False)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "tiny"},
        "inference_allowed_mirroring_axes": (0,),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


def make_image(path, seed=0):
    """A volume that lies neither as RAS nor as LPS, a rim of zeros around it."""
    values = np.zeros((20, 24, 14), np.float32)
    values[3:18, 2:22, 2:13] = np.random.default_rng(seed).random((15, 20, 11)) + 0.1
    affine = np.array([[0, -1.5, 0, 10], [2.0, 0, 0, -5], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return affine
