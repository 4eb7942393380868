"""Classes that a decision leaves out are named only where more are missed than spared."""

import torch

from rankseg_plugins import RankSEG
from rankseg_plugins.report.words import describe_left_out
from rankseg_plugins.scores import areas
from rankseg_plugins.scores.shown import LeftOut, left_out


def test_what_is_said_of_classes():
    def said(found, missed, spared, names=("a", "b")):
        return describe_left_out(LeftOut(*map(torch.tensor, (found, missed, spared))), names, "rankseg", "argmax")

    assert said([40, 40], [0, 9], [3, 8]).startswith(
        "rankseg leaves out classes that are there and argmax shows: b in 9"
    )
    assert said([40, 40], [0, 9], [3, 9]) is None  # as many false ones are gone
    assert said([40, 40], [0, 7], [0, 0]) is None  # a few
    assert said([1, 2], [1, 2], [0, 0]).count(" of ") == 1
    many = said([10] * 7, list(range(3, 10)), [0] * 7, names="abcdefg")
    assert "g in 9 of 10 images, f in 8 of 10" in many
    assert "and 2 more" in many


def test_a_pruned_class_is_named():
    """A weak network: its second class is never above 1/2, and the default never shows it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(20, 3, 4, 4, generator=generator), 16, mode="bilinear")
    probs = (logits + torch.tensor([0.4, 0.0, 0.6]).view(-1, 1, 1)).softmax(1).clamp(max=0.6)
    probs[:, 1].clamp_(max=0.49)
    truth = probs.argmax(1)
    found = left_out(*(areas(decoder(probs), truth, 3) for decoder in (RankSEG("acc"), RankSEG())))
    assert found.missed[1] == found.found[1] > 10
    assert "b in" in describe_left_out(found, "abc", "RankSEG")
