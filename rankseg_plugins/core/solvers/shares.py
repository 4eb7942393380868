"""What the pixels of a mask add to its expected Dice in BA and TRNA, for several classes at a time.

With Z_-j the number of foreground pixels without pixel j,

    p_j P(Z_-j = z) = sum over m of share[j, m] kernel[m, z],

where the kernel has few rows m: the shares of a mask's pixels are added up before the sum over z is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rankseg_plugins.core.solvers.poisson_binomial import RefinedNormal
from rankseg_plugins.core.tiled.pieces import Bound, Group, number_among
from rankseg_plugins.core.tiled.tiles import row_sum
from rankseg_plugins.core.volumes import round_down

#: Points at which a smooth function is computed; between them it is the polynomial through them.
NODES = 24

#: Work in float64 on several copies of a tile takes this share of it at a time.
_TILE_SHARE = 16


@dataclass
class Counts:
    """Distributions of the numbers Z of foreground pixels of A classes, each on an interval of its own.

    Args:
        normal: the distributions, fields (A,).
        support: (A, W) the counts of the widest interval, each row from its own first one on.
        outside: (A, W) bool, those beyond the end of a row's interval.
    """

    normal: RefinedNormal
    support: Tensor
    outside: Tensor

    @classmethod
    def between(cls, normal: RefinedNormal, first: Tensor, last: Tensor) -> Counts:
        """On the counts from first (A,) to last (A,)."""
        width = int((last - first).max()) + 1
        support = first.unsqueeze(1) + torch.arange(width, dtype=torch.float64, device=first.device)
        return cls(normal, support, support > last.unsqueeze(1))

    def at(self, index: Tensor) -> Counts:
        """Those of the classes at ``index`` (N,)."""
        return Counts(self.normal.at(index), self.support[index], self.outside[index])

    @cached_property
    def pmf(self) -> Tensor:
        """P(Z = z), (A, W); of the interval alone."""
        return _on_interval(self.normal.at((slice(None), None)), self.support, self.outside)

    def pmf_without(self, p: Tensor) -> Tensor:
        """P(Z_-j = z), (A, K, W), where pixel j has the probability p (A, K)."""
        normal, p, spread = self.normal.at((slice(None), None, None)), p.unsqueeze(2), (p * (1 - p)).unsqueeze(2)
        without = RefinedNormal(normal.mean - p, normal.variance - spread, normal.third - spread * (1 - 2 * p))
        return _on_interval(without, self.support.unsqueeze(1), self.outside.unsqueeze(1))


def _on_interval(normal: RefinedNormal, support: Tensor, outside: Tensor) -> Tensor:
    pmf = normal.pmf(support).masked_fill_(outside, 0.0)
    return pmf.div_(pmf.sum(-1, keepdim=True))


class Shares:
    """The shares of the pixels of A classes, and their kernel.

    Args:
        counts: of the classes.
        chunk: entries of the largest intermediate matrices.
    """

    def __init__(self, counts: Counts, chunk: int) -> None:
        self.counts, self.chunk = counts, chunk

    @cached_property
    def kernel(self) -> Tensor:
        """(A, M, W)."""
        raise NotImplementedError

    @staticmethod
    def height(width: Tensor) -> Tensor:
        """M for intervals of these widths."""
        raise NotImplementedError

    def of_each(self, p: Tensor) -> Tensor:
        """Shares (A, K, M) of pixels with probabilities p (A, K)."""
        raise NotImplementedError

    def of_mask(self, group: Group, mask: Bound) -> Tensor:
        """Summed shares (A, M) of all pixels of the masks (b, c) of a group's classes."""
        raise NotImplementedError


class BlindShares(Shares):
    """BA: the distribution of Z serves for every pixel; M = 1, and a pixel's share is its probability."""

    @cached_property
    def kernel(self) -> Tensor:
        """See :class:`Shares`."""
        return self.counts.pmf.unsqueeze(1)

    @staticmethod
    def height(width: Tensor) -> Tensor:
        """See :class:`Shares`."""
        return torch.ones_like(width)

    def of_each(self, p: Tensor) -> Tensor:
        """See :class:`Shares`."""
        return p.unsqueeze(2)

    def of_mask(self, group: Group, mask: Bound) -> Tensor:
        """See :class:`Shares`."""
        return mask.s[group.wanted].unsqueeze(1)


