"""The folder of a trained model as nnU-Net leaves it, with a network so small that nothing waits for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

#: The name of the one configuration.
CONFIGURATION = "tiny"
RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}


def make_plans(reader: str, dimensions: int, features: tuple[int, int] = (4, 8), **configuration: Any) -> dict:
    """What nnU-Net plans for a data set.

    Args:
        reader: nnU-Net's class that reads images.
        dimensions: 2 or 3.
        features: of the two stages of the network.
        **configuration: what is to be another than here.
    """
    convolution = f"torch.nn.modules.conv.Conv{dimensions}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d"
    network = {
        "n_stages": 2,
        "features_per_stage": list(features),
        "conv_op": convolution,
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
    planned = {
        "data_identifier": CONFIGURATION,
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
        **configuration,
    }
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "transpose_forward": [2, 0, 1] if dimensions == 3 else [0, 1, 2],
        "transpose_backward": [1, 2, 0] if dimensions == 3 else [0, 1, 2],
        "configurations": {CONFIGURATION: planned},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
    }


def make_dataset(labels: dict[str, Any], file_ending: str = ".nii.gz") -> dict:
    """What nnU-Net is told of a data set; ``labels`` are labels, or regions, by name."""
    return {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "file_ending": file_ending,
        "numTraining": 1,
        "regions_class_order": [1, 2],
    }


def make_network(plans: dict, dataset: dict) -> torch.nn.Module:
    """The network of the plans, at random."""
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    channels = determine_num_input_channels(manager, configuration, dataset)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    return nnUNetTrainer.build_network_architecture(
        manager, configuration, channels, heads, enable_deep_supervision=False
    )


def write_model(folder: Path, plans: dict, dataset: dict, network: torch.nn.Module) -> None:
    """Write the folder of a model that was trained on one fold."""
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    for name, content in (("plans", plans), ("dataset", dataset)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": CONFIGURATION},
        "inference_allowed_mirroring_axes": (0,),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
