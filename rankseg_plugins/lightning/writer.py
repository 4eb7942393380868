"""Writes decided label maps while a Trainer predicts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins.calibration.deciding import as_decoder, decide
from rankseg_plugins.comparison.pictures.colours import check_palette, class_colours
from rankseg_plugins.core import RankSEG
from rankseg_plugins.core.inputs.probabilities import (
    ACTIVATIONS,
    check_choice,
    check_floating,
    check_shape,
    check_single_channel,
    plain,
)
from rankseg_plugins.files.label_files import LabelFiles, encode_npy, encode_png
from rankseg_plugins.lightning._toolkit import BasePredictionWriter, LightningModule, Trainer
from rankseg_plugins.lightning.reading import check_finite
from rankseg_plugins.lightning.reporting import Warner
from rankseg_plugins.lightning.sources import OUTPUTS, Finder, Source, Step, describe
from rankseg_plugins.scores.checks import naming

FORMATS = ("auto", "png", "npy")
EXTENSIONS = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "npy", "npz", "nii", "nrrd", "mha", "dcm", "gz")


class RankSEGPredictionWriter(BasePredictionWriter):
    """Decode what ``predict_step`` returns with RankSEG and write one file for each image.

    Label maps become PNGs: with a palette, or of 16 bit above 255 classes. Volumes, and masks of more than one class,
    become ``.npy``. Files are named after the index of the image in its data set, which is the same for any
    number of processes, or after ``names``. A file appears under its name only when it is complete.

    Args:
        output_dir: folder to write to, made if absent. With several dataloaders, each gets a folder of its own
            (``dataloader_idx_0``, ...).
        decoder: the decision, by default ``RankSEG()``; or the path of the file of a
            ``TunedDecoder``.
        logits: where the network's output (B, C, *spatial) is: a key (or attribute, or tuple index) of what
            ``predict_step`` returned, a pair such as ``("batch", "logits")``, or a callable
            ``(outputs, batch) -> tensor``. If ``predict_step`` returned a tensor, a key or index is not needed: it is
            that one. The first image is checked: a warning tells if softmax seems to have been applied twice.
        labels: the same for labels or masks that are decided already; then nothing is decoded, and the largest label
            of each image says how many bits it needs.
        activation: what turns logits into probabilities: ``"softmax"``, ``"sigmoid"``, ``"normalize"`` or
            ``"identity"``. What a step returns under ``"logits"`` is usually what its loss takes, hence the default;
            probabilities are told by a warning.
        names: where the names of the images of a batch are: a sequence of B strings or paths, whose folder and file
            extension are dropped. As the ``target`` of ``RankSEGCallback``. None takes the index.
        palette: RGB colours of the classes for PNGs; None takes those of PASCAL VOC.
        file_format: ``"png"``, ``"npy"``, or ``"auto"`` for PNG where it is possible.

    Raises:
        TypeError: for an option of the wrong type.
        ValueError: for an option that is unknown or does not fit the others, or a file that holds no decoder.
        OSError: if the file of the decoder cannot be read.

    Example:
        >>> writer = RankSEGPredictionWriter("predictions", RankSEG(metric="iou"), names="path")
        >>> writer.output_dir.name
        'predictions'
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        decoder: torch.nn.Module | str | os.PathLike[str] | None = None,
        *,
        logits: Source = "logits",
        labels: Source | None = None,
        activation: str = "softmax",
        names: Source | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        file_format: str = "auto",
    ) -> None:
        super().__init__(write_interval="batch")
        if not isinstance(output_dir, (str, os.PathLike)):
            raise TypeError(f"output_dir must be a path, got {output_dir!r}")
        if Path(output_dir).is_file():
            raise ValueError(f"output_dir must be a folder, {output_dir} is a file")
        decoder = None if decoder is None else as_decoder(decoder)
        if labels is not None and decoder is not None:
            raise ValueError("labels are decided already: give either labels or a decoder")
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("file_format", file_format, FORMATS)
        colours = class_colours(256) if palette is None else check_palette(palette)
        self.output_dir = Path(output_dir)
        self.decoder = RankSEG() if decoder is None else decoder
        # What was predicted is in what the step returned; labels of the batch would be the truth.
        self._logits = Finder("logits", logits, (OUTPUTS,))
        self._labels = None if labels is None else Finder("labels", labels, (OUTPUTS,))
        self._names_at = None if names is None else Finder("names", names)
        self.activation = activation
        self.palette = colours
        self.file_format = file_format
        self._files = LabelFiles(self.output_dir)
        self._warner = Warner()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse two writers that would overwrite each other's files.

        Raises:
            ValueError: if there are two with one folder.
        """
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # missing in the stubs
            same = isinstance(other, RankSEGPredictionWriter) and other is not self
            if same and other.output_dir.resolve() == self.output_dir.resolve():
                raise ValueError(f"two RankSEGPredictionWriters need two folders, both have {str(self.output_dir)!r}")

    def on_predict_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new set of files."""
        self._files = LabelFiles(self.output_dir)
        self._warner.start(trainer)
        if isinstance(self.decoder, torch.nn.Module):
            self.decoder.to(pl_module.device)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the images of one batch."""
        folder = f"dataloader_idx_{dataloader_idx}/" if trainer.predict_loop.num_dataloaders > 1 else ""
        step = Step("predict_step", prediction, batch, batch_idx, dataloader_idx)
        with naming(f"RankSEGPredictionWriter, {step}"):
            given = self._read(step)
            names = self._names(step, batch_indices, len(given))
            decided, classes = self._decide(given, list(names))
        for (name, image), labels in zip(names.items(), decided.cpu().numpy(), strict=True):
            extension, data = self._encode(labels, classes)
            self._files.write(f"{folder}{name}.{extension}", data, image)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse names that several processes gave to different images."""
        super().on_predict_epoch_end(trainer, pl_module)
        self._files.finish()

    def _read(self, step: Step) -> Tensor:
        """Labels or masks, or else logits."""
        if self._labels is not None:
            labels = self._labels.tensor(step)
            if labels.is_floating_point():
                raise TypeError(f"labels must be integer labels or bool masks, got {labels.dtype}")
            return labels
        if isinstance(step.outputs, Tensor) and isinstance(self._logits.source, (str, int)):
            logits = plain(step.outputs).detach()
        else:
            logits = self._logits.tensor(step)
        check_floating("logits", logits)
        check_shape(logits, "logits")
        return logits

    def _decide(self, given: Tensor, names: Sequence[str]) -> tuple[Tensor, int | None]:
        """Labels or masks, and the number of classes where it is known."""
        if self._labels is not None:
            return given, None
        check_single_channel(given, self.activation)
        self._warner.look_at(given, self.activation)
        check_finite(given, self.activation, names)
        return decide(self.decoder, given, self.activation), given.shape[1]

    def _names(self, step: Step, batch_indices: Sequence[int] | None, count: int) -> dict[str, str]:
        """The names of the files, and what tells each image from those of other batches."""
        indices = [f"image {index}" for index in batch_indices or ()]
        if self._names_at is None:
            if not batch_indices:
                raise ValueError("the dataloader does not tell the indices of its images: give names=")
            names, images = [f"{index:06d}" for index in batch_indices], indices
        else:
            found = self._names_at.find(step)
            if isinstance(found, str) or not all(isinstance(name, (str, os.PathLike)) for name in found):
                raise TypeError(
                    f"names={self._names_at.source!r} must lead to a list of strings or paths, got {describe(found)}"
                )
            given = [os.fspath(name) for name in found]
            names = [_without_extension(Path(name).name) for name in given]
            images = [" ".join(known) for known in zip(given, indices, strict=False)] if indices else given
        if len(names) != count or len(set(names)) < count or not all(names):
            raise ValueError(f"{count} images need {count} different names, got {names}")
        return dict(zip(names, images, strict=True))

    def _encode(self, labels: np.ndarray, classes: int | None) -> tuple[str, bytes]:
        if labels.dtype == bool and labels.ndim == 3 and labels.shape[0] == 1:
            labels = labels[0]
        if self.file_format == "npy" or (self.file_format == "auto" and (labels.ndim != 2 or self._has_odd_void())):
            return "npy", encode_npy(labels)
        wide = classes is not None and classes > 255
        try:
            return "png", encode_png(labels.astype(np.int64), self.palette, wide)
        except ValueError as error:
            raise ValueError(f"{error}; file_format='npy' takes any") from error

    def _has_odd_void(self) -> bool:
        """Whether the decoder may give a label that no PNG holds."""
        # Asked of the decoder, not of each image: all files of a run should be alike.
        decoder: Any = self.decoder
        may_be_void = self._labels is None and getattr(decoder, "unassigned_policy", "") == "void"
        return may_be_void and not 0 <= decoder.void_index <= 65535


def _without_extension(name: str) -> str:
    """Drop the extensions of images and arrays, and no other part of a name behind a dot."""
    stem, dot, extension = name.rpartition(".")
    return _without_extension(stem) if dot and extension.lower() in EXTENSIONS else name