class InterpolatedShares(Shares):
    """TRNA where Z has a variance of at least 1: the distribution without a pixel is smooth in its probability.

    The polynomial through its values at M points gives it to more than 9 digits.
    """

    @cached_property
    def kernel(self) -> Tensor:
        """See :class:`Shares`."""
        counts, support = self.counts, self.counts.support
        parts = points(support.device).split(max(1, self.chunk // support.numel()))
        return torch.cat([counts.pmf_without(part.expand(len(support), -1)) for part in parts], 1)

    @staticmethod
    def height(width: Tensor) -> Tensor:
        """See :class:`Shares`."""
        return torch.full_like(width, NODES)

    def of_each(self, p: Tensor) -> Tensor:
        """See :class:`Shares`."""
        return interpolation(p).mul_(p.unsqueeze(2))

    def of_mask(self, group: Group, mask: Bound) -> Tensor:
        """See :class:`Shares`."""
        # By sums of Chebyshev's polynomials T_k, of which Lagrange's are made up.
        tiles, wanted = group.tiles, group.wanted
        bound = round_down(mask.threshold, tiles.dtype).unsqueeze(-1)
        sums = torch.zeros(*wanted.shape, NODES, dtype=torch.float64, device=wanted.device)
        for images, classes, pixels in tiles.passes(wanted, _TILE_SHARE):
            tile = tiles.load(images, classes, pixels)
            p = (tile * (tile > bound[images, classes])).double()
            x = 2 * p - 1
            before, current = x, torch.ones_like(x)
            for k in range(NODES):
                sums[images, classes, k] += row_sum(p * current)
                before, current = current, (2 * x * current).sub_(before)
        orders = torch.arange(NODES, dtype=torch.float64, device=sums.device)
        sums[..., 0] /= 2
        return sums[wanted] @ torch.cos(orders.unsqueeze(1) * _angles(sums.device)) * (2 / NODES)


class OwnShares(Shares):
    """TRNA where Z has a smaller variance: the interval is short, and every pixel gets its own distribution, M = W."""

    @cached_property
    def kernel(self) -> Tensor:
        """See :class:`Shares`."""
        number, width = self.counts.support.shape
        return torch.eye(width, dtype=torch.float64, device=self.counts.support.device).expand(number, -1, -1)

    @staticmethod
    def height(width: Tensor) -> Tensor:
        """See :class:`Shares`."""
        return width

    def of_each(self, p: Tensor) -> Tensor:
        """See :class:`Shares`."""
        return self.counts.pmf_without(p).mul_(p.unsqueeze(2))

    def of_mask(self, group: Group, mask: Bound) -> Tensor:
        """See :class:`Shares`."""
        tiles, wanted = group.tiles, group.wanted
        bound = round_down(mask.threshold, tiles.dtype).masked_fill_(~wanted, torch.inf).unsqueeze(-1)
        index = number_among(wanted)
        total, step = torch.zeros_like(self.counts.support), max(1, self.chunk // self.counts.support.shape[1])
        for images, classes, pixels in tiles.passes(wanted, _TILE_SHARE):
            tile = tiles.load(images, classes, pixels)
            place = (tile > bound[images, classes]).nonzero(as_tuple=True)
            values, rows = tile[place].double(), index[images, classes][place[:2]]
            for p, row in zip(values.split(step), rows.split(step), strict=True):
                own = self.counts.at(row).pmf_without(p.unsqueeze(1)).squeeze(1)
                total.index_add_(0, row, own.mul_(p.unsqueeze(1)))
        return total


def points(device: torch.device) -> Tensor:
    """Chebyshev points (NODES,) in [0, 1]."""
    return (1 + torch.cos(_angles(device))) / 2


def interpolation(x: Tensor) -> Tensor:
    """Lagrange's polynomials of the points, (*shape, NODES), at x (*shape) in [0, 1], in barycentric form."""
    weights = torch.sin(_angles(x.device))
    weights[1::2] *= -1
    terms = x.unsqueeze(-1) - points(x.device)
    on_point = terms == 0
    torch.div(weights, terms.masked_fill_(on_point, 1.0), out=terms)
    terms.masked_fill_(on_point.any(-1, keepdim=True), 0.0).masked_fill_(on_point, 1.0)
    return terms.div_(terms.sum(-1, keepdim=True))


def _angles(device: torch.device) -> Tensor:
    return (2 * torch.arange(NODES, dtype=torch.float64, device=device) + 1) * math.pi / (2 * NODES)
