"""Independent references: plain loops in float64 over pixels, images and classes."""

import numpy as np


def masks_of(labels, classes, ignore_index=None, truth=None):
    """Bool masks (B, C, N) of labels, without the pixels whose truth is ignored."""
    labels = np.asarray(labels).reshape(len(labels), -1)
    kept = np.ones_like(labels, bool)
    if ignore_index is not None:
        kept = np.asarray(labels if truth is None else truth).reshape(labels.shape) != ignore_index
    return np.stack([[(image == c) & keep for c in range(classes)] for image, keep in zip(labels, kept, strict=True)])


def table(predicted, true, score, absent="skip"):
    """Score of each image and class from bool masks (B, C, N); NaN where both are empty and absent is 'skip'."""
    result = np.full(predicted.shape[:2], {"skip": np.nan, "zero": 0.0, "one": 1.0}[absent])
    for b, c in np.ndindex(result.shape):
        result[b, c] = _score(predicted[b, c], true[b, c], score, result[b, c])
    return result


def _score(predicted, true, score, empty):
    both, either = int((predicted & true).sum()), int((predicted | true).sum())
    if either == 0:
        return empty
    return 2 * both / (int(predicted.sum()) + int(true.sum())) if score == "dice" else both / either


def levels(predicted, true, score, absent="skip"):
    """The three levels from bool masks (B, C, N), written out."""
    entries = table(predicted, true, score, absent)
    pooled = table(
        predicted.transpose(1, 0, 2).reshape(1, predicted.shape[1], -1),
        true.transpose(1, 0, 2).reshape(1, true.shape[1], -1),
        score,
        absent,
    )
    return {
        f"{score}_dataset": mean(pooled[0]),
        f"{score}_image": mean([mean(row) for row in entries]),
        f"{score}_class": mean([mean(column) for column in entries.T]),
    }


def worst(predicted, true, score, share, absent="skip"):
    """Worst-case image and class level: the mean of the lowest share, rounded up to whole scores."""
    entries = table(predicted, true, score, absent)
    return {
        "image": _lowest([mean(row) for row in entries], share),
        "class": mean([_lowest(column, share) for column in entries.T]),
    }


def mean(values):
    known = [float(v) for v in values if not np.isnan(v)]
    return sum(known) / len(known) if known else float("nan")


def _lowest(values, share):
    known = sorted(float(v) for v in values if not np.isnan(v))
    count = next((n for n in range(1, len(known) + 1) if n >= len(known) * share - 1e-9), 0)
    return sum(known[:count]) / count if count else float("nan")
