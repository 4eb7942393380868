"""The file of results of a run, a line for each image, so that an interrupted run goes on where it stopped.

The first line says what was asked for; a run that asks for something else does not touch the file once it holds an
image. A line is written at once and as a whole; a last line that was cut off all the same (power failure, full disk) is
dropped.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rankseg_plugins._strict_json import read_json
from rankseg_plugins._version import __version__
from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.files.errors import InputError, blaming

VERSION = 3

#: Of what a line that is no result makes its reader raise.
DAMAGES = (ValueError, KeyError, TypeError, OverflowError, zlib.error)


class Result(NamedTuple):
    """A line of the file.

    Args:
        measurement: of the image.
        inputs: hash of its probabilities and labels.
        stamp: of its files; as long as it stays the same they were not written to, see
            :func:`~rankseg_plugins.files.run.run`.
    """

    measurement: Measurement
    inputs: str
    stamp: str


class Measured(NamedTuple):
    """What a line says about the inputs of its image, see :class:`Result`."""

    inputs: str
    stamp: str


class ResultsFile:
    """Results on disk.

    Args:
        path: the file; its folder is made.
        asked: what was asked for, as values that JSON holds. An earlier file that differs in it is refused
            if it holds an image, and otherwise begun anew.

    Raises:
        InputError: if the file belongs to another run, is damaged before its last line, or cannot be written.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path = path
        head = _line(_asked(asked))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._drop_torn_line()
            found = _first_line(path)
            if found != head and _holds_no_image(path):
                # Nothing is lost, and a run that failed at its first image is not to block the corrected one.
                os.ftruncate(self._file, 0)
                self._write(head)
                found = head
        except OSError as error:
            raise InputError(path, f"cannot be written: {error.strerror or error}") from error
        if differing := _differing(found, head):
            os.close(self._file)
            raise _of_another_run(path, differing)

    def __iter__(self) -> Iterator[Result]:
        """Every image measured so far."""
        with self.path.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, 2):
                try:
                    yield _result(read_json(line))
                except DAMAGES as error:
                    raise damaged(self.path, number, error) from error

    def append(self, result: Result) -> None:
        """Add an image.

        Raises:
            InputError: if it cannot be written, such as on a full disk; the file stays as it was.
        """
        self._append(_line(_row(result)))

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


def share_of(path: Path, rank: int) -> Path:
    """The file of results of one of several processes, which lies beside that of all."""
    return path.with_name(f"{path.stem}-{rank}{path.suffix}")


def collect(path: Path) -> None:
    """Take into a file of results what several processes measured, in this run or in one that was interrupted.

    Args:
        path: the file of all, perhaps absent.

    Raises:
        InputError: if results belong to another run than others, are damaged, or cannot be written.
    """
    for share in sorted(path.parent.glob(f"{path.stem}-*{path.suffix}")):
        if not share.stem.removeprefix(f"{path.stem}-").isdigit():
            continue
        with blaming(share):
            if _holds_no_image(share):
                share.unlink()
                continue
            asked = dict(read_json(_first_line(share)))
        results = ResultsFile(path, asked)
        results.take_in(share)
        results.close()


def damaged(path: Path, number: int, error: Exception) -> InputError:
    """What to raise for a line that is no result."""
    return InputError(path, f"line {number} is damaged ({error}); remove the file")


def measured(path: Path) -> dict[str, Measured]:
    """The images measured so far, by name; none if there is no such file.

    Raises:
        InputError: if it is damaged before its last line.
    """
    found: dict[str, Measured] = {}
    if not path.is_file():
        return found
    with path.open("rb") as file:
        file.readline()
        for number, line in enumerate(file, 2):
            try:
                if line.endswith(b"\n"):
                    row = read_json(line)
                    found[_word(row["image"])] = Measured(_word(row["inputs"]), _word(row["stamp"]))
            except DAMAGES as error:
                raise damaged(path, number, error) from error
    return found


def check_run(path: Path, asked: Mapping[str, Any]) -> None:
    """Refuse the results of another run before they are gone on with, as far as that is known then.

    Args:
        path: of the results, perhaps absent.
        asked: see :class:`ResultsFile`; what is not known yet is left out, and not compared.

    Raises:
        InputError: if they belong to a run that asked for something else.
    """
    try:
        if _holds_no_image(path):
            return
        found = read_json(_first_line(path))
    except (OSError, ValueError):  # absent, or torn: the file is opened, or refused, when it is needed
        return
    if isinstance(found, dict):  # likewise
        head = _asked(asked)
        if differing := [name for name in head if found.get(name) != head[name]]:
            raise _of_another_run(path, differing)


def _holds_no_image(path: Path) -> bool:
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


def _asked(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the first line holds: what was asked for, and who answered."""
    return {"format": VERSION, "version of rankseg_plugins": __version__, **asked}


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


def _of_another_run(path: Path, differing: Sequence[str]) -> InputError:
    return InputError(path, f"belongs to a run with other {', '.join(differing)}; choose another --out or remove it")


def _row(result: Result) -> dict[str, Any]:
    measurement = result.measurement
    row = {
        "image": measurement.name,
        "case": measurement.case,
        "inputs": result.inputs,
        "stamp": result.stamp,
        "seconds": measurement.seconds.round(6).tolist(),
        "counts": measurement.counts.tolist(),
    }
    if (found := measurement.calibration) is not None:
        # Thousands of numbers, most of them 0, that nobody reads in a file.
        row["calibration"] = _packed(np.stack([found.count, found.confidence, found.correct]))
    if measurement.presence is not None:
        row["presence"] = _packed(measurement.presence)
    if measurement.extra is not None:
        row["extra"] = _packed(measurement.extra)
    if measurement.expected is not None:
        row["expected"] = _packed(measurement.expected)
    return row


def _packed(values: np.ndarray) -> list[Any]:
    """Float64 numbers and their shape."""
    return [*values.shape, base64.b64encode(zlib.compress(values.tobytes())).decode()]


def _unpacked(found: Sequence[Any]) -> np.ndarray:
    *shape, packed = found
    return np.frombuffer(zlib.decompress(base64.b64decode(packed))).reshape(shape)


def _result(row: Mapping[str, Any]) -> Result:
    found = Calibration(*_unpacked(row["calibration"])) if "calibration" in row else None
    others = (_unpacked(row[each]) if each in row else None for each in ("presence", "extra", "expected"))
    counts, seconds = np.array(row["counts"], dtype=np.int64), np.array(row["seconds"], dtype=np.float64)
    name, case, inputs, stamp = (_word(row[key]) for key in ("image", "case", "inputs", "stamp"))
    return Result(Measurement(name, case, counts, seconds, found, *others), inputs, stamp)


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a word: {value!r}")
    return value
