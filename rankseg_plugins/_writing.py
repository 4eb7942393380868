"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Write a file piece by piece that is there whole or not at all, also while other processes write the same one.

    Args:
        path: its folder is made if absent.

    Yields:
        What to write to; the file takes its name once all is written.

    Raises:
        OSError: if it cannot be written; it names the file. What was there before stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, writing_atomically(Path(folder) / "a") as file:
        ...     file.write(b"abc")
        3
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_atomically(path: Path, data: str | bytes) -> None:
    r"""Write a file that is there whole or not at all, also while other processes write the same one.

    Args:
        path: its folder is made if absent.
        data: all of it; text becomes UTF-8, and what UTF-8 does not hold, as in names of files, becomes ``\udce9``.

    Raises:
        OSError: if it cannot be written; it names the file. What was there before stays.
    """
    with writing_atomically(path) as file:
        file.write(data if isinstance(data, bytes) else data.encode(errors="backslashreplace"))
