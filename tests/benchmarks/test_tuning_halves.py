"""The benchmark of tuning: what is measured apart is put together as if it had been measured at once."""

import numpy as np
import torch

from benchmarks.tuning import joined
from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Sample, compare


def test_comparisons_of_the_same_images():
    generator = torch.Generator().manual_seed(0)
    probs = (2 * torch.randn(7, 3, 20, 20, generator=generator)).softmax(1)
    truth = torch.multinomial(probs.movedim(1, -1).flatten(0, 2), 1, generator=generator).view(7, 20, 20)
    samples = [Sample(str(index), *both) for index, both in enumerate(zip(probs, truth, strict=True))]
    argmax, weak = {"argmax": RankSEG("acc")}, {"weak": RankSEG(pruning_prob=0.1), "again": RankSEG("acc")}
    first, second = (compare(samples, {**argmax, **more}, panels=0) for more in ({"RankSEG": RankSEG()}, weak))
    found = joined(first, second)
    expected = compare(samples, {**argmax, "RankSEG": RankSEG(), **weak}, panels=0)
    assert found.decoders == expected.decoders
    assert [found.decides_alike(name) for name in found.candidates] == [False, False, True]
    for level, gains in expected.differences.levels.items():
        np.testing.assert_array_equal(found.differences.levels[level], gains)
