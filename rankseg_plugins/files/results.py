"""The results of a run on disk: what was measured of every image; see ``rankseg_plugins.files.lines``."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rankseg_plugins._strict_json import read_json
from rankseg_plugins._version import __version__
from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.comparison.measuring import Measurement
from rankseg_plugins.files.lines import DAMAGES, RunFile, check_head, damaged

VERSION = 4


class Result(NamedTuple):
    """A line of the file.

    Args:
        measurement: of the image.
        inputs: hash of its probabilities and labels.
        stamp: of its files; as long as it stays the same they were not written to, see
            ``rankseg_plugins.files.run.run``.
    """

    measurement: Measurement
    inputs: str
    stamp: str


class Measured(NamedTuple):
    """What a line says about the inputs of its image, see ``Result``."""

    inputs: str
    stamp: str


class ResultsFile(RunFile):
    """Results on disk; see ``RunFile``.

    Args:
        path: the file; its folder is made.
        asked: what was asked for, as values that JSON holds.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        super().__init__(path, _asked(asked))

    def __iter__(self) -> Iterator[Result]:
        """Every image measured so far."""
        for number, row in self.rows():
            try:
                result = _result(row)
            except DAMAGES as error:
                raise damaged(self.path, number, error) from error
            yield result

    def append(self, result: Result) -> None:
        """Add an image; see ``RunFile.append_row``."""
        self.append_row(_row(result))


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
        asked: see ``ResultsFile``; what is not known yet is left out, and not compared.

    Raises:
        InputError: if they belong to a run that asked for something else.
    """
    check_head(path, _asked(asked))


def _asked(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the first line holds: what was asked for, and who answered."""
    return {"format": VERSION, "version of rankseg_plugins": __version__, **asked}


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
    if measurement.same is not None:
        row["same"] = measurement.same.tolist()
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
    name, case, inputs, stamp = (_word(row[key]) for key in ("image", "case", "inputs", "stamp"))
    found = Calibration(*_unpacked(row["calibration"])) if "calibration" in row else None
    presence, extra, expected = (
        _unpacked(row[each]) if each in row else None for each in ("presence", "extra", "expected")
    )
    counts = np.array(row["counts"], dtype=np.int64)
    same = np.array(row["same"], dtype=np.int64) if "same" in row else None
    seconds = np.array(row["seconds"], dtype=np.float64)
    measurement = Measurement(name, case, counts, seconds, found, presence, extra, expected, same)
    return Result(measurement, inputs, stamp)


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not a word: {value!r}")
    return value
