"""Independent, slow and obvious forms of what the core computes, in plain Python and numpy float64."""

from fractions import Fraction

import numpy as np


def scores_of_all_volumes(p, metric, smooth):
    """Objective of the top-n masks, n = 0..d, of one class: p is a 1-D array of probabilities."""
    p = np.sort(np.asarray(p, dtype=np.float64))[::-1]
    mu = np.sum(p, dtype=np.longdouble)
    s = np.concatenate([[0], np.cumsum(p, dtype=np.longdouble)])
    n = np.arange(len(p) + 1)
    return _score(s, n, mu, metric, smooth)


def score_of_mask(p, mask, metric, smooth):
    p = np.asarray(p, dtype=np.float64)
    s, n, mu = np.sum(p[mask], dtype=np.longdouble), mask.sum(), np.sum(p, dtype=np.longdouble)
    return _score(np.array([s]), np.array([n]), mu, metric, smooth)[0]


def _score(s, n, mu, metric, g):
    with np.errstate(all="ignore"):
        if metric == "dice":
            empty = np.where(n + mu + g > 0, g / (n + mu + g), 0)
            return 2 * s / (n + mu + 1 + g) + empty
        return np.where(n + mu - s + g > 0, (s + g) / (n + mu - s + g), 0)


def exact_optimal_volumes(p, metric, smooth):
    """All volumes of exactly the largest objective, in rational arithmetic."""
    p = sorted((Fraction(float(x)) for x in p), reverse=True)
    mu, g = sum(p), Fraction(float(smooth))
    scores = []
    for n in range(len(p) + 1):
        s = sum(p[:n])
        if metric == "dice":
            scores.append(2 * s / (n + mu + 1 + g) + (g / (n + mu + g) if n + mu + g else 0))
        else:
            scores.append((s + g) / (n + mu - s + g) if n + mu - s + g else Fraction(0))
    best = max(scores)
    return [n for n, score in enumerate(scores) if score == best]


def labels_of_masks(p, masks, active, metric, g, void_index=None):
    """The greedy multiclass rule, pixel by pixel: p (C, d) float64, masks (C, d) bool, active (C,) bool."""
    classes, d = p.shape
    mu = p.sum(1)
    alone = masks & (masks.sum(0) == 1)
    m, t = (p * alone).sum(1), alone.sum(1)
    gains = [_gain(m[c], t[c], mu[c], metric, g) for c in range(classes)]
    labels = np.empty(d, dtype=np.int64)
    for i in range(d):
        selected = [c for c in range(classes) if masks[c, i]]
        if not selected and void_index is not None:
            labels[i] = void_index
            continue
        if not p[:, i].any():
            labels[i] = 0  # as argmax
            continue
        allowed = selected or [c for c in range(classes) if active[c]] or list(range(classes))
        labels[i] = allowed[0] if len(allowed) == 1 else max(allowed, key=lambda c, i=i: gains[c](p[c, i]))
    return labels


def _gain(m, t, mu, metric, g):
    """Of the probability of a pixel, the difference of the two scores, in rational arithmetic: nothing cancels."""
    m, mu, g = (Fraction(float(x)) for x in (m, mu, g))
    t = int(t)

    def score(s, n):
        if metric == "dice":
            return 2 * s / (n + mu + 1 + g) + (g / (n + mu + g) if g else 0)
        return (s + g) / (n + mu - s + g) if n + mu - s + g else Fraction(0)

    before = score(m, t)
    return lambda p: score(m + Fraction(float(p)), t + 1) - before


def probabilities(logits, activation, temperature=1.0):
    """What the output of a network (B, C, ...) means; a temperature divides logits."""
    values = logits / (temperature if activation in ("softmax", "sigmoid") else 1)
    if activation == "softmax":
        values = np.exp(values - values.max(1, keepdims=True))
    elif activation == "sigmoid":
        values = 1 / (1 + np.exp(-values))
    return values / values.sum(1, keepdims=True) if activation in ("softmax", "normalize") else values


def at_temperature(p, temperature, mode):
    """What a temperature makes of probabilities: p^(1/T), and their sum stays; or each of them against the rest."""
    powers = p ** (1 / temperature)
    if mode == "multilabel":
        return powers / (powers + (1 - p) ** (1 / temperature))
    return np.minimum(powers / powers.sum(1, keepdims=True) * p.sum(1, keepdims=True), 1)
