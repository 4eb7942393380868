"""Label maps as files: PNG without a picture library, ``.npy``, and which image wrote which file."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np

from rankseg_plugins._writing import write_atomically
from rankseg_plugins.core.fits.processes import gather


class LabelFiles:
    """The label files of one run. Each is there whole or not at all, and no image takes the file of another.

    Args:
        folder: made with the first file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = LabelFiles(Path(folder))
        ...     files.write("01.png", b"...", "siteA/01.jpg")
        ...     files.write("01.png", b"...", "siteB/01.jpg")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: two images are called '01.png', siteA/01.jpg and siteB/01.jpg: ...
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images: dict[str, str] = {}

    def write(self, name: str, data: bytes, image: str) -> None:
        """Write the file of one image; one of an earlier run is replaced.

        Args:
            name: of the file below the folder.
            data: all of it.
            image: what tells the image from all others.

        Raises:
            ValueError: if another image of this run, in this process, has written the file.
            OSError: if it cannot be written.
        """
        if name in self._images:
            raise self._taken(name, self._images[name], image)
        write_atomically(self.folder / name, data)
        self._images[name] = image

    def finish(self, count: int | None = None) -> None:
        """End the run: forget which files were written. With several processes each of them must call it.

        Args:
            count: number of files, in the order of writing, that are this process's own share of the images; what
                comes after them repeats images of others. None: all are.

        Raises:
            ValueError: if two processes have written one file for different images.
        """
        own, self._images = dict(itertools.islice(self._images.items(), count)), {}
        together: dict[str, str] = {}
        for part in gather(own):
            for name, image in part.items():
                if together.setdefault(name, image) != image:
                    raise self._taken(name, together[name], image)

    def _taken(self, name: str, first: str, second: str) -> ValueError:
        return ValueError(
            f"two images are called {name!r}, {first} and {second}: {self.folder / name} would hold one of them only; "
            "give other names"
        )


def encode_png(labels: np.ndarray, palette: np.ndarray | None = None, wide: bool = False) -> bytes:
    r"""Encode a label map as PNG.

    Args:
        labels: (H, W) integers.
        palette: (count, 3) uint8; colours beyond it are black. None writes 8 bit grey.
        wide: write 16 bit grey, without palette; so are labels above 255 in any case.

    Raises:
        ValueError: if the labels are not two-dimensional or do not fit into 16 bits.

    Example:
        >>> encode_png(np.array([[0, 1]]), np.array([[0, 0, 0], [255, 0, 0]]))[:8]
        b'\x89PNG\r\n\x1a\n'
    """
    if labels.ndim != 2 or 0 in labels.shape:
        raise ValueError(f"labels of a PNG must have shape (H, W), got {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise ValueError(f"a PNG holds the labels 0 to 65535, got {low} to {high}")
    wide = wide or high > 255
    pixels = labels.astype(">u2" if wide else "u1")
    # Each row begins with its filter; 0 leaves the bytes as they are.
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    depth, colour_type = 16 if wide else 8, 0 if wide or palette is None else 3
    header = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if palette is not None and not wide:
        full = np.zeros((256, 3), dtype=np.uint8)
        full[: len(palette)] = palette
        chunks.append((b"PLTE", full.tobytes()))
    chunks += [(b"IDAT", zlib.compress(rows, 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_npy(labels: np.ndarray) -> bytes:
    """Encode an array of any shape as ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, labels, allow_pickle=False)
    return buffer.getvalue()
