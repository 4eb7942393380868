"""What labelled images say of the classes of others: how likely one is there at all, and what its mask then scores.

The probability that an image holds a class is a logistic curve in what RMA finds of the class.

Three numbers of a class in an image are looked at: the largest probability, the mean one, and the score that RMA
expects of its mask; the first and the last as logits, the mean as its logarithm. All classes share their coefficients,
and each has an offset of its own, drawn towards 0 by a ridge: a class that was seldom seen falls back to the common
curve. Classes whose largest probability is below a floor are as good as never there, and are not worth a mask.

What a mask scores where its class is there follows from the probabilities as far as they can be trusted. Weak networks
promise too much for some classes, which the scores of their masks against the labels correct.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.tracing import exp, log
from rankseg_plugins.core.objectives import Objective

#: Of the coefficients, of statistics of unit variance, and of the offsets; that of what all classes have in common only
#: keeps it finite where every class is always there.
_RIDGE, _RIDGE_OF_ALL = 0.1, 1e-3
#: The floor saves time; as what a few images show of rare classes is little, it is not raised where it saves none. And
#: no class below it is less likely there than this, for all that was seen.
_HIGHEST_FLOOR, _OVERLOOKED = 0.1, 0.005
#: Images that stand for what is known of all classes, in the line of each.
_PSEUDO = 5
#: Newton's iteration, which takes about 8 rounds.
_ROUNDS, _HALVINGS = 50, 30
_SMALLEST = 1e-6
#: Of logits, whose exponential is finite; and one of which it is 0.
_SURE, _CERTAIN = 700, 1e4


class Evidence(NamedTuple):
    """What is kept of images, float64: all (N, C), but ``pixels`` (N, 1).

    Args:
        maximum: largest probability of the class.
        mu: sum of its probabilities.
        n: pixels of RMA's mask.
        s: sum of their probabilities.
        score: of the mask against the truth, where that is known and holds the class; else NaN.
        pixels: of the image.
    """

    maximum: Tensor
    mu: Tensor
    n: Tensor
    s: Tensor
    score: Tensor
    pixels: Tensor

    @classmethod
    def of(cls, maximum: Tensor, mu: Tensor, n: Tensor, s: Tensor, pixels: Tensor | int) -> Evidence:
        """From what RMA found in some images, whose truth is not known; their pixels may be one number for all."""
        maximum = maximum.double()
        # A graph may know the number as a symbol alone, of which a tensor is filled.
        pixels = pixels if isinstance(pixels, Tensor) else torch.full_like(maximum[:, :1], pixels)
        return cls(maximum, mu, n, s, maximum * torch.nan, pixels)

    @classmethod
    def from_rows(cls, rows: Tensor) -> Evidence:
        """What ``rows`` wrote."""
        classes = rows.shape[1] // 5
        return cls(*rows.double().split([classes] * 5 + [1], 1))

    def only(self, kept: Tensor) -> Evidence:
        """Of some of the images, (N,) bool."""
        return Evidence(*(each[kept] for each in self))

    def rows(self) -> Tensor:
        """A row for each image, (N, 5 C + 1)."""
        return torch.cat(list(self), 1)

    def statistics(self, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
        """What the curve looks at, each (N, C)."""
        mean = (self.mu / self.pixels.clamp(min=1)).clamp(min=_SMALLEST)
        return _logit(self.maximum), log(mean), _logit(objective.score(self.s, self.n, self.mu))

    def promised(self, q: Tensor, objective: Objective) -> Tensor:
        """Score that RMA expects of its mask given that the class is there, (N, C).

        Then a pixel belongs to the class with probability min(1, p / q).

        Args:
            q: (N, C), how likely the class is there.
            objective: what is expected.
        """
        likely = q.clamp(min=_SMALLEST)
        s, mu = (self.s / likely).minimum(self.n), (self.mu / likely).minimum(self.pixels)
        return objective.score(s, self.n, mu)


def _logit(share: Tensor) -> Tensor:
    share = share.clamp(min=_SMALLEST)
    return log(share / (1 - share).clamp(min=_SMALLEST))


class Curve(NamedTuple):
    """A fitted curve, float64.

    Args:
        weight: (3,), of the statistics.
        offset: (C,).
        floor: (1,), largest probability of a class that is not worth a look.
        below: (1,), how likely such a class is there.
    """

    weight: Tensor
    offset: Tensor
    floor: Tensor
    below: Tensor

    def presence(self, evidence: Evidence, objective: Objective) -> Tensor:
        """How likely each class is there, (N, C)."""
        logit = self.offset
        for index, statistic in enumerate(evidence.statistics(objective)):
            logit = logit + self.weight[index] * statistic
        odds = exp(logit.clamp(max=_SURE))
        return torch.where(evidence.maximum > self.floor, odds / (1 + odds), self.below)


class Expectation(NamedTuple):
    """What masks score where their class is there, against what their probabilities promise; float64.

    Args:
        slope: (1,), of the promise.
        intercept: (C,).
    """

    slope: Tensor
    intercept: Tensor

    def scores(self, evidence: Evidence, q: Tensor, objective: Objective) -> Tensor:
        """Expected score of RMA's masks, 0 where the truth is empty, (N, C)."""
        given = self.intercept + self.slope * evidence.promised(q, objective)
        return q * given.clamp(0, 1) * (evidence.n > 0)


