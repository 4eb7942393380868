"""A data set, networks and runs small enough for tests, with the real toolkit."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from PIL import Image
from places import ROOT

CLASSES = ("background", "body", "nucleus", "filament")
PALETTE = [[0, 0, 0], [60, 120, 220], [230, 160, 40], [200, 60, 90]]
SIZES = ((40, 56), (48, 48), (33, 61))
SCALE = (64, 48)  # width, height of the network's input
DISTRIBUTED = Path(__file__).with_name("run_distributed.py")
_names = itertools.count()


def write_dataset(root, count=7, classes=4, seed=0, ignored=True):
    """Images `img_dir/val/*.png` with blobs of every class and labels `ann_dir/val/*.png`; 255 = ignore."""
    rng = np.random.default_rng(seed)
    for folder in ("img_dir/val", "ann_dir/val"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        height, width = SIZES[index % len(SIZES)]
        rows, columns = np.mgrid[:height, :width]
        label = np.zeros((height, width), np.uint8)
        for _ in range(6):
            row, column, radius = rng.integers(height), rng.integers(width), rng.integers(3, 12)
            label[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = rng.integers(1, classes)
        image = np.array(PALETTE, np.float32)[label] + rng.normal(0, 50, (height, width, 3)) + 60
        if ignored:
            label[:3, : width // 2] = 255
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"img_dir/val/{index:02d}.png")
        Image.fromarray(label).save(root / f"ann_dir/val/{index:02d}.png")
    return root


def fcn_head(classes, channels=None, **options):
    one = channels == 1
    return {
        "type": "FCNHead",
        "in_channels": 8,
        "in_index": 2,
        "channels": 8,
        "num_convs": 1,
        "concat_input": False,
        "num_classes": classes,
        "out_channels": channels,
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss", "use_sigmoid": one},
        **({"threshold": 0.5} if one else {}),
        **options,
    }


def model(kind="EncoderDecoder", classes=4, channels=None, rankseg=None, mode="whole", **options):
    """Config of a UNet with 3 stages and 8 channels; `kind` may be a dotted path, `channels` the output channels."""
    head = fcn_head(classes, channels)
    config = {
        "type": kind,
        "data_preprocessor": {
            "type": "SegDataPreProcessor",
            "mean": [123.675, 116.28, 103.53],
            "std": [58.395, 57.12, 57.375],
            "bgr_to_rgb": True,
            "pad_val": 0,
            "seg_pad_val": 255,
            "size_divisor": 4,
            "test_cfg": {"size_divisor": 32},
        },
        "backbone": {
            "type": "UNet",
            "base_channels": 8,
            "num_stages": 3,
            "strides": (1, 1, 1),
            "enc_num_convs": (1, 1, 1),
            "dec_num_convs": (1, 1),
            "downsamples": (True, True),
            "enc_dilations": (1, 1, 1),
            "dec_dilations": (1, 1),
        },
        "decode_head": head,
        "train_cfg": {},
        "test_cfg": {"mode": mode},
    }
    if "Cascade" in str(kind):
        second = {**head, "type": "OCRHead", "ocr_channels": 8}
        for key in ("num_convs", "concat_input"):
            second.pop(key)
        config.update(num_stages=2, decode_head=[head, second])
    if mode == "slide":
        config["test_cfg"].update(crop_size=(32, 32), stride=(20, 20))
    if rankseg is not None:
        config["test_cfg"]["rankseg"] = rankseg
    config.update(options)
    return config


def build(model_config, seed=0):
    """Build a network with weights whose probabilities are far from uniform, the same at every call."""
    network = MODELS.build(model_config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            gain = 3.0 if "conv_seg" in name else 1.5
            parameter.data.copy_(values * gain / parameter[0].numel() ** 0.5)
        elif name.endswith("bias"):
            parameter.data.copy_(values * 0.3)
    return network.eval()


def save_checkpoint(network, path, classes=CLASSES, palette=PALETTE):
    meta = {"dataset_meta": {"classes": classes, "palette": palette[: len(classes)]}}
    torch.save({"meta": meta, "state_dict": network.state_dict()}, path)
    return str(path)


def in_windows(full, count=3):
    """Turn the test data into `count` windows side by side of every file, as a tiled scan: they share their path."""
    full.custom_imports = {"imports": ["tiny"]}
    full.test_dataloader.batch_size = 1
    source = full.test_dataloader.dataset
    source.update(type="Windows", count=count)
    names = ("LoadImageFromFile", "LoadAnnotations", "CutWindow", "PackSegInputs")
    source.pipeline = [{"type": name} for name in names]
    return full


@DATASETS.register_module()
class Windows(BaseSegDataset):
    """Several items for each file."""

    def __init__(self, count, **options):
        self.count = count
        super().__init__(**options)

    def load_data_list(self):
        return [{**item, "window": (at, self.count)} for item in super().load_data_list() for at in range(self.count)]


@TRANSFORMS.register_module()
class CutWindow(BaseTransform):
    def transform(self, results):
        at, count = results["window"]
        width = results["img"].shape[1] // count
        for key in ("img", "gt_seg_map"):
            results[key] = np.ascontiguousarray(results[key][:, at * width : (at + 1) * width])
        results["ori_shape"] = results["img_shape"] = results["img"].shape[:2]
        return results


@TRANSFORMS.register_module()
class PathsAs(BaseTransform):
    """Hands paths on as bytes or `Path`, as loaders of other projects may."""

    def __init__(self, kind):
        self.kind = {"bytes": os.fsencode, "Path": Path}[kind]

    def transform(self, results):
        return {**results, "img_path": self.kind(results["img_path"])}


@TRANSFORMS.register_module()
class OtherPicture(BaseTransform):
    """Names a file that is not there, has other bands than a photograph, or another size."""

    def __init__(self, fault, folder):
        self.path = Path(folder) / "odd.tif"
        if fault == "bands":
            np.save(self.path, np.zeros((40, 56, 5)))
            self.path.with_suffix(".tif.npy").rename(self.path)
        elif fault == "size":
            Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(self.path)

    def transform(self, results):
        return {**results, "img_path": str(self.path)}


def config(network, data, work_dir, batch_size=2, evaluator=None, classes=CLASSES, **options):
    """A whole config around a model config: data, loops, runtime."""
    name = f"tiny{next(_names)}"
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "scale": SCALE, "keep_ratio": False},
        {"type": "LoadAnnotations"},
        {"type": "PackSegInputs"},
    ]
    source = {
        "type": "BaseSegDataset",
        "data_root": str(data),
        "data_prefix": {"img_path": "img_dir/val", "seg_map_path": "ann_dir/val"},
        "img_suffix": ".png",
        "seg_map_suffix": ".png",
        "metainfo": {"classes": classes, "palette": PALETTE[: len(classes)]},
        "pipeline": pipeline,
        "serialize_data": False,  # which collects garbage of the whole process
    }
    loader = {
        "batch_size": batch_size,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": source,
    }
    return Config(
        {
            "default_scope": "mmseg",
            "model": network,
            "work_dir": str(work_dir),
            "experiment_name": name,
            "test_pipeline": pipeline,
            "test_dataloader": loader,
            "test_evaluator": evaluator or {"type": "IoUMetric"},
            "test_cfg": {"type": "TestLoop"},
            "env_cfg": {"mp_cfg": {"mp_start_method": "fork"}, "dist_cfg": {"backend": "gloo"}},
            "vis_backends": [{"type": "LocalVisBackend"}],
            "visualizer": {
                "type": "SegLocalVisualizer",
                "vis_backends": [{"type": "LocalVisBackend"}],
                "name": name,
            },
            "tta_model": {"type": "SegTTAModel"},
            "log_level": "WARNING",
            "log_processor": {"by_epoch": False},
            "default_hooks": {"visualization": {"type": "SegVisualizationHook"}},
            "load_from": None,
            "randomness": {"seed": 0},  # or the weights would be others in every run
            **options,
        },
        format_python_code=False,  # several times a run, and nobody reads it
    )


@METRICS.register_module()
class KeepSamples(BaseMetric):
    """Keeps every data sample, as the evaluator sees it."""

    def __init__(self):
        super().__init__(prefix="kept")
        self.kept = []

    def process(self, data_batch, data_samples):
        self.kept.extend(data_samples)
        self.results.extend(0 for _ in data_samples)

    def compute_metrics(self, results):
        return {"samples": len(results)}


def evaluate(full_config, weights=None):
    """Runner.test: the metrics, and the data samples that the evaluator received."""
    full_config = full_config.copy()
    evaluators = full_config.test_evaluator
    evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
    full_config.test_evaluator = [*evaluators, {"type": "KeepSamples"}]
    runner = Runner.from_cfg(full_config)
    if weights is not None:
        runner.model.load_state_dict(weights)
    return runner.test(), runner.test_loop.evaluator.metrics[-1].kept


def environment():
    """Environment of a process that tests start: this checkout, and mmcv's stub where it is needed."""
    here = Path(__file__).parent
    paths = [str(path) for path in (ROOT, here / "mmcv_stub", here, here.parent)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


def tool(name):
    """A script of the installed toolkit, such as `test.py`."""
    import mmseg

    return [str(Path(mmseg.__file__).parent / ".mim" / "tools" / name)]


def process(command, folder):
    """Run a Python process of its own with this checkout; one that hangs fails after five minutes."""
    options = {"capture_output": True, "text": True, "check": False, "timeout": 300}
    command = [sys.executable, *command]
    return subprocess.run([str(word) for word in command], cwd=folder, env=environment(), **options)
