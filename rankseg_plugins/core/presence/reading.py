"""What users hand to ``PresenceRankSEG``, brought into one form or refused in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.core.fits.labels import read_truth
from rankseg_plugins.core.inputs.options import read_integer, read_real
from rankseg_plugins.core.inputs.probabilities import check_tensor, plain
from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.presence.choosing import Known

#: What a fit finds, and where some of it lies.
STATE = Known._fields
_RANGES = {"floor": (-1.0, 1.0), "below": (0.0, 1.0), "slope": (0.0, 1.0), "mean_score": (-1.0, 1.0)}


def read_excluded(excluded: Sequence[int], num_classes: int) -> tuple[int, ...]:
    """The option ``excluded``, in order."""
    if isinstance(excluded, str) or not isinstance(excluded, (Sequence, set, frozenset)):
        raise TypeError(f"excluded must be a list of classes, got {excluded!r}")
    found = tuple(read_integer("each of excluded", label) for label in excluded)
    if len(set(found)) >= num_classes or not all(0 <= label < num_classes for label in found):
        raise ValueError(f"excluded must hold some, not all, of the classes 0 to {num_classes - 1}, got {list(found)}")
    return tuple(sorted(set(found)))


def read_frequencies(values: Sequence[float] | Tensor, classes: int) -> Tensor:
    """The option ``frequencies``, (C,) float64."""
    if not isinstance(values, Tensor):
        if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, Iterable):
            raise TypeError(f"frequencies must be a list of numbers, class by class, or a tensor, got {values!r}")
        values = torch.tensor([read_real("each of frequencies", value, 0.0, 1.0) for value in values])
    values = check_tensor("frequencies", plain(values)).detach().double()
    if tuple(values.shape) != (classes,):
        raise ValueError(
            f"frequencies must hold a number for each of {classes} classes, got shape {tuple(values.shape)}"
        )
    return check_shares("frequencies", values)


def check_shares(name: str, values: Tensor) -> Tensor:
    """Raise a ``ValueError`` unless all values lie in [0, 1]; a graph does not look at them."""
    if not is_blind():
        strange = values[~((values >= 0) & (values <= 1))]
        if len(strange):
            raise ValueError(f"{name} must lie in [0, 1], got {strange[0].item():g}")
    return values


def what_is_wrong(state: dict[str, Tensor]) -> str | None:
    """Why nothing can be decided by what a ``state_dict`` says of a fit; None also if that is all NaN: not fitted."""
    found = {name: state[name] for name in STATE if name in state}
    if all(each.isnan().all() for each in found.values()):
        return None
    if len(found) < len(STATE):
        return f"presence holds {', '.join(STATE)}, got {', '.join(found)} alone"
    for name, each in found.items():
        low, high = _RANGES.get(name, (-math.inf, math.inf))
        if not (each.isfinite() & (each >= low) & (each <= high)).all():
            return f"{name} of the presence must be finite and lie in [{low:g}, {high:g}], got {each.tolist()}"
    return None


class Truth(NamedTuple):
    """What labels say of a batch.

    Args:
        there: (B, C) bool, the classes that the images hold.
        counts: (B,) bool, the images of which that is known.
        masks: of the classes, (B, C, *spatial) bool; None where only ``there`` is known.
        known: (B, *spatial) bool, where the masks are known.
    """

    there: Tensor
    counts: Tensor
    masks: Tensor | None = None
    known: Tensor | None = None

    @classmethod
    def read(cls, labels: Tensor, probs: Tensor, valid_mask: Tensor | None, ignore_index: int | None) -> Truth:
        """From labels, masks, or the classes of the images; see ``PresenceRankSEG.update``."""
        if isinstance(labels, Tensor) and labels.dtype == torch.bool and labels.shape == probs.shape[:2]:
            if ignore_index is not None:
                raise ValueError(f"ignore_index={ignore_index} has no effect with the classes of images")
            number = number_of(probs, valid_mask)
            there = labels.to(probs.device)
            return cls(there, number[:, 0] > 0 if isinstance(number, Tensor) else torch.ones_like(there[:, 0]))
        masks, known = read_truth(labels, probs, ignore_index, valid_mask)
        return cls(masks.flatten(2).any(-1), known.flatten(1).any(-1), masks, known)

    def score(self, masks: Tensor, metric: str) -> Tensor:
        """Of masks (B, C, *spatial) against it, (B, C) float64; NaN where it is empty or not known."""
        if self.masks is None or self.known is None:
            return torch.full(self.there.shape, torch.nan, dtype=torch.float64, device=self.there.device)
        known = self.known.unsqueeze(1)
        parts = (masks & self.masks & known, (masks | self.masks) & known)
        both, either = (each.flatten(2).sum(-1).double() for each in parts)
        score = both / either if metric == "iou" else 2 * both / (both + either)
        return score.masked_fill(~self.there, torch.nan)


def number_of(probs: Tensor, valid_mask: Tensor | None) -> Tensor | int:
    """Pixels of every image: one number for all, or (B, 1) float64."""
    if valid_mask is None:
        return math.prod(probs.shape[2:])
    return valid_mask.expand(len(probs), *probs.shape[2:]).flatten(1).sum(1, keepdim=True).double()
