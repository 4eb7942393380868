"""RankSEG on scenes that TorchGeo's ``SemanticSegmentationTask`` sees tile by tile.

A small U-Net is trained on tiles of generated scenes, GeoTIFFs as they come from elsewhere. The probabilities that
``predict_step`` gives for overlapping tiles are added up in a file as large as the scene, and each scene is decided on
once: by argmax, by RankSEG, and by a decoder tuned on other scenes. RankSEG tile by tile stands beside them. Run it
from the checkout, under a minute on a CPU; it needs the extra ``torchgeo``::

    python -m examples.torchgeo_tiles
"""

# ruff: noqa: D102  # the hooks are Lightning's
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import rasterio
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GridGeoSampler
from torchgeo.trainers import SemanticSegmentationTask

from examples.score_table import print_decisions
from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.tuning import tune

CLASSES = ("field", "water", "roof")
#: Pixels of a scene, of a tile, and from one tile to the next.
SIZE, TILE, STRIDE = 150, 64, 48
PROFILE = {"driver": "GTiff", "height": SIZE, "width": SIZE, "crs": "EPSG:32633"}


class Images(RasterDataset):
    """Scenes of one band."""

    filename_glob = "scene*.tif"


class Masks(RasterDataset):
    """Their truth."""

    filename_glob, is_image = "truth*.tif", False


class SceneWriter(BasePredictionWriter):
    """Adds the probabilities of every tile to a file as large as its scene, which is mapped into memory.

    Where tiles overlap the sums count several of them: ``activation="normalize"`` makes probabilities of them.

    Args:
        folder: gets a ``.npy`` (C, H, W) float32 for each scene.
        scenes: GeoTIFFs whose grids these take, one for each dataloader.
    """

    def __init__(self, folder: Path, scenes: Sequence[Path]) -> None:
        super().__init__("batch")
        folder.mkdir(exist_ok=True)
        self.paths = [folder / f"{scene.stem}.npy" for scene in scenes]
        self.grids = [grid_of(scene) for scene in scenes]
        self.sums = [
            np.lib.format.open_memmap(path, "w+", np.float32, (len(CLASSES), *shape))
            for path, (_, shape) in zip(self.paths, self.grids, strict=True)
        ]

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Tensor,
        batch_indices: Sequence[int] | None,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        for probs, bounds in zip(prediction.cpu().numpy(), batch["bounds"], strict=True):
            place, inside = overlap(self.sums[dataloader_idx], probs, self.grids[dataloader_idx][0], bounds)
            place += inside


def grid_of(scene: Path) -> tuple[rasterio.Affine, tuple[int, int]]:
    """What makes pixels (column, row) of coordinates, and the size (H, W)."""
    with rasterio.open(scene) as file:
        return ~file.transform, file.shape


def overlap(whole: Any, tile: Any, to_pixels: rasterio.Affine, bounds: Sequence[slice]) -> tuple[Any, Any]:
    r"""The part of a scene (\*, H, W) that a tile covers, and that part of the tile; it may reach beyond the rim."""
    column, row = (round(each) for each in to_pixels * (bounds[0].start, bounds[1].stop))
    above, left = max(0, -row), max(0, -column)
    tile = tile[..., above:, left:]
    place = whole[..., max(0, row) :, max(0, column) :][..., : tile.shape[-2], : tile.shape[-1]]
    return place, tile[..., : place.shape[-2], : place.shape[-1]]


