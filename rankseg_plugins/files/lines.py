"""The file of a run, a line for each image, so that an interrupted run goes on where it stopped.

The first line says what was asked for; a run that asks for something else does not touch the file once it holds an
image. A line is written at once and as a whole; a last line that was cut off all the same (power failure, full disk) is
dropped.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankseg_plugins._strict_json import read_json
from rankseg_plugins.files.errors import InputError, blaming

#: Of what a line that is no image makes its reader raise.
DAMAGES = (ValueError, KeyError, TypeError, OverflowError, zlib.error)


class RunFile:
    """Lines on disk.

    Args:
        path: the file; its folder is made.
        asked: what was asked for, and who answered, as values that JSON holds. An earlier file that differs in it is
            refused if it holds an image, and otherwise begun anew.

    Raises:
        InputError: if the file belongs to another run, is damaged before its last line, or cannot be written.

    Attributes:
        remedy: what is advised where the file belongs to another run.
    """

    remedy = "choose another --out or remove it"

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path = path
        head = _line(asked)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._drop_torn_line()
            found = _first_line(path)
            if found != head and holds_no_image(path):
                # Nothing is lost, and a run that failed at its first image is not to block the corrected one.
                os.ftruncate(self._file, 0)
                self._write(head)
                found = head
        except OSError as error:
            raise InputError(path, f"cannot be written: {error.strerror or error}") from error
        if differing := _differing(found, head):
            os.close(self._file)
            raise _of_another_run(path, differing, self.remedy)

    def rows(self) -> Iterator[tuple[int, Any]]:
        """What every line but the first holds, and its number; a line may hold something else than an image.

        Raises:
            InputError: for a line that is not JSON.
        """
        return rows_of(self.path)

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Add an image.

        Raises:
            InputError: if it cannot be written, such as on a full disk; the file stays as it was.
        """
        self._append(_line(row))

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            self._write(line)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise InputError(self.path, f"cannot be written: {error.strerror or error}") from error

    def take_in(self, path: Path) -> None:
        """Add all images of another file of the same run, and remove that.

        Raises:
            InputError: if it is of another run, or one of the files cannot be written.
        """
        try:
            with path.open("rb") as file:
                if differing := _differing(file.readline(), _first_line(self.path)):
                    raise _of_another_run(path, differing)
                for line in file:
                    if line.endswith(b"\n"):
                        self._append(line)
            path.unlink()
        except OSError as error:
            raise InputError(path, f"cannot be read or removed: {error.strerror or error}") from error

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._file, line) :]

    def _drop_torn_line(self) -> None:
        with self.path.open("rb") as file:
            whole = 0
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
        os.ftruncate(self._file, whole)


def rows_of(path: Path) -> Iterator[tuple[int, Any]]:
    """See ``RunFile.rows``; a last line that was cut off is no image."""
    with path.open("rb") as file:
        file.readline()
        for number, line in enumerate(file, 2):
            try:
                row = read_json(line) if line.endswith(b"\n") else None
            except DAMAGES as error:
                raise damaged(path, number, error) from error
            if line.endswith(b"\n"):
                yield number, row


def share_of(path: Path, rank: int) -> Path:
    """The file of one of several processes, which lies beside that of all."""
    return path.with_name(f"{path.stem}-{rank}{path.suffix}")


def shares_of(path: Path) -> list[Path]:
    """The files of processes that are there."""
    found = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}"))
    return [share for share in found if share.stem.removeprefix(f"{path.stem}-").isdigit()]


def head_of(path: Path) -> dict[str, Any]:
    """What was asked for; nothing of a file that is absent or torn."""
    try:
        found = read_json(_first_line(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def collect(path: Path) -> None:
    """Take into the file of a run what several processes did, in this run or in one that was interrupted.

    Args:
        path: the file of all, perhaps absent.

    Raises:
        InputError: if lines belong to another run than others, are damaged, or cannot be written.
    """
    for share in shares_of(path):
        with blaming(share):
            if holds_no_image(share):
                share.unlink()
                continue
            asked = dict(read_json(_first_line(share)))
        run = RunFile(path, asked)
        run.take_in(share)
        run.close()


def damaged(path: Path, number: int, error: Exception) -> InputError:
    """What to raise for a line that is no result."""
    return InputError(path, f"line {number} is damaged ({error}); remove the file")


def stamp_of(files: Iterable[Path]) -> str:
    """Of each file what changes when it is written to or replaced, also where its size and its time are set back."""
    found = []
    for path in files:
        with blaming(path):
            stat = path.stat()
        found.append(f"{stat.st_size}/{stat.st_mtime_ns}/{stat.st_ctime_ns}/{stat.st_ino}")
    return " ".join(found)


def check_head(path: Path, head: Mapping[str, Any]) -> None:
    """Refuse the file of another run before it is gone on with, as far as that is known then.

    Args:
        path: the file, perhaps absent.
        head: what was asked for, see ``RunFile``; what is not known yet is left out, and not compared.

    Raises:
        InputError: if they belong to a run that asked for something else.
    """
    try:
        if holds_no_image(path):
            return
        found = read_json(_first_line(path))
    except (OSError, ValueError):  # absent, or torn: the file is opened, or refused, when it is needed
        return
    if isinstance(found, dict):  # likewise
        differing = [name for name in head if found.get(name) != head[name]]
        if differing:
            raise _of_another_run(path, differing)


def holds_no_image(path: Path) -> bool:
    """Whether a file is empty, or holds nothing but the first line of a run.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        head, first = file.readline(), file.readline()
    try:
        return not first.endswith(b"\n") and (not head or "format" in read_json(head))
    except (ValueError, TypeError):  # a file of something else
        return False


def _first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline()


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _differing(found: bytes, head: bytes) -> list[str]:
    try:
        theirs, ours = read_json(found), read_json(head)
        return [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    except (ValueError, TypeError):
        return ["contents"]


def _of_another_run(path: Path, differing: Sequence[str], remedy: str = RunFile.remedy) -> InputError:
    return InputError(path, f"belongs to a run with other {', '.join(differing)}; {remedy}")
