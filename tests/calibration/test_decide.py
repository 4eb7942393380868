"""What adapters decide on the output of a network: on logits wherever a decoder takes them."""

import pytest
import torch

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.calibration.deciding import decide

LOGITS = 2 * torch.randn(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
PROBS = LOGITS.softmax(1)


def fitted():
    decoder = GlobalRankSEG(3, min_images=0, min_dice=0, min_gain=0)
    decoder.update(PROBS)
    decoder.fit()
    return decoder


OURS = {
    "RankSEG": lambda: RankSEG("iou"),
    "presence": lambda: PresenceRankSEG(3, frequencies=[0.9, 0.5, 0.1], rule=0.3),
    "global": fitted,
    "tuned": lambda: TunedDecoder(RankSEG("iou"), 3, temperature=0.7),
}


@pytest.mark.parametrize("kind", OURS)
def test_our_decoders_get_the_logits(kind, monkeypatch):
    decoder = OURS[kind]()
    expected = decoder.predict(PROBS)
    seen, predict = [], decoder.predict_logits
    monkeypatch.setattr(decoder, "predict_logits", lambda *given: seen.append(given) or predict(*given))
    assert torch.equal(decide(decoder, LOGITS, "softmax"), expected)
    assert len(seen) == 1
    assert seen[0][0] is LOGITS
    assert seen[0][1] == "softmax"


@pytest.mark.parametrize("kind", OURS)
def test_probabilities_stay_probabilities(kind):
    decoder = OURS[kind]()
    assert torch.equal(decide(decoder, PROBS, "identity"), decoder.predict(PROBS))
    with pytest.raises(ValueError, match=r"probs must lie in \[0, 1\].*turn logits into probabilities first"):
        decide(decoder, LOGITS, "identity")


def test_a_function_gets_probabilities():
    assert torch.equal(decide(lambda probs: probs.sum(1), LOGITS, "softmax"), PROBS.sum(1))


class Inverted(RankSEG):
    """Somebody's own decoder, which knows nothing of logits."""

    def forward(self, probs, valid_mask=None, active=None):
        return 2 - super().forward(probs)


@pytest.mark.parametrize("wrapped", [lambda each: each, torch.nn.Sequential])
def test_a_call_that_does_something_else_is_called(wrapped):
    assert torch.equal(decide(wrapped(Inverted()), LOGITS, "softmax"), 2 - RankSEG()(PROBS))


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("kind", OURS)
def test_hooks_see_what_is_decided(kind, register):
    decoder, calls = OURS[kind](), []
    hook = getattr(decoder, register)(lambda module, *rest: calls.append(rest))
    decided = decide(decoder, LOGITS, "softmax")
    hook.remove()
    assert len(calls) == 1
    assert torch.equal(calls[0][0][0], PROBS)
    assert torch.equal(decided, decide(decoder, LOGITS, "softmax"))
    assert len(calls) == 1
