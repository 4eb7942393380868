"""``python -m benchmarks.datasets.mmseg_probs CONFIG CHECKPOINT IMAGES OUT``: probabilities of an MMSegmentation model.

One compressed float16 ``.npz`` for each image, at the size of the image, ready for ``rankseg-plugins compare``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.apis import inference_model, init_model
from mmseg.registry import MODELS

from rankseg_plugins.mmseg import make_rankseg

SUFFIXES = (".png", ".jpg", ".jpeg")


def export(config: Path, checkpoint: Path, images: Path, out: Path, device: str = "cpu") -> int:
    """Write the probabilities of every picture in ``images`` and the folders below it.

    Returns:
        The number of pictures.
    """
    init_default_scope("mmseg")
    loaded = Config.fromfile(config)
    loaded.model.type = make_rankseg(MODELS.get(loaded.model.type))
    model = init_model(loaded, str(checkpoint), device)
    out.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in paths:
        with model.probabilities_only():
            probs = inference_model(model, str(path)).seg_logits.data
        np.savez_compressed(out / f"{path.stem}.npz", probs=probs.half().cpu().numpy())
    return len(paths)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datasets.mmseg_probs", description=__doc__)
    for name in ("config", "checkpoint", "images", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    count = export(options.config, options.checkpoint, options.images, options.out, options.device)
    print(f"probabilities of {count} images in {options.out}")


if __name__ == "__main__":
    main()
