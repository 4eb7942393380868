"""On a GPU: the CPU's decisions, and RMA without a synchronisation. Skipped where there is none."""

import pytest
import torch

from rankseg_plugins import GlobalRankSEG, RankSEG

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

RMA = [
    {"metric": metric, "smooth": smooth, "output_mode": output_mode}
    for metric in ("dice", "iou")
    for smooth in (0.0, 1.0)
    for output_mode in ("multiclass", "multilabel")
]
OTHERS = [
    {"metric": "acc"},
    {"solver": "exact"},
    {"metric": "iou", "solver": "exact", "smooth": 1.0},
    *({"solver": solver, "output_mode": "multilabel"} for solver in ("BA", "TRNA", "BA+TRNA")),
]


@pytest.fixture
def probs():
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(2, 5, 33, 47, generator=generator)).softmax(1)


@pytest.mark.parametrize("options", [*RMA, *OTHERS])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_same_decisions_as_on_the_cpu(probs, options, dtype):
    decoder, probs = RankSEG(**options), probs.to(dtype)
    decided = decoder(probs.cuda())
    assert decided.is_cuda
    assert torch.equal(decided.cpu(), decoder(probs))


@pytest.mark.parametrize("options", RMA)
def test_no_synchronisation(probs, options):
    decoder = RankSEG(**options)
    probs, valid = probs.cuda(), torch.ones(33, 47, dtype=torch.bool, device="cuda")
    decoder(probs, valid)  # what is loaded once may synchronise
    torch.cuda.set_sync_debug_mode("error")
    try:
        decoder(probs, valid)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_expected_score(probs):
    decoder = RankSEG()
    masks = probs > 0.4
    found = decoder.expected_score(probs.cuda(), masks.cuda()).cpu()
    assert torch.allclose(found, decoder.expected_score(probs, masks), rtol=0, atol=1e-12)


def test_decision_for_a_data_set(probs):
    on_cpu, on_gpu = GlobalRankSEG(5, min_images=0), GlobalRankSEG(5, min_images=0).cuda()
    for decoder, images in ((on_cpu, probs), (on_gpu, probs.cuda())):
        decoder.update(images)
        decoder.fit()
    assert torch.equal(on_gpu(probs.cuda()).cpu(), on_cpu(probs))
