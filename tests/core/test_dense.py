"""The one-graph path against the kernels one, compiled, exported, mapped."""

import pytest
import torch
from by_path import decide
from sweeps import sweep
from torch import nn

from rankseg_plugins import RankSEG

OPTIONS = [
    {"metric": metric, "smooth": smooth, "output_mode": output_mode, "pruning_prob": pruning_prob}
    for metric in ("dice", "iou")
    for smooth in (0.0, 1.0)
    for output_mode in ("multiclass", "multilabel")
    for pruning_prob in (0.5, 0.1)
]
ACCURACY = [{"metric": "acc"}, {"metric": "acc", "output_mode": "multilabel", "solver": "TR"}]


def every_three(options):
    """Half of ``OPTIONS``, in which all values of every three of the choices meet; and all of ``ACCURACY``."""
    return options not in OPTIONS or OPTIONS.index(options).bit_count() % 2 == 0


MOST_PROBABLE = {"metric": "acc", "output_mode": "multilabel", "solver": "argmax"}


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch._dynamo.reset()


def random_probs(sharpness=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(2, 5, 12, 17, generator=generator)).softmax(1)


@pytest.mark.parametrize("options", [*OPTIONS, *ACCURACY])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_same_decisions(options, dtype):
    decoder = RankSEG(**options)
    valid = torch.ones(12, 17, dtype=torch.bool)
    valid[:, 14:] = False
    for sharpness in (0.3, 1.0, 3.0, 10.0):
        probs = random_probs(sharpness).to(dtype)
        for mask in (None, valid):
            kernels = decoder(probs, mask)
            decided = decide("graph", decoder, probs, mask)
            if mask is not None:
                kernels, decided = kernels[..., :14], decided[..., :14]
            assert torch.equal(decided, kernels)


@sweep("options", OPTIONS, every_three)
def test_same_decisions_on_real_probabilities(real_probs, options):
    decoder, probs = RankSEG(**options), real_probs[:1]
    assert torch.equal(decide("graph", decoder, probs, None), decoder(probs))


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("power", [0.01, 1, 20, 2000])
def test_the_rounds_suffice(metric, power):
    # From certain pixels to a haze with a few high values: more rounds would change nothing.
    probs = torch.rand(4, 3, 20000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** power
    decoder = RankSEG(metric, output_mode="multilabel", pruning_prob=0.0)
    assert torch.equal(decide("graph", decoder, probs, None), decoder(probs))


@sweep("options", [*OPTIONS[::2], *ACCURACY], every_three)
def test_compiles_to_one_graph(options):
    decoder = RankSEG(**options)
    compiled = torch.compile(decoder, fullgraph=True, backend="aot_eager")
    probs = random_probs()
    assert torch.equal(compiled(probs), decoder(probs))


#: Scalar code: the compiler has less to do, and what this processor can do is not tried out first.
SCALAR = {"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False, "compile_threads": 1}


@sweep("inductor", [SCALAR, {}], lambda inductor: inductor == SCALAR)
def test_compiles_with_the_default_backend(inductor):
    decoder, probs = RankSEG("iou"), random_probs()
    with torch._inductor.config.patch(inductor):
        assert torch.equal(torch.compile(decoder, fullgraph=True)(probs), decoder(probs))


@sweep("options", [*OPTIONS[::2], *ACCURACY], every_three)
def test_exports_behind_softmax(options, tmp_path):
    network = nn.Sequential(nn.Softmax(dim=1), RankSEG(**options))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (torch.randn(2, 5, 12, 17),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    for images in (1, 3):
        logits = 3 * torch.randn(images, 5, 12, 17)
        assert torch.equal(loaded(logits), network(logits))


class OfLogits(nn.Module):
    """A decision on the output of a network."""

    def __init__(self, activation):
        super().__init__()
        self.decoder, self.activation = RankSEG(pruning_prob=0.1), activation

    def forward(self, logits):
        return self.decoder.predict_logits(logits, self.activation)


@pytest.mark.parametrize("way", ["export", "compile", "trace", "vmap"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "normalize"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_activations(activation, way):
    decision, logits = OfLogits(activation), 3 * torch.randn(2, 5, 12, 17, generator=torch.Generator().manual_seed(3))
    logits = logits.exp() if activation == "normalize" else logits
    made = {
        "export": lambda: torch.export.export(decision, (logits.flip(0),)).module(),
        "compile": lambda: torch.compile(decision, fullgraph=True, backend="aot_eager"),
        "trace": lambda: torch.jit.trace(decision, (logits.flip(0),)),
        "vmap": lambda: lambda given: torch.func.vmap(lambda image: decision(image[None])[0])(given),
    }
    assert torch.equal(made[way]()(logits), decision(logits))


def test_a_compiled_decoder_still_refuses_negative_scores():
    compiled = torch.compile(OfLogits("normalize"), fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="'normalize' needs non-negative scores"):
        compiled(torch.full((1, 2, 4), -7.0))


@pytest.mark.parametrize("options", [*OPTIONS[::3], *ACCURACY, MOST_PROBABLE], ids=str)
@pytest.mark.parametrize("shape", [None, (12, 17), (2, 12, 17)], ids=str)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traces(options, shape):
    decoder, given = RankSEG(**options), (random_probs(),)
    if shape is not None:
        given = *given, torch.rand(shape, generator=torch.Generator().manual_seed(1)) > 0.3
    traced = torch.jit.trace(decoder, given)
    others = given[0].flip(0), *given[1:]
    assert torch.equal(traced(*others), decoder(*others))


def test_a_compiled_decoder_still_refuses_bad_values():
    compiled = torch.compile(RankSEG(), fullgraph=True, backend="aot_eager")
    with pytest.raises(RuntimeError, match="probs must be finite and lie in"):
        compiled(torch.full((1, 2, 4), 7.0))


@pytest.mark.parametrize("options", [*OPTIONS[::3], *ACCURACY])
def test_vmap(options):
    decoder, probs = RankSEG(**options), random_probs()
    stacked = torch.stack([probs, probs.flip(0)])
    assert torch.equal(torch.func.vmap(decoder)(stacked), torch.stack([decoder(probs), decoder(probs.flip(0))]))


def test_a_probability_equal_to_pruning_prob():
    probs, decoder = torch.full((1, 1, 3), 0.3), RankSEG(output_mode="multilabel", pruning_prob=0.3)
    assert torch.equal(decide("graph", decoder, probs, None), decoder(probs))


def test_vmap_over_valid_masks():
    decoder, probs = RankSEG(), random_probs()
    valid = torch.rand(3, 12, 17) > 0.3
    expected = torch.stack([decoder(probs, mask) for mask in valid])
    assert torch.equal(torch.func.vmap(lambda mask: decoder(probs, mask))(valid), expected)


def test_solvers_that_look_at_values_are_refused():
    decoder = RankSEG(solver="exact")
    with pytest.raises(RuntimeError, match="solver='exact' looks at the values"):
        torch.func.vmap(decoder)(random_probs()[None])
    labels = torch.zeros(1, 2, 12, 17, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="expected_score looks at values"):
        torch.func.vmap(decoder.expected_score)(random_probs()[None], labels)
