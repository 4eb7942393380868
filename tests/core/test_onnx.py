"""Decisions exported to ONNX give the labels of torch, for other sizes than the one that was exported."""

import itertools

import numpy as np
import pytest
import torch
from sweeps import sweep
from toolkits import is_installed

if not (is_installed("onnxscript") and is_installed("onnxruntime")):
    pytest.skip("ONNX is not installed", allow_module_level=True)

import onnxruntime

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch's exporter, about itself
CLASSES = 5


def make_probs(*shape, seed=0):
    """Fields that are smooth, so that classes hang together."""
    coarse = torch.randn(shape[0], CLASSES, 5, 5, generator=torch.Generator().manual_seed(seed))
    return (4 * torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic")).softmax(1)


def fitted(kind, **options):
    probs = make_probs(12, 20, 20, seed=9)
    decoder = kind(CLASSES, **options)
    labels = torch.distributions.Categorical(probs.movedim(1, -1)).sample()
    decoder.update(probs, labels) if kind is PresenceRankSEG else decoder.update(probs)
    decoder.fit()
    return decoder


DECODERS = {
    "dice": lambda: RankSEG(),
    "smooth": lambda: RankSEG(smooth=1.0),
    "iou": lambda: RankSEG("iou", pruning_prob=0.1),
    "argmax": lambda: RankSEG("acc"),
    "void": lambda: RankSEG(unassigned_policy="void", void_index=255, pruning_prob=0.6),
    "masks": lambda: RankSEG(output_mode="multilabel"),
    "tuned": lambda: TunedDecoder(RankSEG(pruning_prob=0.1), CLASSES, 0.7),
    "presence": lambda: TunedDecoder(fitted(PresenceRankSEG), CLASSES, 0.7),
    "presence by labels": lambda: fitted(PresenceRankSEG, present="label"),
    "global": lambda: TunedDecoder(fitted(GlobalRankSEG, min_images=0, min_dice=0, min_gain=0), CLASSES, 1.3),
}


class Decision(torch.nn.Module):
    def __init__(self, decoder, logits):
        super().__init__()
        self.decoder, self.logits = decoder, logits

    def forward(self, given):
        return self.decoder.predict_logits(given) if self.logits else self.decoder(given)


#: A conversion takes seconds: of each kind of decision one way in.
QUICK = [("dice", torch.float16, True), ("presence", torch.float32, False)]
CASES = itertools.product(DECODERS, (torch.float32, torch.float16), (True, False))


@sweep("name, dtype, logits", CASES, lambda *case: case in QUICK)
def test_labels_of_torch(name, dtype, logits, tmp_path):
    check(DECODERS[name](), make_probs(2, 24, 20), make_probs(3, 17, 31, seed=1), dtype, logits, tmp_path)


def check(decoder, example, other, dtype, logits, tmp_path):
    example, other = ((each.log() if logits else each).to(dtype) for each in (example, other))
    module = Decision(decoder, logits).eval()
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    program = torch.onnx.export(module, (example,), dynamo=True, dynamic_shapes={"given": sizes}, verbose=False)
    assert program.model.opset_imports[""] == 20  # as docs/deploy.md says
    program.save(tmp_path / "decision.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "decision.onnx")
    for given in (example, other):
        (found,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        np.testing.assert_array_equal(found, module(given).numpy())


def fitted_to(probs, kind, **options):
    decoder = kind(probs.shape[1], **options)
    decoder.update(probs, probs.argmax(1)) if kind is PresenceRankSEG else decoder.update(probs)
    decoder.fit()
    return decoder


REAL = {
    "tuned": lambda probs: TunedDecoder(RankSEG(pruning_prob=0.1), probs.shape[1], 0.7),
    "presence": lambda probs: TunedDecoder(fitted_to(probs, PresenceRankSEG), probs.shape[1], 1.4),
    "global": lambda probs: TunedDecoder(
        fitted_to(probs, GlobalRankSEG, min_images=1, min_gain=0), probs.shape[1], 0.7
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_labels_of_torch_on_real_probabilities(real_probs, name, dtype, tmp_path):
    decoder = REAL[name](real_probs.float())
    check(decoder, real_probs[:1], real_probs[1:3, ..., 5:105], dtype, False, tmp_path)
