"""Decoders compared while an evaluator of MONAI runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rankseg_plugins._imports import require
from rankseg_plugins.comparison import Comparison, Recorder, Sample
from rankseg_plugins.comparison.decoders import Decoder
from rankseg_plugins.comparison.recording import DECODERS
from rankseg_plugins.core.fits.processes import number, rank
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, check_choice, to_probabilities
from rankseg_plugins.scores.checks import naming

if TYPE_CHECKING:
    from ignite.engine import Engine


class RankSEGCompareHandler:
    """Score argmax and RankSEG on the same images, with paired intervals, at the end of each run of an evaluator.

    It writes ``"<decoder>/<score>_<level>"`` of Dice and IoU to ``engine.state.metrics``, says in the log what the
    change of decoder does, and keeps the whole as ``comparison``. Several processes score the images of all; an image
    must not come twice, as a sampler that pads does it.

    Args:
        decoders: see ``rankseg_plugins.comparison.compare``; the first is the baseline.
        num_classes: C.
        output_transform: takes ``engine.state.output`` and gives two lists, of the images' outputs (C, *spatial) and
            of their labels (1, *spatial), or masks (C, *spatial): mostly
            ``monai.handlers.from_engine(["pred", "label"])``. It has to come before a transform that decides.
        activation: what makes probabilities of an output; see ``RankSEG``.
        report: folder to write the report to; None writes none.
        class_names: C names; None numbers the classes.
        **options: ``ignore_index``, ``scoring``, ``extra``, ``risk_coverage``, ``panels`` and ``device`` of
            ``Recorder``, which decides on the CPU unless told. Sizes of pixels, which some extra scores ask for, are
            those of a MetaTensor with an affine.

    Attributes:
        comparison: of the last run; None before the first.

    Raises:
        TypeError: for an option of the wrong type, or outputs that are no pair of lists.
        ValueError: for an option out of range; during a run for what does not fit, with the name of the image.
        ImportError: without ``ignite``, when it is attached.

    Example:
        >>> RankSEGCompareHandler(num_classes=3).comparison is None
        True
    """

    def __init__(
        self,
        decoders: Iterable[str] | Mapping[str, Decoder] = DECODERS,
        *,
        num_classes: int,
        output_transform: Callable[[Any], tuple[Sequence[Tensor], Sequence[Tensor]]] = lambda output: output,
        activation: str = "identity",
        report: str | os.PathLike[str] | None = None,
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        if not callable(output_transform):
            raise TypeError(f"output_transform must be callable, got {output_transform!r}")
        if isinstance(decoders, Iterable) and not isinstance(decoders, (str, Mapping)):
            decoders = tuple(decoders)
        self._start: Callable[[], Recorder] = lambda: Recorder(decoders, num_classes=num_classes, **options)
        self._recorder = self._start()
        self.output_transform, self.activation = output_transform, activation
        self.report, self.class_names = report, class_names
        self.comparison: Comparison | None = None

    def attach(self, engine: Engine) -> None:
        """Take part in the runs of an engine; its outputs are decollated.

        Example:
            >>> import torch
            >>> from ignite.engine import Engine
            >>> engine, handler = Engine(lambda engine, batch: batch), RankSEGCompareHandler(num_classes=2)
            >>> handler.attach(engine)
            >>> outputs, labels = [torch.tensor([[0.9, 0.6], [0.1, 0.4]])], [torch.tensor([[0, 1]])]
            >>> engine.run([(outputs, labels)]).metrics["argmax/dice_image"]
            0.3333333333333333
        """
        events = require("ignite.engine", extra="monai").Events
        engine.add_event_handler(events.EPOCH_STARTED, self.start)
        engine.add_event_handler(events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(events.EPOCH_COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Begin anew."""
        self._recorder = self._start()

    def update(self, engine: Engine) -> None:
        """Score the images of one iteration.

        Raises:
            TypeError: if the outputs are no pair of lists.
            ValueError: for an image that does not fit, or a name that comes twice.
        """
        found = self.output_transform(engine.state.output)
        if not isinstance(found, tuple) or [type(each) for each in found] != [list, list]:
            raise TypeError(
                "output_transform must give two lists, of outputs and of labels, as "
                f'monai.handlers.from_engine(["pred", "label"]) does; got {found!r:.200}'
            )
        for output, label in zip(*found, strict=True):
            name = _name_of(output, label) or f"image {len(self._recorder.measurements) * number() + rank()}"
            with naming(name):
                self._recorder.add(self._sample(name, output, label))

    def _sample(self, name: str, output: Tensor, label: Tensor) -> Sample:
        spacing = next((_spacing(each) for each in (output, label) if "affine" in getattr(each, "meta", ())), None)
        probs = to_probabilities(output.unsqueeze(0), self.activation)[0]
        if len(probs) > 1 and bool(((probs == 0) | (probs == 1)).all()):
            raise ValueError("is decided already: compare what the network gives, before AsDiscrete or RankSEG")
        return Sample(name, probs, label, spacing=spacing)

    def finish(self, engine: Engine) -> None:
        """Say what was found; each process must call it."""
        self._recorder.gather()
        found = self._recorder.comparison(self.class_names)
        for decoder in found.decoders:
            for level in ("dataset", "image", "class"):
                for score in ("dice", "iou"):
                    engine.state.metrics[f"{decoder}/{score}_{level}"] = found.level(decoder, score, level)
        self.comparison = found
        if rank() == 0:
            for decoder in found.candidates:
                engine.logger.info(found.verdict(decoder).sentence)
            if self.report is not None:
                found.report(self.report)


def _name_of(*images: Tensor) -> str | None:
    """The file of an image, by its meta data."""
    names = (getattr(image, "meta", {}).get("filename_or_obj") for image in images)
    return next((name for name in names if isinstance(name, str)), None)


def _spacing(image: Any) -> tuple[float, ...]:
    return tuple(image.pixdim.tolist())[: image.ndim - 1]