def draw(folder: Path, count: int, seed: int) -> None:
    """Write scenes and their truth: ponds between fields, and many small roofs in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SIZE, :SIZE]
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        truth = np.zeros((SIZE, SIZE), np.uint8)
        for _ in range(rng.integers(0, 4)):
            middle, radii = rng.uniform(0, SIZE, 2), rng.uniform(8, 30, 2)
            truth[((y - middle[0]) / radii[0]) ** 2 + ((x - middle[1]) / radii[1]) ** 2 < 1] = 1
        for _ in range(rng.integers(2, 30)):
            row, column, height, width = (*rng.integers(0, SIZE, 2), *rng.integers(3, 9, 2))
            truth[row : row + height, column : column + width] = 2
        light = np.array([0.0, -1.0, 1.0])[truth] * rng.uniform(0.5, 1.0) + rng.normal(0, 1.2, truth.shape)
        transform = rasterio.Affine(10, 0, 5e5 + 1e4 * index, 0, -10, 5e6)
        for name, values in (("scene", light.astype(np.float32)), ("truth", truth)):
            path = folder / f"{name}{index:03d}.tif"
            with rasterio.open(path, "w", count=1, dtype=values.dtype, transform=transform, **PROFILE) as file:
                file.write(values, 1)


def tiles(dataset: RasterDataset, batch_size: int) -> DataLoader:
    sampler = GridGeoSampler(dataset, TILE, STRIDE)
    return DataLoader(dataset, batch_size, sampler=sampler, collate_fn=stack_samples)


def predict(task: SemanticSegmentationTask, scenes: Sequence[Path], folder: Path) -> list[Tensor]:
    """The sums (C, H, W) of every scene, mapped from the files that they are written to."""
    writer = SceneWriter(folder, scenes)
    loaders = [tiles(Images(scene), 4) for scene in scenes]
    make_trainer(callbacks=[writer]).predict(task, loaders, return_predictions=False)
    return [torch.from_numpy(sums) for sums in writer.sums]


def predict_by_tile(task: SemanticSegmentationTask, scene: Path, decoder: RankSEG) -> Tensor:
    """Labels (H, W) of a scene of which each tile was decided on by itself; later tiles lie above."""
    to_pixels, shape = grid_of(scene)
    labels = torch.zeros(shape, dtype=torch.long)
    with torch.inference_mode():
        for batch in tiles(Images(scene), 4):
            for decided, bounds in zip(decoder(task.predict_step(batch, 0)), batch["bounds"], strict=True):
                place, inside = overlap(labels, decided, to_pixels, bounds)
                place.copy_(inside)
    return labels


def make_trainer(**options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


def read_truth(scene: Path) -> Tensor:
    with rasterio.open(scene.with_name(scene.name.replace("scene", "truth"))) as file:
        return torch.from_numpy(file.read(1)).long()


def write_labels(path: Path, labels: Tensor, scene: Path) -> None:
    """A GeoTIFF on the grid of the scene."""
    with rasterio.open(scene) as file:
        profile = {**file.profile, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(labels.numpy().astype(np.uint8), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("example_output/torchgeo"), help="folder for what is written")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--scenes", type=int, default=24, help="scenes to train on, as many to tune on, and to score")
    options = parser.parse_args()

    pl.seed_everything(0)
    for seed, name in enumerate(("train", "val", "test")):
        draw(options.out / name, options.scenes, seed)
    task = SemanticSegmentationTask("unet", "mobilenet_v2", in_channels=1, num_classes=len(CLASSES), lr=5e-3)
    task.monitor = "train_loss"  # which lowers the learning rate
    train = Images(options.out / "train") & Masks(options.out / "train")
    make_trainer(max_epochs=options.epochs).fit(task, tiles(train, 8))
    task.eval()

    scenes = sorted((options.out / "val").glob("scene*.tif"))
    sums = predict(task, scenes, options.out / "val_probs")
    found = tune([(s.stem, each / each.sum(0), read_truth(s)) for s, each in zip(scenes, sums, strict=True)])
    print(f"\nOn {options.scenes} scenes: {found.verdict}\n")
    found.decoder.save(options.out / "decoder.json")

    rankseg, tuned = RankSEG("dice"), TunedDecoder.load(options.out / "decoder.json")
    decisions: dict[str, list[Tensor]] = {"argmax": [], "RankSEG by tile": [], "RankSEG": [], "tuned": []}
    scenes = sorted((options.out / "test").glob("scene*.tif"))
    for scene, each in zip(scenes, predict(task, scenes, options.out / "test_probs"), strict=True):
        decisions["argmax"].append(each.argmax(0))
        decisions["RankSEG by tile"].append(predict_by_tile(task, scene, rankseg))
        for name, decoder in (("RankSEG", rankseg), ("tuned", tuned)):
            decisions[name].append(decoder.predict_logits(each[None], activation="normalize")[0])
        write_labels(options.out / f"{scene.stem}_labels.tif", decisions["tuned"][-1], scene)
    truth = torch.stack([read_truth(scene) for scene in scenes])
    print_decisions({name: torch.stack(each) for name, each in decisions.items()}, truth, len(CLASSES))
    print(f"labels of the first: {options.out / scenes[0].stem}_labels.tif")


if __name__ == "__main__":
    main()
