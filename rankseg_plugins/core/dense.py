"""RMA as one graph of whole-tensor operations, for exporters, for other devices, and where there are no kernels.

Nothing here depends on the values of the tensors: no synchronisation with the host, no branch, no shape. The kernels
are better, in time and memory. Both give the same decision, but where two classes gain the same to the last digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.inputs.probabilities import assert_range
from rankseg_plugins.core.objectives import Objective
from rankseg_plugins.core.values import GraphValues
from rankseg_plugins.core.volumes import Volumes, round_down

#: Dinkelbach's iteration converges faster than linearly, real images take 5 to 9 rounds; more change nothing.
_ROUNDS = 16


def to_checked(probs: Tensor, valid_mask: Tensor | None) -> Tensor:
    """Probabilities as (B, C, d) in float32 or float64, clamped, invalid pixels 0; a bad value fails an assertion.

    On a GPU the assertion is asynchronous, and its failure shows at the next synchronisation.
    """
    p = probs.flatten(2)
    p = p if p.dtype == torch.float64 else p.float()
    if valid_mask is not None:
        p = p.masked_fill(~valid_mask.expand(probs.shape[0], *probs.shape[2:]).flatten(1).unsqueeze(1), 0.0)
    assert_range(p)
    return p.clamp(0.0, 1.0)


class GraphSteps:
    """The steps of ``rankseg_plugins.core.rma``; in a graph, and on an accelerator, nothing waits for a value."""

    def __init__(self, pixels: Pixels) -> None:
        self._p = to_checked(pixels.probs(), pixels.valid)

    def search(self, objective: Objective, pruning: float | Tensor) -> Volumes:
        """See ``rankseg_plugins.core.rma.Steps``."""
        p = self._p
        mu, self.maximum = p.sum(-1, dtype=torch.float64), p.amax(-1)
        active = self.maximum > pruning
        search = _dinkelbach if objective.is_ratio else _best_prefix
        threshold, n, s = search(p, objective, mu)
        threshold = round_down(threshold, p.dtype).masked_fill(~active, torch.inf)
        return Volumes(threshold, n * active, s * active, mu, active)

    def labels(self, volumes: Volumes, objective: Objective, void_index: int | None) -> Tensor:
        """See ``rankseg_plugins.core.rma.Steps``."""
        p = self._p
        selected = p > volumes.threshold.unsqueeze(-1)
        count = selected.sum(1, keepdim=True)
        alone = selected & (count == 1)
        t = alone.sum(-1, keepdim=True).double()
        m = (p * alone).sum(-1, keepdim=True, dtype=torch.float64)
        eligible = volumes.active | ~volumes.active.any(1, keepdim=True)
        allowed = selected | ((count == 0) & eligible.unsqueeze(-1))
        gain = objective.gain(p.double(), m, t, volumes.mu.unsqueeze(-1)).masked_fill(~allowed, -torch.inf)
        # A pixel without any probability: as argmax.
        labels = gain.max(1).indices.masked_fill(p.amax(1) == 0, 0)
        return labels if void_index is None else labels.masked_fill(count[:, 0] == 0, void_index)

    def masks(self, volumes: Volumes) -> Tensor:
        """See ``rankseg_plugins.core.rma.Steps``."""
        return self._p > volumes.threshold.unsqueeze(-1)

    def values(self) -> GraphValues:
        """See ``rankseg_plugins.core.rma.Steps``."""
        return GraphValues(self._p)


def _dinkelbach(p: Tensor, objective: Objective, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    threshold = objective.ceiling(mu)
    for round_ in range(_ROUNDS):
        above = p > round_down(threshold, p.dtype).unsqueeze(-1)
        n = above.sum(-1).double()
        s = (p * above).sum(-1, dtype=torch.float64)
        raised = objective.threshold(s, n, mu)
        # The first step starts from the ceiling and comes down; from then on the threshold only grows.
        threshold = raised if round_ == 0 else torch.maximum(threshold, raised)
    return threshold, n, s


def _best_prefix(p: Tensor, objective: Objective, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ranked = p.sort(dim=-1, descending=True).values
    nothing = torch.zeros_like(ranked[..., :1])
    s = torch.cat([nothing.double(), ranked.cumsum(-1, dtype=torch.float64)], dim=-1)
    n = torch.arange(s.shape[-1], dtype=torch.float64, device=p.device).expand_as(s)
    # {p > following} is the prefix; a prefix that ends inside a run of equal values is none.
    following = torch.cat([ranked, nothing - 1], dim=-1)
    before = torch.cat([nothing + torch.inf, ranked], dim=-1)
    score = objective.score(s, n, mu.unsqueeze(-1).expand_as(s)).masked_fill(following == before, -torch.inf)
    best = score.argmax(-1, keepdim=True)
    return following.gather(-1, best)[..., 0].double(), best[..., 0].double(), s.gather(-1, best)[..., 0]
