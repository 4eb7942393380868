"""The network: a small U-Net, built and run by MMSegmentation from a config."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import mmseg.models  # noqa: F401  (fills the registries)
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from examples.demo.folder import IGNORE_INDEX, Folder

#: Larger images are shown to the network at this size; they are scored at their own.
LARGEST = 512
CROP = 128
TRAIN_BATCH = 8
EVALUATION_BATCH = 4
_names = itertools.count()


def needs_resize(folder: Folder) -> bool:
    """Whether an image is larger than the network is shown."""
    return max(max(pair.size) for pair in folder.train + folder.val) > LARGEST


def make_config(folder: Folder, work_dir: Path | None = None, iterations: int = 1, **model: Any) -> Config:
    """The whole MMSegmentation config: network, data, training and evaluation.

    Args:
        folder: the data.
        work_dir: where a Runner keeps its log files; None where only a dataloader is built.
        iterations: number of training steps.
        model: keys that go into ``model``, such as ``type`` or ``test_cfg``.
    """
    # Several runs in one process must not share a name.
    name = f"demo{next(_names)}"
    resize = [{"type": "Resize", "scale": (LARGEST, LARGEST), "keep_ratio": True}] if needs_resize(folder) else []
    return Config(
        {
            "default_scope": "mmseg",
            "experiment_name": name,
            "work_dir": str(work_dir or folder.root),
            "model": {**_unet(len(folder.classes)), **model},
            "train_dataloader": _loader(folder, "train", _train_pipeline(resize)),
            "test_dataloader": _loader(folder, "val", _test_pipeline(resize)),
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": iterations + 1},
            "test_cfg": {"type": "TestLoop"},
            "test_evaluator": [{"type": "IoUMetric"}],
            "optim_wrapper": {
                "type": "OptimWrapper",
                "optimizer": {"type": "AdamW", "lr": 1e-2, "weight_decay": 1e-4},
            },
            "default_hooks": {"logger": None, "checkpoint": None},
            "visualizer": {"type": "SegLocalVisualizer", "vis_backends": [], "name": name},
            "env_cfg": {"mp_cfg": {"mp_start_method": "fork"}, "dist_cfg": {"backend": "gloo"}},
            "randomness": {"seed": 0},
            "log_processor": {"by_epoch": False},
            "log_level": "ERROR",
        }
    )


def _unet(classes: int) -> dict[str, Any]:
    stages = 4
    return {
        "type": "EncoderDecoder",
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [127.5] * 3,
            "std": [64.0] * 3,
            "bgr_to_rgb": True,
            "size": (CROP, CROP),
            "pad_val": 0,
            "seg_pad_val": IGNORE_INDEX,
            "test_cfg": {"size_divisor": 2**stages},
        },
        "backbone": {
            "type": "UNet",
            "base_channels": 16,
            "num_stages": stages,
            "strides": (2, *(1,) * (stages - 1)),
            "enc_num_convs": (2,) * stages,
            "dec_num_convs": (1,) * (stages - 1),
            "downsamples": (True,) * (stages - 1),
            "enc_dilations": (1,) * stages,
            "dec_dilations": (1,) * (stages - 1),
        },
        "decode_head": {
            "type": "FCNHead",
            "in_channels": 16,
            "in_index": stages - 1,
            "channels": 16,
            "num_convs": 0,
            "concat_input": False,
            "dropout_ratio": 0,
            "init_cfg": {"type": "Normal", "std": 0.1, "override": {"name": "conv_seg"}},
            "num_classes": classes,
            "align_corners": False,
            "loss_decode": {"type": "CrossEntropyLoss", "avg_non_ignore": True},
        },
        "train_cfg": {},
        "test_cfg": {"mode": "whole"},
    }


def _loader(folder: Folder, split: str, pipeline: list[dict[str, Any]]) -> dict[str, Any]:
    train = split == "train"
    one_size = len({pair.size for pair in folder.val}) == 1
    return {
        "batch_size": TRAIN_BATCH if train else EVALUATION_BATCH if one_size else 1,
        "num_workers": 0,
        "sampler": {"type": "InfiniteSampler" if train else "DefaultSampler", "shuffle": train},
        "dataset": {
            "type": "BaseSegDataset",
            "data_root": str(folder.root),
            "data_prefix": {"img_path": f"img_dir/{split}", "seg_map_path": f"ann_dir/{split}"},
            "img_suffix": folder.image_suffix,
            "seg_map_suffix": ".png",
            "metainfo": {"classes": folder.classes},
            "pipeline": pipeline,
        },
    }


def _train_pipeline(resize: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        *resize,
        {"type": "RandomCrop", "crop_size": (CROP, CROP)},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackSegInputs"},
    ]


def _test_pipeline(resize: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # The mask is loaded after the resize and keeps its size: scores are those of the original pixels.
    return [{"type": "LoadImageFromFile"}, *resize, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]


def build_runner(config: Config) -> Runner:
    """MMSegmentation's Runner, on the CPU whatever else there is, so that every machine does the same."""
    runner = Runner.from_cfg(config)
    runner.model.to("cpu")
    return runner


@torch.no_grad()
def logits_and_truth(network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Run an MMSegmentation network on a batch of its own dataloader, outside of its Runner.

    Args:
        network: a segmentor.
        batch: images of one original size, with masks.

    Returns:
        Logits (B, C, H, W) and labels (B, H, W) at the images' original size.
    """
    samples = network.test_step(batch)
    logits = torch.stack([sample.seg_logits.data for sample in samples])
    return logits, torch.stack([sample.gt_sem_seg.data[0] for sample in samples]).long().to(logits.device)
