"""Memory for arrays of any size: large ones lie in files, of which the system holds as much as it has room for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: Bytes of an array that lies in memory, at most.
MOST = 1 << 24


class Scratch:
    """Gives memory; of large arrays, in files that have no name and are gone with the last tensor that lies in them.

    Args:
        folder: where such files are, on a disk with room for them.
        most: bytes of an array in memory, at most.

    Example:
        >>> Scratch(Path(tempfile.gettempdir()), most=100).empty((2, 80), torch.int16).shape
        torch.Size([2, 80])
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._folder, self._most = folder, most

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor on the CPU whose values are still to be written.

        Raises:
            OSError: if the disk has no room for it; it names the folder.
        """
        return torch.from_numpy(self.array(shape, torch.empty(0, dtype=dtype, device="cpu").numpy().dtype))

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """As ``empty``, an array."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size <= self._most:
            return np.empty(shape, dtype)
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                if hasattr(os, "posix_fallocate"):
                    # A disk that is full later would end the process.
                    os.posix_fallocate(file.fileno(), 0, size)
                return np.memmap(file, dtype, "r+", shape=shape)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._folder)) from error
