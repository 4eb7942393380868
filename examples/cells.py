"""Generated microscopy-like images for the examples on images, as a data set of PyTorch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from examples.demo import microscopy

CLASSES = microscopy.CLASSES


class Cells(Dataset):
    """Images (1, 128, 128) float and masks (128, 128) int64.

    Args:
        count: of images.
        seed: of all of them.
        binary: whether masks hold 0 for the background and 1 for all else.
    """

    def __init__(self, count: int, seed: int, binary: bool = False) -> None:
        drawn = [microscopy.draw(np.random.default_rng([seed, index])) for index in range(count)]
        self.images = [torch.from_numpy(image[None, ..., 0] / 128.0 - 1.0).float() for image, _ in drawn]
        self.masks = [torch.from_numpy(mask > 0 if binary else mask).long() for _, mask in drawn]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.masks[index]
