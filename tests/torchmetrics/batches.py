"""Batches of probabilities and truth that several test modules share."""

import torch

CLASSES = 4


def make(batches=3, classes=CLASSES, size=(9, 7), ignore=None, seed=0, dtype=torch.float32):
    """Batches of smooth probabilities and labels drawn from them, a few pixels ignored."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(batches):
        logits = 2 * torch.randn(3, classes, *size, generator=generator)
        probs = logits.softmax(1).to(dtype)
        flat = probs.float().flatten(2).transpose(1, 2).reshape(-1, classes)
        labels = torch.multinomial(flat, 1, generator=generator).view(3, *size)
        if ignore is not None:
            labels[torch.rand(labels.shape, generator=generator) < 0.2] = ignore
        result.append((probs, labels))
    return result


def make_binary(ignore=None, seed=0):
    return [
        (p[:, 1:], torch.where(t == 255, 255, (t == 1).long())) for p, t in make(classes=2, ignore=ignore, seed=seed)
    ]


def run(metric, batches):
    for probs, target in batches:
        metric.update(probs, target)
    return metric.compute()


def one_hot(labels, classes=CLASSES):
    return torch.stack([labels == c for c in range(classes)], 1)
