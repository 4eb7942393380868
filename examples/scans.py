"""Generated scans for the examples on volumes: an organ and some small lesions in noise."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

CLASSES = ("background", "organ", "lesion")
SIZE = (20, 40, 40)


class Scans(Dataset):
    """Generated scans: dicts of a name, an image (1, D, H, W) float and labels (D, H, W) int64."""

    def __init__(self, count: int, seed: int) -> None:
        self.items = [_scan(np.random.default_rng([seed, index]), f"scan{index:03d}") for index in range(count)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self.items[index]


def _scan(rng: np.random.Generator, name: str) -> dict[str, object]:
    labels = np.zeros(SIZE, np.int64)
    middle = np.array(SIZE) / 2 + rng.normal(0, 1.5, 3)
    organ = _ellipsoid(middle, np.array([7, 13, 12]) * rng.uniform(0.8, 1.1, 3))
    labels[organ] = 1
    for _ in range(rng.integers(1, 5)):
        labels[_ellipsoid(middle + rng.normal(0, 4, 3), rng.uniform(2.0, 5.0, 3)) & organ] = 2
    brightness = np.array([0.0, 1.0, 1.0 + rng.uniform(0.7, 1.7)])
    image = brightness[labels] + rng.normal(0, 0.7, SIZE)
    return {"name": name, "image": torch.from_numpy(image[None]).float(), "labels": torch.from_numpy(labels)}


def _ellipsoid(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), axis=-1)
    return (((grid - centre) / radii) ** 2).sum(-1) < 1
