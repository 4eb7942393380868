"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomically(path: Path, data: str | bytes) -> None:
    r"""Write a file that is there whole or not at all, also while other processes write the same one.

    Args:
        path: its folder is made if absent.
        data: all of it; text becomes UTF-8, and what UTF-8 does not hold, as in names of files, becomes ``\udce9``.

    Raises:
        OSError: if it cannot be written; it names the file. What was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data if isinstance(data, bytes) else data.encode(errors="backslashreplace"))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
