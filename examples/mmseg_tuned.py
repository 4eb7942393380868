"""RankSEG in MMSegmentation's own Runner: a decoder tuned while a run validates, tested beside argmax and RankSEG.

Train a small U-Net on generated images. Its last validation, on images of its own, tunes the decoder by
``RankSEGTuningHook``, which writes it beside the checkpoint; then the checkpoint is tested three times on other images.
Run it from the checkout, under a minute on a CPU::

    python -m examples.mmseg_tuned

All is in the config: the hook in ``custom_hooks``, and for a test ``model.type`` and ``model.test_cfg.rankseg``. Every
config of MMSegmentation takes them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from examples.demo import microscopy
from examples.demo.folder import Folder, read_folder
from examples.demo.network import build_runner, make_config
from examples.score_table import print_columns
from rankseg_plugins.calibration import TunedDecoder


def make_data(root: Path, train: int, val: int, seed: int) -> Folder:
    """Images and masks in MMSegmentation's layout."""
    microscopy.generate(root, train, val, seed)
    return read_folder(root, classes=microscopy.CLASSES)


def train_and_tune(folder: Folder, work_dir: Path, iterations: int) -> Path:
    """A training as usual that ends with a validation; the checkpoint, beside which the hook writes the decoder."""
    config = make_config(folder, work_dir, iterations)
    config.train_cfg.val_interval = iterations
    config.val_dataloader, config.val_cfg = config.test_dataloader, {"type": "ValLoop"}
    config.val_evaluator = config.test_evaluator
    config.param_scheduler = {"type": "PolyLR", "power": 0.9, "end": iterations, "by_epoch": False}
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "by_epoch": False, "interval": iterations}
    config.custom_hooks = [{"type": "rankseg_plugins.mmseg.RankSEGTuningHook", "objective": "dice_image"}]
    build_runner(config).train()
    return work_dir / f"iter_{iterations}.pth"


def score(folder: Folder, work_dir: Path, checkpoint: Path, rankseg: dict | None) -> dict[str, float]:
    """A test of the images of a folder, decided as ``model.test_cfg.rankseg`` says; the scores in percent."""
    config = make_config(folder, work_dir, type="rankseg_plugins.mmseg.RankSEGEncoderDecoder")
    config.model.test_cfg.rankseg = rankseg
    config.load_from = str(checkpoint)
    config.test_evaluator = [{"type": "rankseg_plugins.mmseg.MultiLevelIoUMetric"}]
    return build_runner(config).test()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/mmseg"), help="folder for all that is written")
    parser.add_argument("--iterations", type=int, default=150, help="training steps, of eight images each")
    parser.add_argument("--images", type=int, default=80, help="for validation: half to tune on, half to score")
    options = parser.parse_args()

    half = options.images // 2
    tuning = make_data(options.out / "data", 96, half, seed=0)
    checkpoint = train_and_tune(tuning, options.out, options.iterations)
    decoder = checkpoint.with_suffix(".rankseg.json")
    print(f"\nOn {half} validation images: {TunedDecoder.load(decoder).evidence['verdict']}\n")

    others = make_data(options.out / "others", 1, options.images - half, seed=1)  # a data set has a training image
    ways = {"argmax": None, "RankSEG": {"metric": "dice"}, "tuned": {"tuned": str(decoder)}}
    print_columns({name: score(others, options.out, checkpoint, rankseg) for name, rankseg in ways.items()})


if __name__ == "__main__":
    main()
