"""Images to compare decoders on, and the interval that a difference should have."""

import math

import scipy.stats
import torch

from rankseg_plugins.comparison import Sample
from rankseg_plugins.comparison.intervals.statistics import BEYOND

IGNORE = 255


def make_samples(images=12, classes=4, seed=0, size=(6, 7), case=None):
    """Blurred truths, with classes missing from some images and ignored pixels."""
    generator = torch.Generator().manual_seed(seed)
    for index in range(images):
        held = torch.randperm(classes, generator=generator)[: 1 + index % classes]
        labels = held[torch.randint(0, len(held), size, generator=generator)]
        logits = torch.randn(classes, *size, generator=generator)
        logits += 1.5 * torch.nn.functional.one_hot(labels, classes).movedim(-1, 0)
        labels[torch.rand(size, generator=generator) < 0.1] = IGNORE
        yield Sample(f"image{index:02d}", logits.softmax(0), labels, None if case is None else case(index))


def interval_of(distances, value, unseen=0.0, confidence=0.95):
    """Student's interval of what each case has, and of two cases beyond the farthest."""
    beyond = max(BEYOND * max(abs(each) for each in distances), unseen)
    values = [*distances, beyond, -beyond]
    error = math.sqrt(sum(each**2 for each in values) / (len(values) - 1) / len(values))
    return scipy.stats.t.interval(confidence, len(values) - 1, loc=value, scale=error)
