"""The dataloaders of a running evaluation, and which images of a batch are there for the first time."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DistributedSampler

from rankseg_plugins.calibration.reliability import Calibration
from rankseg_plugins.core.processes import gather
from rankseg_plugins.lightning._toolkit import Trainer
from rankseg_plugins.lightning.figures import MostChanged, label_maps
from rankseg_plugins.lightning.reading import Images
from rankseg_plugins.lightning.reporting import LoaderReport
from rankseg_plugins.torchmetrics import MultiLevelScore

Dataloaders = Sequence[int] | Mapping[int, str] | None


def running_loaders(trainer: Trainer, stage: str) -> list[Any]:
    """The dataloaders of the evaluation that is running, by their index; one for several read in parallel.

    ``Trainer.val_dataloaders`` cannot tell: after a fit it keeps answering with the loaders of the fit.
    """
    if stage == "test":
        loop = trainer.test_loop
    else:
        loop = trainer.validate_loop if trainer.state.fn == "validate" else trainer.fit_loop.epoch_loop.val_loop
    combined = loop._combined_loader
    if combined is None:
        return []
    return list(combined.flattened) if combined._mode == "sequential" else [combined]


def check_dataloaders(dataloaders: Dataloaders) -> dict[int, str] | None:
    """Bring the option ``dataloaders`` into the form of index to name suffix; None means all.

    Raises:
        TypeError: if it is neither a sequence of indices nor a mapping of indices to names.
        ValueError: if an index is negative or two names are alike.
    """
    if dataloaders is None:
        return None
    if isinstance(dataloaders, str) or not isinstance(dataloaders, (Mapping, Sequence)):
        raise TypeError(f"dataloaders must be a sequence of indices or a mapping to names, got {dataloaders!r}")
    if isinstance(dataloaders, Mapping):
        result = dict(dataloaders)
    else:
        result = {index: default_suffix(index) for index in dataloaders}
    for index, name in result.items():
        if isinstance(index, bool) or not isinstance(index, int) or not isinstance(name, str):
            raise TypeError(f"dataloaders must hold indices (and names), got {index!r}: {name!r}")
        if index < 0:
            raise ValueError(f"dataloaders must hold indices from 0, got {index}")
    if not result or len(set(result.values())) < len(dataloaders):
        raise ValueError(f"dataloaders must hold at least one index and different names, got {dataloaders!r}")
    return result


def default_suffix(index: int) -> str:
    """The suffix that Lightning gives the values of a dataloader."""
    return f"dataloader_idx_{index}"


def suffixes(chosen: dict[int, str] | None, count: int) -> dict[int, str]:
    """Name suffix of each dataloader to score. A single unnamed dataloader needs none.

    Raises:
        ValueError: if a chosen dataloader does not exist.
    """
    if chosen is None:
        return {0: ""} if count == 1 else {index: f"/{default_suffix(index)}" for index in range(count)}
    if max(chosen) >= count:
        raise ValueError(f"dataloaders={sorted(chosen)} were asked for, the evaluation has {count}")
    unnamed = count == 1 and chosen == {0: default_suffix(0)}
    return {0: ""} if unnamed else {index: f"/{name}" for index, name in chosen.items()}


def new_images(loader: Any, batch_idx: int, given: int) -> int:
    """How many of the ``given`` images of a batch were not seen before.

    For several processes, PyTorch's and Lightning's distributed samplers repeat the first images at the end until every
    process has as many. Counting these twice would make the scores depend on the number of processes.
    """
    sampler, size = getattr(loader, "sampler", None), getattr(loader, "batch_size", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last or size is None:
        return given
    if not type(sampler).__module__.startswith(("torch.", "lightning.", "lightning_fabric.")):
        return given  # a sampler of the user may deal out the images in another way
    start = batch_idx * size
    if given != min(size, sampler.num_samples - start):
        return given  # not one prediction for each item of the data set
    items = len(sampler.dataset)  # type: ignore[arg-type]  # a distributed sampler needs its length, too
    own = len(range(sampler.rank, items, sampler.num_replicas))
    return max(0, min(given, own - start))


class LoaderScores:
    """What is kept of one dataloader during an evaluation."""

    def __init__(
        self, loader: Any, suffix: str, score: MultiLevelScore, examples: MostChanged, report: LoaderReport | None
    ) -> None:
        self.loader, self.suffix, self.examples, self.report = loader, suffix, examples, report
        self.score, self.baseline = copy.deepcopy(score), copy.deepcopy(score)
        self.seen = 0
        #: Images without probabilities by name, and why they are left out.
        self.skipped: dict[str, str] = {}

    def names(self, trainer: Trainer, count: int) -> list[str]:
        """Names of the next images: their places in the dataloader, for any number of processes."""
        # Samplers deal images out in turn.
        places = range(self.seen, self.seen + count)
        self.seen += count
        return [f"{trainer.global_rank + trainer.world_size * place:06d}" for place in places]

    def add(
        self, names: Sequence[str], images: Images, measured: Sequence[Calibration], argmax: Tensor, decided: Tensor
    ) -> None:
        r"""Keep what a batch scored.

        Args:
            names: of the images.
            images: that were decided.
            measured: the calibration of each, if there is a report.
            argmax: labels (B, \*spatial) or masks (B, C, \*spatial).
            decided: RankSEG's, likewise.
        """
        target = images.target
        self.score.update(decided, target)
        self.baseline.update(argmax, target)
        if self.report is not None:
            self.report.add(names, images.cases, measured, target, argmax, decided)
        if images.pictures is not None:
            maps = label_maps(target, argmax, decided, self.score.num_classes, self.score.ignore_index)
            self.examples.add(images.pictures, *maps)

    def left_out(self) -> str:
        """What to say of the images that are left out."""
        number, some = len(self.skipped), list(self.skipped.values())[:3]
        shown = "; ".join([*some, "..."] if number > len(some) else some)
        none_left = ", so that there is no score and no new report" if number == self.seen else ""
        return (
            f"{number} of {self.seen} images are left out of every score, of both decoders alike{none_left}: {shown}. "
            "The network gave these: look at its logits there, which may overflow in half precision"
        )

    def own_name(self, name: str) -> str:
        """The name of an image among those of all dataloaders."""
        return f"{self.suffix}/{name}".strip("/")

    def gather(self) -> None:
        """Know on every process what all have seen and left out; each must call it."""
        parts = gather((self.seen, self.skipped))
        self.seen = sum(seen for seen, _ in parts)
        self.skipped = {name: why for _, skipped in parts for name, why in sorted(skipped.items())}
