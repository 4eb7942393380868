"""Decoders compared on the same images: every figure, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

from rankseg_plugins.comparison.blocks.groups import check_groups, read_values
from rankseg_plugins.comparison.figures import Figures
from rankseg_plugins.comparison.telling.groups import GroupTable, group_tables, split
from rankseg_plugins.comparison.telling.summary import summarise
from rankseg_plugins.comparison.telling.tables import Tables, read_tables, rows
from rankseg_plugins.comparison.telling.verdict import Verdict, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Comparison(Figures):
    """What decoders scored on the same images, see ``compare``.

    Args:
        decoders: names, the baseline first.
        classes: names of all C classes.
        measurements: one for each image.
        scoring: what counts as better.
        calibration: of the probabilities of all images; None where there were none.
        improved: pictures of the images that the second decoder improves most.
        damaged: pictures of those that it damages most.
        skipped: images that could not be read or scored, and why.
        facts: how the comparison was made: versions, options, inputs.
        cautions: sentences on decoders whose figures are not what they seem.
        confidence: of the intervals.
        presence: how likely decoders took classes to be there, in bins against whether they are; of those that know.
        extra: extra scores that were measured.
        groups: by column, such as ``"scanner"``, the value of every image: a dict by the name of the image or of its
            case.
        palette: colours of the classes in pictures, (R, G, B) of 0 to 255 each; None takes some that can be told apart.

    Raises:
        TypeError: for groups of another form, or a confidence that is no number.
        ValueError: without measurements, with two of one name, if an image is in no group, or for a confidence or
            palette that is not allowed.

    Example:
        >>> import torch
        >>> from rankseg_plugins.comparison import compare
        >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
        >>> samples = [("a", probs, torch.tensor([0, 1, 1])), ("b", probs, torch.tensor([0, 0, 1]))]
        >>> found = compare(samples)
        >>> found  # a table for a prompt
        Comparison of 2 images
        decoder               image Dice (union), %  gain, points  95 % interval
        argmax                                83.33
        rankseg(metric=dice)                  83.33          0.00  too few cases
        >>> found.names, found.candidates, found.scored_classes, found.seconds.shape
        (('a', 'b'), ('rankseg(metric=dice)',), ('class 0', 'class 1'), (2, 2))
    """

    def __repr__(self) -> str:
        return summarise(self).text()

    def _repr_html_(self) -> str:
        """What a notebook shows: the same table."""
        return summarise(self).html()

    def verdict(self, decoder: str | None = None) -> Verdict:
        """What to say of a decoder: what happened to the score that decides, and which others moved the other way.

        Args:
            decoder: one of ``candidates``; None takes the second of all.

        Raises:
            ValueError: if it is not one of them.

        Example:
            >>> import torch
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
            >>> samples = [("a", probs, torch.tensor([0, 1, 1])), ("b", probs, torch.tensor([0, 0, 1]))]
            >>> compare(samples).verdict().sentence
            'rankseg(metric=dice) decides as argmax does in each of 2 images: image Dice (union) is the same.'
        """
        decoder = self.candidates[0] if decoder is None else decoder
        if decoder not in self._verdicts:
            self._verdicts[decoder] = judge(self, decoder)
        return self._verdicts[decoder]

    @cached_property
    def _verdicts(self) -> dict[str, Verdict]:
        return {}

    def by_group(self, groups: Mapping[str, str]) -> dict[str, Comparison]:
        """The images of each group as a comparison of their own, with intervals over its cases.

        What was pooled over all images (calibration, presence) and their pictures are left out of it.

        Args:
            groups: by the name of an image, or of its case, the group that it is in; other names have no effect.

        Returns:
            By group, sorted.

        Raises:
            TypeError: if it is no dict, or a name or group is no word.
            ValueError: if an image is in no group.

        Example:
            >>> import torch
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.6, 0.55, 0.1], [0.4, 0.45, 0.9]])
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1])), ("b", probs, torch.tensor([0, 0, 1]))])
            >>> {site: part.level("argmax", "dice", "image") for site, part in found.by_group({"a": 1, "b": 2}).items()}
            {'1': 0.6666666666666666, '2': 1.0}
        """
        values = read_values("group", groups)
        check_groups({"group": values}, ((each.name, each.case) for each in self.measurements))
        return split(self, values)

    @cached_property
    def group_tables(self) -> list[GroupTable]:
        """Gain and interval in every group, for each column of ``groups``.

        Example:
            >>> import torch
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> samples = [(name, probs, torch.tensor([0, 1, 1])) for name in "ab"]
            >>> found = compare(samples, groups={"site": {"a": "Rome", "b": "Oslo"}})
            >>> [(table.column, [row.value for row in table.rows]) for table in found.group_tables]
            [('site', ['Oslo', 'Rome'])]
        """
        return group_tables(self)

    @cached_property
    def tables(self) -> Tables:
        """Every figure in rows: what all forms of a report show.

        Example:
            >>> import torch
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> tables = compare([("a", probs, torch.tensor([0, 1, 1]))]).tables
            >>> [row.name for row in tables.decoders], tables.classes[1][:2]  # a class, and the images that hold it
            (['argmax', 'rankseg(metric=dice)'], ('class 1', 1))
        """
        return read_tables(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict for each image and decoder, ready for ``pandas.DataFrame``.

        It holds ``image``, ``case``, ``decoder``, ``seconds``, ``pixel_accuracy``, the image-level scores, and the
        Dice and IoU of every scored class.

        Example:
            >>> import torch
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> found = compare([("a", probs, torch.tensor([0, 1, 1]))])
            >>> [(row["image"], row["decoder"], row["dice"]) for row in found.to_rows()]
            [('a', 'argmax', 0.6666666666666666), ('a', 'rankseg(metric=dice)', 0.6666666666666666)]
        """
        return rows(self)

    def plot(self, decoder: str | None = None) -> Figure:
        """Draw paired differences, scatter, classes and reliability in one figure; needs matplotlib.

        Args:
            decoder: which one to draw against the baseline; None takes the second.

        Example:
            >>> import torch
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[0.9, 0.6, 0.2], [0.1, 0.4, 0.8]])
            >>> figure = compare([("a", probs, torch.tensor([0, 1, 1])), ("b", probs, torch.tensor([0, 0, 1]))]).plot()
            >>> len(figure.axes)
            4
        """
        # Reports stand above comparisons; this is a door to them for users, nothing here needs them.
        from rankseg_plugins.report.charts import overview

        return overview(self, decoder or self.candidates[0])

    def report(self, path: str | PathLike[str]) -> None:
        """Write ``report.html``, ``report.md``, ``report.json`` and ``images.csv``.

        Args:
            path: of the folder, which is made if it is not there.

        Raises:
            ImportError: without the extra ``report``.
            OSError: if it cannot be written.

        Example:
            >>> import os, tempfile
            >>> import torch
            >>> from rankseg_plugins.comparison import compare
            >>> probs = torch.tensor([[[0.9, 0.6, 0.2]], [[0.1, 0.4, 0.8]]])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     compare([("a", probs, torch.tensor([[0, 1, 1]]))]).report(folder)
            ...     sorted(os.listdir(folder))
            ['images.csv', 'pictures', 'report.html', 'report.json', 'report.md']
        """
        # As in ``plot``, a door for users.
        from rankseg_plugins.report import write_report

        write_report(self, path)
