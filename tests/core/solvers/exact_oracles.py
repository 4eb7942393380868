"""Exact expected scores by other ways than the package's: all truths, all counts, fast Fourier transform."""

import functools
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


@functools.cache
def truths(pixels):
    """All truths of so many pixels, and equally all masks: (2^d, d), 0 and 1."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=pixels)))


def _chances(p):
    return np.prod(np.where(truths(len(p)) == 1, p, 1 - p), axis=1)


def by_enumeration(p, mask, metric, g):
    """Sum over all 2^d truths: p (d,), mask (d,) bool."""
    each = truths(len(p))
    return _chances(p) @ score(each @ mask, each.sum(1), mask.sum(), metric, g)


def best_by_enumeration(p, metric, g):
    """Largest sum over all 2^d truths of all 2^d masks, those of one volume at a time."""
    each, chances = truths(len(p)), _chances(p)
    areas = each.sum(1)
    return max(
        (chances @ score(each @ each[areas == volume].T, areas[:, None], volume, metric, g)).max()
        for volume in range(len(p) + 1)
    )


def pmfs(p):
    """Distributions of the count of the first 0, 1, 2, ... independent pixels."""
    found = [np.array([1.0])]
    for q in p:
        found.append(np.convolve(found[-1], [1 - q, q]))
    return found


def pmf(p):
    """Distribution of the count of independent pixels, one pixel after the other."""
    return pmfs(p)[-1]


def of_counts(inside, outside, volume, metric, g):
    """Sum over the counts inside and outside a mask, of which the distributions are given.

    Counts that are rarer than 1e-20 are left out.
    """
    i, o = (np.flatnonzero(chances > 1e-20) for chances in (inside, outside))
    return inside[i] @ score(i[:, None], i[:, None] + o, volume, metric, g) @ outside[o]


def by_counts(p, mask, metric, g):
    """Sum over the counts inside and outside the mask."""
    return of_counts(pmf(p[mask]), pmf(p[~mask]), mask.sum(), metric, g)


def of_largest(p, volumes, metric, g):
    """Sums over the counts of the masks of the n largest probabilities, for every n in ``volumes``."""
    p = np.sort(p)[::-1]
    inside, outside = pmfs(p[: max(volumes)]), pmfs(p[::-1])
    return np.array([of_counts(inside[n], outside[len(p) - n], n, metric, g) for n in volumes])


def pmfs_of_groups(values, counts):
    """Distributions of the count when ``counts[i, k]`` pixels have probability ``values[k]``, by Fourier transform.

    That of row i is right up to the sum of all its counts.
    """
    size = 1 << int(counts.sum(1).max()).bit_length()
    turns = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    logs = np.log(1 - values[:, None] + values[:, None] * turns)
    return np.array([np.maximum(np.fft.irfft(np.exp(row @ logs), size), 0) for row in counts])


def all_volumes_of_groups(values, counts, metric, g):
    """Exact score of the top-n mask for every n at the end of a group; values fall. Returns (volumes, scores)."""
    volumes = np.concatenate([[0], np.cumsum(counts)])
    total, masks, number = volumes[-1], volumes[:, None], len(values)
    if metric == "iou":
        outside = pmfs_of_groups(values, counts * np.triu(np.ones((number + 1, number))))[:, : total + 1]
        union = masks + np.arange(total + 1) + g
        inverse = np.divide(1, union, out=np.zeros(union.shape), where=union > 0)
        hits = np.concatenate([[0], np.cumsum(values * counts)])
        return volumes, (hits + g) * (outside * inverse).sum(1)
    whole = pmfs_of_groups(values, counts[None])[0, : total + 1]
    without = pmfs_of_groups(values, counts - np.eye(number))[:, :total]
    # Of every group of pixels (columns) in every mask (rows); a mask holds the groups before its end.
    of_groups = (1 / (masks + 1 + g + np.arange(total))) @ without.T * (2 * values * counts)
    scores = np.tril(of_groups, -1).sum(1)
    return volumes, scores + g * (1 / (masks + g + np.arange(total + 1)) @ whole if g else 0)
