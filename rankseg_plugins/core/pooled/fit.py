"""The affine rule of the best pooled score, from a sample of pixels; see ``rankseg_plugins.core.pooled.decoder``.

``probs`` and ``truth`` are (K, C), ``volumes`` (C,) the column sums of ``truth``, which without labels is ``probs``
itself. The rule is ``argmax of scale * probs - offset``, with one threshold ``offset / scale`` a class for masks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rankseg_plugins.core.inputs.tracing import is_blind
from rankseg_plugins.core.kernels import has_numba
from rankseg_plugins.core.volumes import round_down

ROUNDS = 30
DAMPING = 0.5


class GlobalFit(NamedTuple):
    """What a fit found; scores are those of the sample that it was fitted on.

    Args:
        before: pooled score of plain argmax (multilabel: of the threshold 1/2), expected or, with labels, measured. It
            is the mean over the pursued classes; if none is pursued, over all that occur (without labels: that have
            any probability), and NaN if none does.
        after: that of the fitted decision, never below ``before``.
        pursued: (C,) bool, the classes that the decision was fitted to.
        left_out: of each of the other classes, why it is not pursued.
    """

    before: float
    after: float
    pursued: Tensor
    left_out: dict[int, str]


class Rule(NamedTuple):
    """A rule and its scores, see ``GlobalFit``; scale and offset are (C,) float64."""

    before: float
    after: float
    scale: Tensor
    offset: Tensor

    def least(self, probs: Tensor, masks: bool) -> Tensor:
        """(C,) float64, the probability that as many pixels of the sample reach as a class has; 2 if it has none."""
        if masks:
            thresholds = self.offset / self.scale
            counts = [int((p > threshold).sum()) for p, threshold in zip(probs.T, thresholds, strict=True)]
        else:
            labels = affine_argmax(probs, self.scale, self.offset)
            counts = torch.bincount(labels, minlength=probs.shape[1]).tolist()
        found = [p.kthvalue(len(p) + 1 - k).values.item() if k else 2 for p, k in zip(probs.T, counts, strict=True)]
        return torch.tensor(found, dtype=torch.float64, device="cpu")


def fit_masks(probs: Tensor, truth: Tensor, volumes: Tensor, thresholds: Tensor, pursued: Tensor, metric: str) -> Rule:
    """Thresholds of the pursued classes, where they are better than 1/2."""
    half = torch.full_like(thresholds, 0.5)
    before, after = (_mask_scores(probs, truth, volumes, each, metric) for each in (half, thresholds))
    # A class leaves 1/2 only for a better score: so the mean, too, cannot fall.
    better = pursued & (after > before)
    thresholds, after = thresholds.where(better, half), after.where(better, before)
    mean_before, mean_after = (_mean_score(each, volumes, pursued) for each in (before, after))
    return Rule(mean_before, mean_after, torch.ones_like(volumes), thresholds.to(volumes))


def _mask_scores(probs: Tensor, truth: Tensor, volumes: Tensor, thresholds: Tensor, metric: str) -> Tensor:
    hits, counts = torch.zeros_like(volumes), torch.zeros_like(volumes)
    for label, threshold in enumerate(thresholds):  # one class at a time saves memory
        mask = probs[:, label] > threshold
        hits[label], counts[label] = truth[mask, label].double().sum(), mask.sum()
    return _scores(hits, counts, volumes, metric)


def fit_labels(probs: Tensor, truth: Tensor, volumes: Tensor, pursued: Tensor, metric: str) -> Rule:
    """Fixed-point iteration from argmax; it may oscillate, so steps are damped and the best rule is kept."""
    classes = probs.shape[1]
    largest = int(volumes.masked_fill(~pursued, -1).argmax())
    scale, offset = torch.ones_like(volumes), torch.zeros_like(volumes)
    scores, rules = [], []
    for _ in range(ROUNDS if pursued.any() else 1):
        rules.append((scale / scale.max(), offset / scale.max()))  # only the ratios matter
        labels = affine_argmax(probs, *rules[-1])
        hits = torch.zeros_like(volumes)
        hits.scatter_add_(0, labels, truth.gather(1, labels[:, None])[:, 0].double())
        counts = torch.bincount(labels, minlength=classes).double()
        scores.append(_mean_score(_scores(hits, counts, volumes, metric), volumes, pursued))
        target = _tangent(hits / len(probs), counts / len(probs), volumes / len(probs), metric)
        # Where nothing is pursued, a class meets the largest one as under argmax.
        target = [each.where(pursued, each[largest]) for each in target]
        step = 1.0 if len(rules) == 1 else DAMPING
        scale, offset = (old + step * (new - old) for old, new in zip((scale, offset), target, strict=True))
    best = max(range(len(scores)), key=scores.__getitem__)
    return Rule(scores[0], scores[best], *rules[best])


def _tangent(hits: Tensor, counts: Tensor, volumes: Tensor, metric: str) -> list[Tensor]:
    """Slope of every class's score in its hits and in its count, from shares of the pixels."""
    tiny = torch.finfo(torch.float32).tiny
    if metric == "iou":
        union = (counts + volumes - hits).clamp(min=tiny)
        return [(union + hits) / union.square(), hits / union.square()]
    total = (counts + volumes).clamp(min=tiny)
    return [2 / total, 2 * hits / total.square()]


