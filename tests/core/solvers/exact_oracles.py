"""Exact expected scores by other ways than the package's: all truths, all counts, fast Fourier transform."""

import itertools

import numpy as np


def score(intersection, label_area, volume, metric, g):
    """Dice or IoU with 0 / 0 := 0, elementwise."""
    if metric == "dice":
        numerator, denominator = 2 * intersection + g, volume + label_area + g
    else:
        numerator, denominator = intersection + g, volume + label_area - intersection + g
    return np.divide(numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape),
                     where=denominator > 0)  # fmt: skip


def by_enumeration(p, mask, metric, g):
    """Sum over all 2^d truths: p (d,), mask (d,) bool."""
    truths = np.array(list(itertools.product([0, 1], repeat=len(p))))
    weights = np.prod(np.where(truths == 1, p, 1 - p), axis=1)
    return weights @ score((truths * mask).sum(1), truths.sum(1), mask.sum(), metric, g)


def pmf(p):
    """Distribution of the count of independent pixels, one pixel after the other."""
    counts = np.array([1.0])
    for q in p:
        counts = np.convolve(counts, [1 - q, q])
    return counts


def by_counts(p, mask, metric, g):
    """Sum over the counts inside and outside the mask."""
    inside, outside = pmf(p[mask]), pmf(p[~mask])
    i, o = np.arange(len(inside))[:, None], np.arange(len(outside))[None]
    return inside @ score(i, i + o, mask.sum(), metric, g) @ outside


def pmf_of_groups(values, counts):
    """Distribution of the count when ``counts[k]`` pixels have probability ``values[k]``, by Fourier transform."""
    size = int(counts.sum()) + 1
    turns = np.exp(-2j * np.pi * np.arange(size) / size)
    logs = sum(c * np.log(1 - v + v * turns) for v, c in zip(values, counts, strict=True))
    return np.maximum(np.fft.ifft(np.exp(logs)).real, 0)


def all_volumes_of_groups(values, counts, metric, g):
    """Exact score of the top-n mask for every n at the end of a group; values fall. Returns (volumes, scores)."""
    volumes, scores = np.concatenate([[0], np.cumsum(counts)]), []
    if metric == "iou":
        for k, n in enumerate(volumes):
            outside = pmf_of_groups(values[k:], counts[k:]) if k < len(values) else np.ones(1)
            s = values[:k] @ counts[:k]
            union = n + np.arange(len(outside)) + g
            scores.append((s + g) * (outside @ np.divide(1, union, out=np.zeros(len(union)), where=union > 0)))
        return volumes, np.array(scores)
    whole = pmf_of_groups(values, counts)
    without = [pmf_of_groups(values, counts - (np.arange(len(values)) == k)) for k in range(len(values))]
    for k, n in enumerate(volumes):
        total = g * (whole @ (1 / (n + g + np.arange(len(whole))))) if g else 0.0
        for j in range(k):
            rest = without[j]
            total += 2 * values[j] * counts[j] * (rest @ (1 / (n + 1 + g + np.arange(len(rest)))))
        scores.append(total)
    return volumes, np.array(scores)
