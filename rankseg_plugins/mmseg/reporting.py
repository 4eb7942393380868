"""The report of a comparison, from what ``MultiLevelIoUMetric`` counts in all processes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import torch
from mmengine.dist import all_gather_object
from torch import Tensor

from rankseg_plugins.comparison import Comparison, Scoring
from rankseg_plugins.comparison.examples import Example, Extremes
from rankseg_plugins.comparison.facts import collect_facts
from rankseg_plugins.comparison.measuring import Measurement, to_areas
from rankseg_plugins.comparison.presence import judged, presence_of, together

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
        self._extremes.offer(str(position), gain, *maps)

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

    def gather(self) -> None:
        """Bring the pictures of all processes together; to be called on each of them."""
        ours = self._extremes.all() if self._extremes is not None else ()
        self._pictures = {int(example.name): example for part in all_gather_object(ours) for example in part}
        self._extremes = None

    def write(
        self,
        paths: Sequence[str],
        counts: np.ndarray,
        classes: Sequence[str],
        presence: Sequence[Tensor | None],
    ) -> None:
        """Write the report.

        Args:
            paths: of the N images, in the order of the data set; beyond them samplers repeat images.
            counts: (2, 3, N, C) counts of argmax and of RankSEG.
            classes: C names.
            presence: what :meth:`judge` gave of each image.
        """
        names = image_names(paths)
        unknown = np.full(2, np.nan)
        measurements = [Measurement(name, name, counts[:, :, i], unknown) for i, name in enumerate(names)]
        extremes = Extremes(PANELS, len(classes), self.ignore_index)
        # In the order of the data set, as one process would: earlier images win ties.
        for position, name in enumerate(names):
            if position in self._pictures:
                extremes.keep(replace(self._pictures[position], name=name))
        knowing = (
            presence_of(DECODERS[1:], told[None].numpy(), counts[0, 2, i] > 0)
            for i, told in enumerate(presence)
            if told is not None
        )
        facts = {**collect_facts(), "ignore_index": self.ignore_index}
        Comparison(
            DECODERS,
            distinct(classes),
            tuple(measurements),
            self.scoring,
            improved=extremes.improved(),
            damaged=extremes.damaged(),
            facts=facts,
            presence=together(knowing),
        ).report(self.folder)


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
