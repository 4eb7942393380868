"""Pictures of the images that RankSEG changes most: image | truth | argmax | RankSEG | difference."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rankseg_plugins._imports import require
from rankseg_plugins.comparison.pictures.colours import LEGEND, difference, distinct_colours, paint
from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.lightning._toolkit import Trainer
from rankseg_plugins.lightning.reading import Decided
from rankseg_plugins.lightning.reporting import Log, Warner
from rankseg_plugins.scores.truth import known_pixels, to_truth

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLOURS = distinct_colours(256)


class Drawing:
    """Draws the images of each dataloader that RankSEG changes most, for the loggers of the Trainer.

    Args:
        count: of them; 0 draws none.

    Raises:
        TypeError: unless it is an integer.
        ValueError: if it is below 0.
        ImportError: if there are to be any, and matplotlib is absent.
    """

    def __init__(self, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"log_images must be an integer, got {count!r}")
        if count < 0:
            raise ValueError(f"log_images must be at least 0, got {count}")
        if count:
            require("matplotlib", extra="report")
        self.count = count
        self._kept: dict[str, MostChanged] = {}

    def start(self, suffixes: Iterable[str]) -> None:
        """Begin anew, for dataloaders whose names of values end like this."""
        self._kept = {suffix: MostChanged(self.count) for suffix in suffixes}

    def add(self, batch: Decided) -> None:
        """Consider a batch."""
        images, task = batch.images, batch.task
        if images.pictures is not None:
            maps = label_maps(images.target, batch.argmax, batch.decided, task.num_classes, task.ignore_index)
            self._kept[batch.suffix].add(images.pictures, *maps)

    def write(self, trainer: Trainer, stage: str, log: Log, warner: Warner) -> None:
        """Hand the pictures of all processes to the loggers; each process must call it."""
        kept, self._kept = self._kept, {}
        for suffix, examples in kept.items() if self.count else ():
            best = examples.best()
            if trainer.is_global_zero:
                name = log.name(stage, "image", suffix=suffix)
                for problem in log_examples(trainer.loggers, name, best, trainer.global_step):
                    warner.once("log_images", f"log_images={self.count}, but {problem}")


@dataclass
class Example:
    """One image to draw, everything two-dimensional.

    Args:
        changed: share of the pixels of the image on which the decisions differ.
        image: (H, W, 3) uint8.
        truth: (H, W) labels, -1 where pixels do not count.
        argmax: (H, W) labels, -1 where void.
        rankseg: (H, W) labels, -1 where void.
    """

    changed: float
    image: np.ndarray
    truth: np.ndarray
    argmax: np.ndarray
    rankseg: np.ndarray


class MostChanged:
    """Keeps the ``count`` images with the largest change; images without any are not kept."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[float, int, Example]] = []
        self._seen = 0

    def add(self, images: Tensor, truth: Tensor, argmax: Tensor, rankseg: Tensor) -> None:
        """Consider a batch.

        Args:
            images: (B, K, *size), K colours or modalities; drawn at the size of the labels.
            truth: labels (B, *spatial), -1 where there is none; so are the two decisions.
            argmax: the decision of argmax.
            rankseg: the decision of RankSEG.
        """
        if images.shape[2:] != truth.shape[1:]:
            images = torch.nn.functional.interpolate(images.float(), size=tuple(truth.shape[1:]))
        shares = (argmax != rankseg).flatten(1).double().mean(1)
        for index, share in enumerate(shares.tolist()):
            self._seen += 1
            enough = len(self._heap) == self.count and share <= self._heap[0][0]
            if share == 0 or enough:
                continue
            maps = (truth[index], argmax[index], rankseg[index])
            # Earlier images win ties, whatever the size of the batches.
            entry = (share, -self._seen, _example(share, images[index], *maps))
            (heapq.heappush if len(self._heap) < self.count else heapq.heapreplace)(self._heap, entry)

    def best(self) -> list[Example]:
        """What was kept on any process, the largest change first."""
        kept = [example for *_, example in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
        return sorted((e for part in gather(kept) for e in part), key=lambda e: -e.changed)[: self.count]


def _example(share: float, image: Tensor, *maps: Tensor) -> Example:
    """Cut the plane with most changes out of a volume, and bring everything into drawable form."""
    image, maps = image.detach().cpu().float(), tuple(m.cpu() for m in maps)
    if maps[0].ndim == 1:
        image, maps = image.unsqueeze(1), tuple(m.unsqueeze(0) for m in maps)
    while maps[0].ndim > 2:
        plane = int((maps[1] != maps[2]).flatten(1).sum(1).argmax())
        image, maps = image[:, plane], tuple(m[plane] for m in maps)
    return Example(share, _as_rgb(image), *(m.numpy() for m in maps))


def _as_rgb(image: Tensor) -> np.ndarray:
    """(K, H, W) of any range to (H, W, 3) uint8: three channels are colours, else the first one is grey."""
    image = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    # Numbers that are none are drawn black, and must not squeeze the others into one colour.
    finite = image[image.isfinite()]
    low, high = finite.aminmax() if len(finite) else (image.new_zeros(()), image.new_zeros(()))
    image = image.nan_to_num(low.item(), low.item(), low.item())
    return ((image - low) / (high - low).clamp(min=1e-12) * 255).round().byte().permute(1, 2, 0).numpy()


def draw(example: Example) -> Figure:
    """Draw one example; needs matplotlib.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    require("matplotlib", extra="report")
    from matplotlib.figure import Figure

    panels = {
        "image": example.image,
        "truth": paint(example.truth, COLOURS),
        "argmax": paint(example.argmax, COLOURS),
        "RankSEG": paint(example.rankseg, COLOURS),
        "difference": difference(example.image, example.truth, example.argmax, example.rankseg),
    }
    height, width = example.truth.shape
    figure = Figure(figsize=(13, min(6.0, max(1.6, 2.5 * height / width)) + 0.7), dpi=100, layout="constrained")
    for axes, (name, picture) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axes.imshow(picture, interpolation="nearest", aspect="equal" if height > 1 else "auto")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.suptitle(f"{100 * example.changed:.2f} % of the pixels changed", fontsize=10, x=0.01, ha="left")
    _add_legend(figure)
    return figure


def _add_legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=tuple(np.divide(colour, 255)), label=label) for label, colour in LEGEND.items()]
    figure.legend(handles=patches, loc="outside lower right", ncols=3, fontsize=8, frameon=False)


def as_array(figure: Figure) -> np.ndarray:
    """Render a figure to (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def log_figure(logger: Any, name: str, figure: Figure, step: int) -> bool:
    """Hand a figure to a Lightning logger, through whichever method it has.

    Returns:
        Whether the logger takes figures or images at all.
    """
    if callable(getattr(logger, "log_image", None)):  # Weights & Biases
        logger.log_image(key=name, images=[as_array(figure)], step=step)
        return True
    experiment: Any = getattr(logger, "experiment", None)
    if callable(getattr(experiment, "add_figure", None)):  # TensorBoard
        experiment.add_figure(name, figure, global_step=step)
    elif callable(getattr(experiment, "log_figure", None)):
        run_id = getattr(logger, "run_id", None)
        if run_id is not None:  # MLflow
            experiment.log_figure(run_id, figure, f"{name}_{step}.png")
        else:  # Comet
            experiment.log_figure(figure_name=name, figure=figure, step=step)
    elif callable(getattr(experiment, "add_image", None)):
        experiment.add_image(name, as_array(figure), global_step=step, dataformats="HWC")
    else:
        return False
    return True


def label_maps(
    target: Tensor, argmax: Tensor, decided: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Truth and decisions of any form as numbers to draw, -1 for void.

    Args:
        target: truth in any form that the callback takes.
        argmax: labels (B, *spatial) or masks (B, C, *spatial).
        decided: likewise.
        num_classes: C.
        ignore_index: label of the truth whose pixels do not count.

    Returns:
        Three maps (B, *spatial): labels or, if one of the three is masks, in the bits all classes that hold the pixel.
    """
    spatial = tuple(decided.shape[2 if decided.dtype == torch.bool else 1 :])
    truth = to_truth(target, num_classes, spatial, ignore_index)
    known = known_pixels(truth, ignore_index)
    if truth.ndim > len(spatial) + 1:
        # A pixel that some mask ignores shows the classes that are known to hold it.
        truth = truth == 1
        known = None if known is None else known.all(1) | truth.any(1)
    as_bits = any(each.dtype == torch.bool for each in (truth, argmax, decided))
    found = [_one_map(each, num_classes, as_bits) for each in (truth, argmax, decided)]
    return found[0] if known is None else found[0].masked_fill(~known, -1), found[1], found[2]


def _one_map(decided: Tensor, num_classes: int, as_bits: bool) -> Tensor:
    # Beyond 62 classes some share a bit of the int64.
    if decided.dtype == torch.bool:
        bits = 2 ** (torch.arange(decided.shape[1], device=decided.device) % 62)
        return (decided * bits.view(1, -1, *[1] * (decided.ndim - 2))).sum(1)
    # The labels of one channel are 0 and 1, and its bits the same.
    void = (decided < 0) | (decided >= max(num_classes, 2))
    numbers = 2 ** (decided.clamp(min=0) % 62) if as_bits and num_classes > 1 else decided
    return numbers.masked_fill(void, -1)


def log_examples(loggers: Sequence[Any], name: str, examples: Sequence[Example], step: int) -> list[str]:
    """Draw examples for every logger.

    Returns:
        What to warn of: loggers that stumbled, or that none takes images. No picture is worth a training run.
    """
    problems = []
    for index, example in enumerate(examples):
        figure, taken = draw(example), False
        for logger in loggers:
            try:
                taken |= log_figure(logger, f"{name}/{index}", figure, step)
            except Exception as error:  # whatever a logger stumbles over
                taken = True
                problems.append(f"{type(logger).__name__} did not take an image: {type(error).__name__}: {error}")
        if not taken:
            kinds = ", ".join(type(logger).__name__ for logger in loggers) or "none"
            problems.append(f"no logger takes images (loggers: {kinds})")
    return problems
