"""The report of a comparison, from what ``MultiLevelIoUMetric`` counts in all processes."""

from __future__ import annotations

import ast
import itertools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.logging import MessageHub, print_log
from torch import Tensor

from rankseg_plugins.comparison import Comparison, Scoring
from rankseg_plugins.comparison.blocks.presence import judged, presence_of, together
from rankseg_plugins.comparison.facts import collect_facts
from rankseg_plugins.comparison.measuring import Measurement, to_areas
from rankseg_plugins.comparison.pictures.colours import check_palette
from rankseg_plugins.comparison.pictures.examples import Example, Extremes
from rankseg_plugins.mmseg.options import KEY
from rankseg_plugins.mmseg.visualization import read_photograph, to_picture

DECODERS = ("argmax", "RankSEG")
PANELS = 5


class RunReport:
    """Remembers the images of a run that changed most, and writes the report when all counts are together.

    The counts themselves travel with the metric's results, where the toolkit drops what its samplers repeat.

    Args:
        folder: where the report goes.
        ignore_index: label of the ground truth whose pixels do not count.
        scoring: what counts as better.
    """

    def __init__(self, folder: Path, ignore_index: int | None, scoring: Scoring) -> None:
        self.folder, self.ignore_index, self.scoring = folder, ignore_index, scoring
        self._extremes: Extremes | None = None
        self._pictures: dict[int, Example] = {}

    def consider(self, position: int, counts: Sequence[Tensor], maps: Sequence[Tensor]) -> None:
        """Keep the pictures of an image if it is among those that gain or lose most.

        Args:
            position: place of the image in the data set; several may have one path.
            counts: (3, C) counts of argmax and of RankSEG.
            maps: (H, W) labels of the ground truth, of argmax and of RankSEG.
        """
        if self._extremes is None:
            self._extremes = Extremes(PANELS, counts[0].shape[1], self.ignore_index)
        gain = self.scoring.gain(*(to_areas(each[:, None].numpy()) for each in counts))
        self._extremes.offer(str(position), gain, maps[0], maps[1:])

    def judge(self, told: Tensor | None, truth: Tensor, classes: int) -> Tensor | None:
        """How likely RankSEG took each class of an image to be there, as far as the truth says whether it is.

        Args:
            told: of the channels of the model; a single one is the class 1.
            truth: (H, W) labels.
            classes: C of the data set, perhaps another number.

        Returns:
            (C,) float64, NaN where it is not known; None if nothing is.
        """
        if told is None:
            return None
        of_classes = torch.full((classes,), torch.nan, dtype=torch.float64, device="cpu")
        first = int(len(told) == 1 and classes > 1)
        of_classes[first : first + len(told)] = told[:classes]
        found = judged([of_classes], truth, truth.ndim, self.ignore_index)
        return None if found is None else torch.from_numpy(found[0])

    def expected(self, told: tuple[str, Tensor] | None, classes: int) -> Tensor | None:
        """What both decisions on an image are expected to score, of the classes of the data set.

        Args:
            told: which score, and (2, 2, channels) of it.
            classes: C of the data set, perhaps another number; what the model does not know is not expected.

        Returns:
            (2, 2, C) float64; None if nothing is.

        Raises:
            ValueError: if it is another score than the one that decides.
        """
        if told is None:
            return None
        if told[0] != self.scoring.score:
            raise ValueError(
                f"{KEY}.expected_score must be {self.scoring.score!r}, the score of the report, got {told[0]!r}"
            )
        found = torch.zeros(2, 2, classes, dtype=torch.float64, device="cpu")
        kept = min(classes, told[1].shape[-1])
        found[..., :kept] = told[1][..., :kept]
        return found

    def gather(self) -> None:
        """Bring the pictures of all processes together; to be called on each of them."""
        ours = self._extremes.all() if self._extremes is not None else ()
        self._pictures = {int(example.name): example for part in all_gather_object(ours) for example in part}
        self._extremes = None

    def write(
        self, images: Sequence[Mapping[str, Any]], counts: np.ndarray, dataset_meta: Mapping[str, Any]
    ) -> Comparison:
        """Write the report.

        Args:
            images: the N images in the order of the data set, beyond which samplers repeat some: of each its ``path``,
                whether both decisions are the ``same``, what ``judge`` gave as ``presence`` and ``expected`` as
                ``expected``, and the ``options`` of RankSEG in words, None where they are not known.
            counts: (2, 3, N, C) counts of argmax and of RankSEG.
            dataset_meta: of the data set: C ``classes``, and perhaps their ``palette``.

        Returns:
            What was compared.
        """
        classes, paths = dataset_meta["classes"], [image["path"] for image in images]
        names, options = image_names(paths), images[0]["options"]
        measurements = [
            Measurement(
                name,
                name,
                counts[:, :, i],
                np.full(2, np.nan),
                expected=None if image["expected"] is None else image["expected"].numpy(),
                same=np.array([0, int(not image["same"])]),
            )
            for i, (name, image) in enumerate(zip(names, images, strict=True))
        ]
        extremes = Extremes(PANELS, len(classes), self.ignore_index)
        # In the order of the data set, as one process would: earlier images win ties.
        for position, name in enumerate(names):
            if position in self._pictures:
                picture = self._pictures[position]
                extremes.keep(replace(picture, name=name, image=_photograph(paths[position], picture.truth.shape)))
        knowing = (
            presence_of(DECODERS[1:], image["presence"][None].numpy(), counts[0, 2, i] > 0)
            for i, image in enumerate(images)
            if image["presence"] is not None
        )
        facts = {**collect_facts(), **({} if options is None else {KEY: options}), **describe_run()}
        comparison = Comparison(
            DECODERS,
            distinct(classes),
            tuple(measurements),
            self.scoring,
            improved=extremes.improved(),
            damaged=extremes.damaged(),
            facts={**facts, "ignore_index": self.ignore_index},
            presence=together(knowing),
            palette=_palette(dataset_meta.get("palette"), len(classes)),
        )
        comparison.report(self.folder)
        return comparison