def _scores(hits: Tensor, counts: Tensor, volumes: Tensor, metric: str) -> Tensor:
    """Pooled score of each class, (C,) float64; NaN for one that neither occurs nor is chosen."""
    total = counts + volumes
    return hits / (total - hits) if metric == "iou" else 2 * hits / total


def _mean_score(scores: Tensor, volumes: Tensor, pursued: Tensor) -> float:
    """Mean over the pursued classes, or over those that occur if there are none."""
    return scores[pursued if pursued.any() else volumes > 0].mean().item()


def sums_of(rows: Tensor) -> Tensor:
    """Sum of each column in float64, one at a time: all at once would take 8 bytes for every value."""
    return torch.stack([column.sum(dtype=torch.float64) for column in rows.T])


def best_thresholds(probs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Best pooled Dice of each class alone (float64), and the threshold of its mask (float32).

    It lies halfway between the pixels inside and outside, rounded so that no pixel of the sample changes sides.
    """
    found = []
    for p, t in zip(probs.T, truth.T, strict=True):
        ranked, order = p.double().sort(descending=True)
        number = torch.arange(1, len(p) + 1, dtype=torch.float64, device=p.device)
        scores = 2 * t[order].double().cumsum(0) / (number + t.double().sum())
        following = torch.cat([ranked[1:], ranked.new_zeros(1)])
        scores[ranked == following] = -1  # equal probabilities stay together
        best = int(scores.argmax())
        found.append((scores[best].clamp(min=0), (ranked[best] + following[best]) / 2))
    dice, thresholds = zip(*found, strict=True)
    return torch.stack(dice), round_down(torch.stack(thresholds), torch.float32)


#: Values of a sample that are decided on at once.
_AT_ONCE = 1 << 20


def affine_argmax(probs: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Class of the largest ``scale * probs - offset``, the lowest class of equals; one class at a time saves memory.

    In float32 for probabilities of every dtype, as the sample holds them: what is decided is what was scored. A pixel
    without any probability, such as one outside of a crop, is labelled 0, as by argmax.
    """
    if probs.ndim == 2 and len(probs):  # pixels of a sample, in memory one after the other
        some = probs.split(max(1, _AT_ONCE // probs.shape[1]))
        return torch.cat([affine_argmax(each.T.unsqueeze(0).contiguous(), scale, offset)[0] for each in some])
    whole = probs.is_contiguous() and probs.dtype in (torch.float32, torch.float64) and probs.numel() > 0
    if whole and probs.device.type == "cpu" and not is_blind() and has_numba():
        from rankseg_plugins.core.kernels.cpu.extremes import affine_argmax as by_kernel

        return by_kernel(probs, scale, offset)
    scale, offset = scale.float(), offset.float()
    best = probs[:, 0].float() * scale[0] - offset[0]
    labels = torch.zeros_like(best, dtype=torch.int64)
    for label in range(1, probs.shape[1]):
        score = probs[:, label].float() * scale[label] - offset[label]
        labels.masked_fill_(score > best, label)
        best = torch.maximum(best, score)
    return labels.masked_fill_(probs.amax(1) <= 0, 0)
