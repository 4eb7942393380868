"""One clear line for a file that cannot be used, whatever its reader raised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """A file that cannot be used; the message is one line that begins with its path."""

    def __init__(self, path: object, problem: object) -> None:
        super().__init__(f"{path}: {' '.join(str(problem).split())}")


@contextmanager
def blaming(path: object) -> Iterator[None]:
    """Turn whatever a file makes its reader raise into an :class:`InputError` that names it.

    Which exceptions readers of damaged files let through is documented nowhere, and differs from version to version.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(path, f"cannot be read: {str(problem) or type(error).__name__}") from error


def place_in(path: Path, name: object) -> str:
    """What errors call one image of a file of all."""
    return f"{path}: image {name}"
