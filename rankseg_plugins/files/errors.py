"""One clear line for a file that cannot be used, whatever its reader raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from rankseg_plugins.files.wording import about_file

T = TypeVar("T")
R = TypeVar("R")


class InputError(ValueError):
    """A file that cannot be used; the message is one line that begins with its path, in the words of the command."""

    def __init__(self, path: object, problem: object) -> None:
        super().__init__(f"{path}: {about_file(' '.join(str(problem).split()))}")


class NoImageError(InputError):
    """Images that are all of no use, where bad ones are passed over.

    Args:
        path: where they lie.
        problem: what all of them are no good for.
        problems: of each of them.
    """

    def __init__(self, path: object, problem: str, problems: Iterable[object]) -> None:
        super().__init__(path, problem)
        self.problems = tuple(map(str, problems))


def first_readable(images: Iterable[T], read: Callable[[T], R], place: object, keep_going: bool) -> R:
    """What the first image gives that can be read.

    Args:
        images: at least one.
        read: reads one.
        place: where they lie.
        keep_going: whether those that cannot be read are passed over.

    Raises:
        InputError: if it cannot be read; with ``keep_going`` ``NoImageError``, if none can.
    """
    problems: list[InputError] = []
    for image in images:
        try:
            return read(image)
        except InputError as error:
            if not keep_going:
                raise
            problems.append(error)
    raise NoImageError(place, "no image can be read", problems)


@contextmanager
def blaming(path: object) -> Iterator[None]:
    """Turn whatever a file makes its reader raise into an ``InputError`` that names it.

    Which exceptions readers of damaged files let through is documented nowhere, and differs from version to version.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(path, f"cannot be read: {str(problem) or type(error).__name__}") from error


@contextmanager
def sparing_memory(place: object) -> Iterator[None]:
    """Turn a lack of memory into an ``InputError`` that names the image, of which there may be smaller ones.

    PyTorch says it of the CPU by a RuntimeError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)):
            raise
        raise InputError(
            place,
            "there is not enough memory for it. The least is taken on a CPU, of files .npy or .npz, by any decoder but "
            f"the solvers exact, BA and TRNA ({error})",
        ) from error


def place_in(path: Path, name: object) -> str:
    """What errors call one image of a file of all."""
    return f"{path}: image {name}"