def taken_at_their_word(classes: int) -> Expectation:
    """Masks score what their probabilities promise."""
    one = torch.ones(1, dtype=torch.float64, device="cpu")
    return Expectation(one, one.new_zeros(classes))


def fit_expectation(evidence: Evidence, q: Tensor, objective: Objective) -> Expectation:
    """A line for each class, of one slope in [0, 1] for all, by least squares; without any score the promise itself.

    Each class counts as if it had been seen in a few images more, of the average of all classes.

    Args:
        evidence: of N images, with scores.
        q: (N, C), how likely each class is there.
        objective: of the masks.
    """
    known = ~evidence.score.isnan()
    if not known.any():
        return taken_at_their_word(q.shape[1])
    score, promised = evidence.score.nan_to_num(0), evidence.promised(q, objective) * (known & (evidence.n > 0))
    number = known.sum(0) + _PSEUDO
    means = [(each.sum(0) + _PSEUDO * each.sum() / known.sum()) / number for each in (score, promised)]
    off_score, off_promised = ((each - mean) * known for each, mean in zip((score, promised), means, strict=True))
    spread = off_promised.square().sum()
    slope = ((off_score * off_promised).sum() / spread.clamp(min=_SMALLEST)).clamp(0, 1).view(1)
    return Expectation(slope, means[0] - slope * means[1])


def constant(frequencies: Tensor) -> Curve:
    """The curve that knows no more than how often each class is there, (C,)."""
    nothing = torch.zeros(1, dtype=torch.float64, device="cpu")
    # With a largest probability of 0 a class has no mask. Never and always are what they say, in finite numbers.
    offset = frequencies.double().logit().clamp(-_CERTAIN, _CERTAIN)
    return Curve(nothing.expand(3), offset, nothing - 1, nothing)


def fit_curve(evidence: Evidence, there: Tensor, objective: Objective) -> Curve:
    """Find the curve of the largest likelihood.

    Args:
        evidence: of N images.
        there: (N, C) bool, whether the truth holds the class.
        objective: of the masks.

    Source: ridge-penalised logistic regression, by Newton's iteration (Hastie, Tibshirani & Friedman, "The elements of
    statistical learning", 4.4).
    """
    floor, below = _floor(evidence.maximum, there)
    used = evidence.maximum > floor
    x = torch.stack(evidence.statistics(objective), -1)
    number = used.sum().clamp(min=1)
    mean = (x * used.unsqueeze(-1)).sum((0, 1)) / number
    spread = (((x - mean).square() * used.unsqueeze(-1)).sum((0, 1)) / number).sqrt().clamp(min=_SMALLEST)
    weight, offset = _newton((x - mean) / spread, there.double(), used.double())
    weight = weight / spread
    return Curve(weight, offset - (weight * mean).sum(), floor, below)


def _floor(maximum: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """The largest probability below which no class is there, and how likely one is that does not exceed it."""
    lowest = torch.where(there, maximum, _HIGHEST_FLOOR).amin().float()
    floor = torch.nextafter(lowest.clamp(max=_HIGHEST_FLOOR), lowest.new_zeros(())).clamp(min=0).double().view(1)
    return floor, (0.5 / ((maximum <= floor).sum() + 1)).double().clamp(max=_OVERLOOKED).view(1)


def _newton(x: Tensor, there: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (K,) and offsets (C,), from (N, C, K), (N, C) and (N, C)."""
    classes, k = x.shape[1:]
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    ridge = torch.full((k + 1 + classes,), _RIDGE, dtype=x.dtype, device=x.device)
    ridge[k] = _RIDGE_OF_ALL

    def logits(found: Tensor) -> Tensor:
        return (x * found[: k + 1]).sum(-1) + found[k + 1 :]

    def loss(found: Tensor) -> Tensor:
        # binary_cross_entropy_with_logits would call all threads for a few numbers, as matrix products below would.
        logit = logits(found)
        each = torch.nn.functional.softplus(logit) - there * logit
        return (each * used).sum() + (ridge * found.square()).sum() / 2

    found = torch.zeros_like(ridge)
    value = loss(found)
    for _ in range(_ROUNDS):
        p = logits(found).sigmoid()
        excess, spread = (p - there) * used, p * (1 - p) * used
        weighted = x * spread.unsqueeze(-1)
        shared = torch.stack([(weighted[..., i : i + 1] * x).sum((0, 1)) for i in range(k + 1)])
        mixed = weighted.sum(0).T
        hessian = torch.cat([torch.cat([shared, mixed], 1), torch.cat([mixed.T, spread.sum(0).diag()], 1)])
        gradient = torch.cat([(x * excess.unsqueeze(-1)).sum((0, 1)), excess.sum(0)]) + ridge * found
        step = torch.linalg.solve(hessian + ridge.diag(), gradient)
        for _ in range(_HALVINGS):
            following = loss(found - step)
            if following <= value:
                break
            step = step / 2
        else:
            break
        done = value - following <= 1e-10 * value
        found, value = found - step, following
        if done:
            break
    weight, offset = found[:k], found[k] + found[k + 1 :]
    return weight, offset
