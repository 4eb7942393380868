"""On a GPU: the CPU's decisions, and RMA without a synchronisation. Skipped where there is none."""

import pytest
import torch

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.core.paths import choose_path

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

RMA = [
    {"metric": metric, "smooth": smooth, "output_mode": output_mode}
    for metric, smooth in (("dice", 0.0), ("dice", 1.0), ("dice", 50.0), ("iou", 0.0), ("iou", 1.0))
    for output_mode in ("multiclass", "multilabel")
]
OTHERS = [
    {"metric": "acc"},
    {"smooth": 1e6},
    {"smooth": 1e-3},
    {"smooth": 1.0, "pruning_prob": 0.0},
    {"solver": "exact"},
    {"metric": "iou", "solver": "exact", "smooth": 1.0},
    *({"solver": solver, "output_mode": "multilabel"} for solver in ("BA", "TRNA", "BA+TRNA")),
]


@pytest.fixture
def probs():
    return random_probs(3.0)


def random_probs(sharpness, shape=(2, 5, 33, 47)):
    generator = torch.Generator().manual_seed(0)
    return (sharpness * torch.randn(shape, generator=generator)).softmax(1)


def path_of(decoder, probs):
    return choose_path(probs, decoder._objective(), decoder.pruning_prob, decoder.solver != "RMA")


@pytest.mark.parametrize("options", [*RMA, *OTHERS])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_same_decisions_as_on_the_cpu(probs, options, dtype):
    decoder, probs = RankSEG(**options), probs.to(dtype)
    decided = decoder(probs.cuda())
    assert decided.is_cuda
    assert torch.equal(decided.cpu(), decoder(probs))


@pytest.mark.parametrize("options", RMA)
@pytest.mark.parametrize("pruning_prob", [0.1, 0.5])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 10.0])
def test_fused_path_of_sure_and_unsure_networks(options, pruning_prob, sharpness):
    pytest.importorskip("triton")
    decoder, probs = RankSEG(**options, pruning_prob=pruning_prob), random_probs(sharpness, (3, 4, 201, 333))
    assert path_of(decoder, probs.cuda()) == "cuda"
    valid = torch.rand(3, 201, 333, generator=torch.Generator().manual_seed(1)) > 0.3
    for mask in (None, valid, valid[0]):
        decided = decoder(probs.cuda(), None if mask is None else mask.cuda())
        assert torch.equal(decided.cpu(), decoder(probs, mask))


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_many_classes_and_layouts(metric):
    decoder, probs = RankSEG(metric, pruning_prob=0.6), random_probs(2.0, (2, 150, 64, 70))
    expected = decoder(probs)
    assert torch.equal(decoder(probs.cuda()).cpu(), expected)
    assert torch.equal(decoder(probs.cuda().contiguous(memory_format=torch.channels_last)).cpu(), expected)
    assert torch.equal(decoder(torch.cat([probs, probs], -1).cuda()[..., :70]).cpu(), expected)


@pytest.mark.parametrize("shape", [(1, 2, 1), (0, 3, 4), (1, 2, 3, 4, 5)])
def test_shapes(shape):
    decoder, probs = RankSEG(), torch.rand(shape, generator=torch.Generator().manual_seed(3))
    assert torch.equal(decoder(probs.cuda()).cpu(), decoder(probs))


def made_logits(activation, dtype=torch.float32, shape=(3, 4, 201, 333)):
    logits = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (logits.relu() if activation == "normalize" else logits).to(dtype)


@pytest.mark.parametrize("options", RMA)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "normalize"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_from_logits(options, activation, dtype):
    """The GPU's exp differs in the last digits: where that decides, a pixel may be another one's."""
    decoder, logits = RankSEG(**options, pruning_prob=0.3), made_logits(activation, dtype)
    temperature = 1.0 if activation == "normalize" else 0.7
    expected = decoder.predict_logits(logits, activation, temperature=temperature)
    found = decoder.predict_logits(logits.cuda(), activation, temperature=temperature).cpu()
    assert (found != expected).sum() <= 2e-5 * expected.numel()


def test_memory_from_logits():
    logits = made_logits("softmax", shape=(1, 19, 512, 512)).cuda()
    labels = RankSEG().predict_logits(logits)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    RankSEG().predict_logits(logits)
    extra = torch.cuda.max_memory_allocated() - before - labels.nbytes
    assert extra <= 0.25 * logits.nbytes


@pytest.mark.parametrize("options", RMA)
def test_classes_that_are_there(probs, options):
    decoder, active = RankSEG(**options), torch.tensor([[True, False, True, True, False], [False] * 5])
    found = decoder.predict(probs.cuda(), active=active.cuda()).cpu()
    assert torch.equal(found, decoder.predict(probs, active=active))


@pytest.mark.parametrize("output_mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_presence(probs, metric, output_mode):
    frequencies = [0.9, 0.2, 0.5, 0.05, 0.6]
    decoder = PresenceRankSEG(5, metric, absent="zero", output_mode=output_mode, frequencies=frequencies)
    assert torch.equal(decoder.cuda()(probs.cuda()).cpu(), decoder.cpu()(probs))


def test_no_class_left(probs):
    decoder = RankSEG(pruning_prob=1.0, unassigned_policy="void", void_index=-3)
    assert torch.equal(decoder(probs.cuda()).cpu(), decoder(probs))


@pytest.mark.parametrize("options", [*RMA, {"smooth": 1.0, "pruning_prob": 0.0}])
def test_no_synchronisation(probs, options):
    decoder = RankSEG(**options)
    probs, valid = probs.cuda(), torch.ones(33, 47, dtype=torch.bool, device="cuda")
    active = torch.ones(5, dtype=torch.bool, device="cuda")
    decoder(probs, valid)  # what is loaded once may synchronise
    decoder.predict_logits(probs.log(), "softmax", valid, active)
    torch.cuda.set_sync_debug_mode("error")
    try:
        decoder(probs, valid)
        decoder.predict_logits(probs.log(), "softmax", valid, active)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("options", RMA[::3])
def test_in_a_cuda_graph(probs, options):
    decoder, given = RankSEG(**options), probs.cuda()
    with torch.cuda.stream(torch.cuda.Stream()):
        decoder(given)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decided = decoder(given)
    for images in (probs, probs.flip(0), probs.flip(1)):
        given.copy_(images)
        graph.replay()
        assert torch.equal(decided.cpu(), decoder(images))


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_compiled_to_one_graph(probs, metric):
    decoder = RankSEG(metric)
    assert torch.equal(torch.compile(decoder, fullgraph=True)(probs.cuda()).cpu(), decoder(probs))


def test_expected_score(probs):
    decoder = RankSEG()
    masks = probs > 0.4
    found = decoder.expected_score(probs.cuda(), masks.cuda()).cpu()
    assert torch.allclose(found, decoder.expected_score(probs, masks), rtol=0, atol=1e-12)


def test_decision_for_a_data_set(probs):
    on_cpu, on_gpu = (GlobalRankSEG(5, min_images=0, min_gain=0).to(device) for device in ("cpu", "cuda"))
    for decoder, images in ((on_cpu, probs), (on_gpu, probs.cuda())):
        decoder.update(images)
        decoder.fit()
    assert torch.equal(on_gpu(probs.cuda()).cpu(), on_cpu(probs))