def _photograph(path: str, size: tuple[int, ...]) -> np.ndarray | None:
    """None, with a line in the log, where there is none: no picture is worth the report."""
    image = read_photograph(path, (size[0], size[1]))
    if isinstance(image, str):
        print_log(f"the report shows {path} without its photograph: {image}", "current", logging.WARNING)
        return None
    return to_picture(image)


def _palette(given: Any, classes: int) -> list[list[int]] | None:
    """The palette of a data set, unless it is none for all classes."""
    try:
        found: list[list[int]] | None = check_palette(given, classes).tolist()
        return found
    except ValueError:
        return None


def describe_run() -> dict[str, str]:
    """Which run this is, as far as MMEngine tells: the config, and the checkpoint or where a training stands."""
    known = MessageHub.get_current_instance().runtime_info
    text, experiment = str(known.get("cfg", "")), str(known.get("experiment_name", ""))
    found = {}
    if experiment:
        found["config"] = str(_dumped_config(text, experiment) or experiment)
    if "iter" in known:
        # Its checkpoint may not be written yet, and load_from is what it began with.
        found["evaluated"] = f"{known.get('loop_stage', 'train')}, iteration {known['iter']} of a training"
    elif checkpoint := _set_in(text, "load_from"):
        found["checkpoint"] = checkpoint
    return found


def _dumped_config(text: str, experiment: str) -> Path | None:
    """Where the Runner has put a copy of the config: under the name of its file, or the time without one."""
    folder = _set_in(text, "work_dir")
    parts = re.fullmatch(r"(?:(.+)_)?(\d{8}_\d{6})", experiment)
    names = () if folder is None or parts is None else (f"{name}.py" for name in parts.groups() if name)
    return next((path for path in (Path(folder or "") / name for name in names) if path.is_file()), None)


def _set_in(text: str, name: str) -> str | None:
    """A string that a config sets at its top."""
    found = re.search(rf"^{name} = (['\"].*['\"])$", text, re.MULTILINE)
    return None if found is None else str(ast.literal_eval(found[1]))


def image_names(paths: Sequence[str]) -> tuple[str, ...]:
    """File stems; if two are the same, paths below the folder that all images share.

    Example:
        >>> image_names(["val/a/01.png", "val/a/02.png"])
        ('01', '02')
        >>> image_names(["val/a/01.png", "val/b/01.png"])
        ('a/01', 'b/01')
        >>> image_names(["val/a/01.png", "val/a/01.png"])
        ('01', '01 (2)')
    """
    stems = [PurePath(path).stem for path in paths]
    if len(set(stems)) < len(stems):
        whole = [os.path.abspath(os.path.splitext(path)[0]) for path in paths]
        shared = os.path.commonpath([os.path.dirname(path) for path in whole])
        stems = [PurePath(path).relative_to(shared).as_posix() for path in whole]
    return distinct(stems)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Number the names that occur a second time.

    Example:
        >>> distinct(["sky", "sky", "sky (2)"])
        ('sky', 'sky (3)', 'sky (2)')
    """
    seen: set[str] = set()
    taken, result = set(names), []
    for name in names:
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        result.append(next(each for each in numbered if each not in taken) if name in seen else name)
        seen.add(name)
        taken.add(result[-1])
    return tuple(result)
