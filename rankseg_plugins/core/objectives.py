"""Dice and IoU of a volume, as the reciprocal moment approximation (RMA) sees them.

One class of one image holds pixels with probabilities p_1..p_d and expected size ``mu = sum(p)``. A mask of ``n``
pixels whose probabilities add up to ``s`` has the approximate expected scores

    Dice: 2 s / (n + mu + 1 + g) + g / (n + mu + g)        IoU: (s + g) / (n + mu - s + g)

with ``g = smooth`` (Wang & Dai, "RankSEG-RMA", NeurIPS 2025, arXiv 2510.15362). All methods are elementwise over
tensors of any one shape; 0 / 0 counts as 0, the value of the empty mask at ``smooth = 0``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` with 0 / 0 := 0."""
    return numerator / (denominator + (denominator == 0))


@dataclass(frozen=True)
class Objective:
    """Approximate expected score of a mask, as a function of its volume.

    Args:
        smooth: the g of the formulas, >= 0.
    """

    smooth: float = 0.0

    @property
    def is_ratio(self) -> bool:
        """Whether the score is one ratio of functions linear in (s, n): then its best mask is ``p > threshold``."""
        raise NotImplementedError

    def score(self, s: Tensor, n: Tensor, mu: Tensor) -> Tensor:
        """Score of a mask of ``n`` pixels with probability sum ``s``."""
        raise NotImplementedError

    def threshold(self, s: Tensor, n: Tensor, mu: Tensor) -> Tensor:
        """Dinkelbach's next threshold from a mask (s, n): a lower bound of the best one, equal to it at the optimum."""
        raise NotImplementedError

    def ceiling(self, mu: Tensor) -> Tensor:
        """A probability above which a pixel belongs to the best mask, whatever the other pixels are."""
        return torch.full_like(mu, 0.5)

    def ceiling_beyond(self, n: Tensor, floor: Tensor, mu: Tensor) -> Tensor:
        """A lower ceiling for masks of at least ``n`` pixels; ``floor`` is the optimal threshold, for a ratio."""
        return floor

    def gain(self, p: Tensor, m: Tensor, t: Tensor, mu: Tensor) -> Tensor:
        """Change of the score when one pixel of probability ``p`` joins a mask of ``t`` pixels that sum to ``m``.

        Written in factored form: the difference of the two scores would lose its sign to rounding.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Dice(Objective):
    """Dice coefficient.

    Example:
        >>> mu = torch.tensor(1.3)
        >>> Dice().score(torch.tensor(0.9), torch.tensor(1.0), mu)  # 1.8 / 3.3
        tensor(0.5455)
    """

    @property
    def is_ratio(self) -> bool:
        """True at ``smooth = 0`` only: the smoothing adds a term that is convex in the volume."""
        return self.smooth == 0

    def score(self, s: Tensor, n: Tensor, mu: Tensor) -> Tensor:
        """``2 s / (n + mu + 1 + g) + g / (n + mu + g)``; the empty mask scores ``g / (mu + g)``."""
        size = n + mu
        score = 2 * s / (size + (1 + self.smooth))
        return score if self.smooth == 0 else score + self.smooth / (size + self.smooth)

    def threshold(self, s: Tensor, n: Tensor, mu: Tensor) -> Tensor:
        """``(s + g/2) / (n + mu + 1 + g)``.

        At g > 0 it belongs to the ratio part ``(2s + g) / (n + mu + 1 + g)`` of the score; what remains,
        ``g / ((n + mu + 1 + g)(n + mu + g))``, falls with n, so the best mask is never larger than the ratio's.
        """
        return (s + self.smooth / 2) / (n + mu + (1 + self.smooth))

    def ceiling(self, mu: Tensor) -> Tensor:
        """1/2 at g = 0.

        At g > 0, with D = n + mu + 1 + g, one more pixel gains iff ``p > (s + g / 2) / D + g / (D (D - 1))``. The
        first term is at most ``(mu + g / 2) / (2 mu + 1 + g)`` (s <= mu and s <= n), the second is largest at n = 0.
        """
        g = self.smooth
        if g == 0:
            return super().ceiling(mu)
        return (mu + g / 2) / (2 * mu + 1 + g) + self._margin(mu)

    def ceiling_beyond(self, n: Tensor, floor: Tensor, mu: Tensor) -> Tensor:
        """A ceiling for masks of at least ``n`` pixels, once ``floor`` is the optimal threshold of the ratio part."""
        # No mask has a larger first term than `floor`.
        return floor + self._margin(n + mu)

    def _margin(self, size: Tensor) -> Tensor:
        """``g / (D (D - 1))`` with ``D = size + 1 + g``, and a little more for rounding."""
        return self.smooth * (1 + 1e-9) / (size + self.smooth) / (size + (1 + self.smooth)) + 1e-15

    def gain(self, p: Tensor, m: Tensor, t: Tensor, mu: Tensor) -> Tensor:
        """``2 (p - m / D) / (D + 1) - g / (D (D - 1))`` with ``D = t + mu + 1 + g``."""
        d = t + mu + 1 + self.smooth
        gain = 2 * (p - m / d) / (d + 1)
        return gain if self.smooth == 0 else gain - self.smooth / d / (t + mu + self.smooth)


@dataclass(frozen=True)
class IoU(Objective):
    """Intersection over union (Jaccard index).

    Example:
        >>> mu = torch.tensor(1.3)
        >>> IoU().score(torch.tensor(0.9), torch.tensor(1.0), mu)  # 0.9 / 1.4
        tensor(0.6429)
    """

    @property
    def is_ratio(self) -> bool:
        """True for every ``smooth``."""
        return True

    def score(self, s: Tensor, n: Tensor, mu: Tensor) -> Tensor:
        """``(s + g) / (n + mu - s + g)``; the empty mask scores ``g / (mu + g)``."""
        return _ratio(s + self.smooth, n + mu - s + self.smooth)

    def threshold(self, s: Tensor, n: Tensor, mu: Tensor) -> Tensor:
        """``(s + g) / (n + mu + 2 g)``, which is L / (1 + L) for a mask of score L."""
        return _ratio(s + self.smooth, n + mu + 2 * self.smooth)

    def gain(self, p: Tensor, m: Tensor, t: Tensor, mu: Tensor) -> Tensor:
        """``(p - r (1 - p)) / (u + 1 - p)`` with ``u = t + mu - m + g`` and ``r = (m + g) / u``."""
        u = t + mu - m + self.smooth
        r = _ratio(m + self.smooth, u)
        denominator = u + 1 - p
        return (p - r * (1 - p)).div_(denominator.masked_fill_(denominator == 0, 1.0))


OBJECTIVES: dict[str, type[Objective]] = {"dice": Dice, "iou": IoU}
