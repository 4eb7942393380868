"""Checkpoints of a module that holds the wrapper: what was given stays, and a warning says what differs."""

import warnings

import pytest
import torch

pytest.importorskip("torchmetrics.segmentation")

from batches import CLASSES, make, run
from torch import nn

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper


def fitted(seed=0, **options):
    decoder = GlobalRankSEG(CLASSES, min_images=0, min_gain=0, **options)
    for probs, _ in make(seed=seed):
        decoder.update(probs)
    decoder.fit()
    return decoder


def module_of(decoder):
    return nn.ModuleDict({"score": RankSEGWrapper(MultiLevelScore(CLASSES), decoder), "net": nn.Linear(2, 2)})


GIVEN = {
    "rankseg": lambda: RankSEG("iou"),
    "function": lambda: lambda probs: probs.argmax(1),
    "tuned": lambda: TunedDecoder(fitted(3), CLASSES, 0.7),
    "fitted": lambda: fitted(1),
    "unfitted": lambda: GlobalRankSEG(CLASSES, min_images=0),
    "masks": lambda: fitted(2, output_mode="multilabel"),
    "presence": lambda: PresenceRankSEG(CLASSES, frequencies=[0.9] * CLASSES),
    "other presence": lambda: PresenceRankSEG(CLASSES, frequencies=[0.8] * CLASSES),
}


@pytest.mark.parametrize("saved", [*GIVEN, "other classes"])
@pytest.mark.parametrize("given", GIVEN)
def test_the_given_decoder_stays(given, saved):
    checkpoint = module_of(GIVEN[saved]() if saved in GIVEN else GlobalRankSEG(CLASSES + 1)).state_dict()
    module, batches = module_of(GIVEN[given]()), make(seed=5)
    without_state = ("rankseg", "function", "tuned")
    takes = given == "unfitted" and saved in ("fitted", "unfitted")
    fits = takes or given == saved or (given in without_state and saved in without_state)
    expected = None if given == "unfitted" else run(RankSEGWrapper(MultiLevelScore(CLASSES), GIVEN[given]()), batches)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module.load_state_dict(checkpoint)
    messages = [str(each.message) for each in caught if "stays as it was given" in str(each.message)]
    assert len(messages) == (not fits)
    assert torch.equal(module["net"].weight, checkpoint["net.weight"])
    if expected is not None:
        assert run(module["score"], batches) == expected
    elif saved == "fitted":
        taken = run(RankSEGWrapper(MultiLevelScore(CLASSES), GIVEN["fitted"]()), batches)
        assert run(module["score"], batches) == taken
    else:
        assert not module["score"].decoder.fitted


def test_the_warning_names_the_place():
    with pytest.warns(UserWarning, match=r"score\.decoder: the checkpoint .* another decoder; RankSEG stays"):
        module_of(RankSEG()).load_state_dict(module_of(fitted()).state_dict())


def test_a_decoder_with_weights_of_its_own_is_loaded():
    class Learned(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.scale = nn.Parameter(torch.full((CLASSES, 1, 1), value))

        def forward(self, probs):
            return (probs * self.scale).argmax(1)

    module = module_of(Learned(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.load_state_dict(module_of(Learned(2.0)).state_dict())
    assert float(module["score"].decoder.scale.detach().mean()) == 2.0
