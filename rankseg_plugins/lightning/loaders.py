"""The dataloaders of a running evaluation, and which images of a batch are there for the first time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import DistributedSampler

from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.lightning._toolkit import Trainer
from rankseg_plugins.lightning.reading import Images, are_finite
from rankseg_plugins.lightning.sources import Step

Dataloaders = Sequence[int] | Mapping[int, str] | None


class Loaders:
    """The dataloaders to score, and how the names of their values end.

    Args:
        dataloaders: indices, or a mapping of indices to names; None means all.

    Raises:
        TypeError: if it is neither.
        ValueError: if an index is negative or two names are alike.
    """

    def __init__(self, dataloaders: Dataloaders) -> None:
        self.names = _read_names(dataloaders)

    def __contains__(self, index: int) -> bool:
        return self.names is None or index in self.names

    def running(self, trainer: Trainer, stage: str) -> dict[int, Loader]:
        """Those of the evaluation that is running, by index.

        Raises:
            ValueError: if a chosen dataloader does not exist.
        """
        found = _running_loaders(trainer, stage)
        return {index: Loader(found[index], suffix) for index, suffix in self._suffixes(len(found)).items()}

    def _suffixes(self, count: int) -> dict[int, str]:
        """A single unnamed dataloader needs none."""
        chosen = self.names
        if chosen is None:
            return {0: ""} if count == 1 else {index: f"/{_default_name(index)}" for index in range(count)}
        if max(chosen) >= count:
            raise ValueError(f"dataloaders={sorted(chosen)} were asked for, the evaluation has {count}")
        unnamed = count == 1 and chosen == {0: _default_name(0)}
        return {0: ""} if unnamed else {index: f"/{name}" for index, name in chosen.items()}

    def possible_suffixes(self) -> list[str]:
        """As far as they are known before there are dataloaders; the first that Lightning numbers stands for all."""
        names = [_default_name(0)] if self.names is None else self.names.values()
        return ["", *(f"/{name}" for name in names)]


def _read_names(dataloaders: Dataloaders) -> dict[int, str] | None:
    """Bring the option ``dataloaders`` into the form of index to name."""
    if dataloaders is None:
        return None
    if isinstance(dataloaders, str) or not isinstance(dataloaders, (Mapping, Sequence)):
        raise TypeError(f"dataloaders must be a sequence of indices or a mapping to names, got {dataloaders!r}")
    if isinstance(dataloaders, Mapping):
        result = dict(dataloaders)
    else:
        result = {index: _default_name(index) for index in dataloaders}
    for index, name in result.items():
        if isinstance(index, bool) or not isinstance(index, int) or not isinstance(name, str):
            raise TypeError(f"dataloaders must hold indices (and names), got {index!r}: {name!r}")
        if index < 0:
            raise ValueError(f"dataloaders must hold indices from 0, got {index}")
    if not result or len(set(result.values())) < len(dataloaders):
        raise ValueError(f"dataloaders must hold at least one index and different names, got {dataloaders!r}")
    return result


def _default_name(index: int) -> str:
    """What Lightning calls a dataloader at the end of the names of its values."""
    return f"dataloader_idx_{index}"


def _running_loaders(trainer: Trainer, stage: str) -> list[Any]:
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


class Loader:
    """A dataloader that is scored: how many of its images were seen, and which are left out.

    Args:
        loader: what the Trainer reads.
        suffix: how the names of its values end.

    Attributes:
        seen: number of images, those left out among them.
        skipped: images without finite values by name, and why they are left out.
    """

    def __init__(self, loader: Any, suffix: str) -> None:
        self._loader, self.suffix = loader, suffix
        self.seen = 0
        self.skipped: dict[str, str] = {}

    def take(self, images: Images, step: Step, trainer: Trainer) -> Images:
        """Those of a batch that count: seen for the first time, and finite.

        Raises:
            ValueError: for values that are no probabilities.
        """
        count = new_images(self._loader, step.batch_idx, len(images.logits))
        finite, names = are_finite(images.logits, images.activation)[:count], self._names(trainer, count)
        process = f" of process {trainer.global_rank}" if trainer.world_size > 1 else ""
        why = f"NaN or infinite values ({step.name}, batch {step.batch_idx}{process})"
        self.skipped |= {names[i]: f"{names[i]}: {why}" for i in range(count) if not finite[i]}
        return images.select({i: names[i] for i in range(count) if finite[i]})

    def _names(self, trainer: Trainer, count: int) -> list[str]:
        """Of the next images: their places in the dataloader, for any number of processes."""
        # Samplers deal images out in turn.
        places = range(self.seen, self.seen + count)
        self.seen += count
        return [f"{trainer.global_rank + trainer.world_size * place:06d}" for place in places]

    def gather(self) -> None:
        """Know on every process what all have seen and left out; each must call it."""
        parts = gather((self.seen, self.skipped))
        self.seen = sum(seen for seen, _ in parts)
        self.skipped = {name: why for _, skipped in parts for name, why in sorted(skipped.items())}

    def left_out(self) -> str:
        """What to say of the images that are left out."""
        number, some = len(self.skipped), list(self.skipped.values())[:3]
        shown = "; ".join([*some, "..."] if number > len(some) else some)
        none_left = ", so that there is no score and no new report" if number == self.seen else ""
        return (
            f"{number} of {self.seen} images are left out of every score, of both decoders alike{none_left}: {shown}. "
            "The network gave these: look at its logits there, which may overflow in half precision"
        )


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
    found: int = max(0, min(given, own - start))
    return found
