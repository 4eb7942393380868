"""The one entrance: options, checks, forms of input."""

import copy
import pickle
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rankseg_plugins import RankSEG, rankseg

PROBS = torch.softmax(torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(0)), 1)

MULTICLASS = [
    {"metric": "dice"},
    {"metric": "iou", "smooth": 1.0},
    {"metric": "dice", "smooth": 2.0, "pruning_prob": 0.1},
    {"metric": "iou", "unassigned_policy": "void", "void_index": -1},
    {"metric": "dice", "solver": "exact", "smooth": 0.5},
    {"metric": "acc"},
]
MULTILABEL = [
    {"metric": "dice", "output_mode": "multilabel"},
    {"metric": "iou", "output_mode": "multilabel", "smooth": 1.0, "pruning_prob": 0.2},
    {"metric": "iou", "output_mode": "multilabel", "solver": "exact"},
    {"metric": "dice", "output_mode": "multilabel", "solver": "BA+TRNA", "eps": 1e-3},
    {"metric": "acc", "output_mode": "multilabel"},
    {"metric": "acc", "output_mode": "multilabel", "solver": "argmax"},
]
ALL = MULTICLASS + MULTILABEL


def nested(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PyTorch: strided ones are a prototype
        return torch.nested.nested_tensor(list(PROBS), layout=layout)


@pytest.mark.parametrize(
    ("probs", "error", "message"),
    [
        ([[[0.5]]], TypeError, "probs must be a torch.Tensor, got list"),
        (PROBS.long(), TypeError, "probs must be float16, bfloat16, float32 or float64, got torch.int64"),
        (PROBS.to(torch.complex64), TypeError, "probs must be float16, bfloat16, float32 or float64, got"),
        (PROBS.to_sparse(), TypeError, r"probs must be a dense tensor, got torch.sparse_coo: probs.to_dense\(\)"),
        (nested(torch.strided), TypeError, "probs must be a dense tensor, got a nested one"),
        (nested(torch.jagged), TypeError, "probs must be a dense tensor, got a nested one"),
        (PROBS.to("meta"), TypeError, "probs must hold values, got a tensor on the device meta"),
        (PROBS[0, 0], ValueError, r"probs must have shape \(B, C, \*spatial\) with at least one spatial"),
        (PROBS[:, :0], ValueError, "probs must hold at least one class"),
        (PROBS[..., :0], ValueError, "the spatial size of probs must not be empty"),
        (PROBS.masked_fill(PROBS > 0.6, torch.nan), ValueError, "probs must be finite, got NaN or infinite"),
        (PROBS.masked_fill(PROBS > 0.6, torch.inf), ValueError, "probs must be finite, got NaN or infinite"),
        (PROBS - 0.5, ValueError, r"probs must lie in \[0, 1\], got values from -0"),
        (PROBS * 1.5, ValueError, r"probs must lie in \[0, 1\], got values from 0"),
        (PROBS[:, :1], ValueError, "a single channel cannot compete with itself"),
    ],
)
def test_bad_probabilities(probs, error, message):
    for decoder in (RankSEG(), RankSEG("acc")):
        with pytest.raises(error, match=message):
            decoder(probs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "f1"}, ValueError, "metric must be one of 'dice', 'iou', 'acc', got 'f1'"),
        ({"metric": 1}, TypeError, "metric must be a string, got int"),
        ({"output_mode": "binary"}, ValueError, "output_mode must be one of 'multiclass', 'multilabel', got 'binary'"),
        ({"solver": "sort"}, ValueError, "solver must be one of .*, got 'sort'"),
        (
            {"solver": "argmax"},
            ValueError,
            "solver='argmax' does not serve metric='dice' with output_mode='multiclass'",
        ),
        ({"metric": "acc", "solver": "TR"}, ValueError, "solver='TR' does not serve .*; use 'argmax'"),
        ({"smooth": -1}, ValueError, r"smooth must be in \[0, 1e\+100\], got -1"),
        ({"smooth": float("nan")}, ValueError, r"smooth must be in \[0, 1e\+100\], got nan"),
        ({"smooth": "1"}, TypeError, "smooth must be a real number, got str"),
        ({"smooth": True}, TypeError, "smooth must be a real number, got bool"),
        ({"pruning_prob": 1.1}, ValueError, r"pruning_prob must be in \[0, 1\], got 1.1"),
        ({"unassigned_policy": "drop"}, ValueError, "unassigned_policy must be one of 'max_score', 'void', got 'drop'"),
        ({"void_index": 1.0}, TypeError, "void_index must be an integer, got float"),
        ({"void_index": 2**63}, ValueError, "void_index must fit into int64"),
        ({"metric": "acc", "smooth": 1.0}, ValueError, "smooth=1.0 has no effect with metric='acc'"),
        ({"metric": "acc", "pruning_prob": 0.1}, ValueError, "pruning_prob=0.1 has no effect"),
        ({"output_mode": "multilabel", "void_index": 9}, ValueError, "void_index=9 has no effect"),
        (
            {"output_mode": "multilabel", "unassigned_policy": "void"},
            ValueError,
            "unassigned_policy='void' has no effect",
        ),
        ({"sovler": "RMA"}, TypeError, "sovler"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        RankSEG(**options)
    with pytest.raises(error, match=message):
        rankseg(PROBS, **options)


def test_void_index_inside_the_class_range():
    for decoder in (RankSEG(void_index=3), RankSEG(unassigned_policy="void", void_index=0)):
        with pytest.raises(ValueError, match="void_index must lie outside the class range 0 to 3"):
            decoder(PROBS)
    many = torch.full((1, 300, 2), 1 / 300)
    assert RankSEG()(many).shape == (1, 2)  # the default 255 is not used here, so it is no error
    with pytest.raises(ValueError, match="void_index must lie outside the class range 0 to 299, got 255"):
        RankSEG(unassigned_policy="void")(many)


@pytest.mark.parametrize(
    ("options", "classes", "words"),
    [
        ({"void_index": 2}, 4, "void_index must lie outside the class range 0 to 3, got 2"),
        ({"unassigned_policy": "void"}, 256, "void_index must lie outside the class range 0 to 255, got 255"),
        ({}, 1, "a single channel cannot compete with itself .*output_mode='multilabel'"),
        ({"metric": "acc", "output_mode": "multilabel", "solver": "argmax"}, 1, "for accuracy solver='TR'"),
    ],
)
def test_what_a_number_of_classes_refuses_is_known_before_there_are_probabilities(options, classes, words):
    decoder = RankSEG(**options)
    for ask in (decoder.check_classes, lambda count: decoder(torch.full((1, count, 2), 1 / count))):
        with pytest.raises(ValueError, match=words):
            ask(classes)
    decoder.check_classes(2)


def test_numbers_of_classes_that_fit():
    RankSEG().check_classes(300)
    RankSEG(void_index=4).check_classes(4)
    RankSEG(void_index=-1).check_classes(4)
    RankSEG(output_mode="multilabel").check_classes(1)
    RankSEG("acc", output_mode="multilabel", solver="TR").check_classes(1)


def test_names_in_any_case():
    assert RankSEG(" Dice ", output_mode="MultiClass", solver="rma").extra_repr() == RankSEG().extra_repr()
    assert RankSEG("Accuracy").metric == "acc"


@pytest.mark.parametrize("options", ALL)
def test_values_just_outside_the_range_are_clamped(options):
    decoder = RankSEG(**options)
    overshoot = torch.where(torch.rand(PROBS.shape) < 0.5, PROBS.round() - 9e-5, PROBS.round() + 9e-5)
    torch.testing.assert_close(decoder(overshoot), decoder(overshoot.clamp(0, 1)))


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("spatial", [(5,), (5, 3), (2, 3, 4), (2, 1, 3, 2)])
def test_output_form(options, spatial):
    decoder = RankSEG(**options)
    probs = torch.softmax(torch.randn(2, 3, *spatial), 1).requires_grad_()
    decided = decoder.predict(probs)
    multiclass = decoder.output_mode == "multiclass"
    assert decided.shape == ((2, *spatial) if multiclass else (2, 3, *spatial))
    assert decided.dtype == (torch.int64 if multiclass else torch.bool)
    assert not decided.requires_grad
    assert torch.equal(decided, rankseg(probs, **options))
    assert decoder(probs[:0]).shape == (0, *decided.shape[1:])
    assert decoder(probs[:0]).dtype == decided.dtype


@pytest.mark.parametrize("options", ALL)
def test_module(options):
    decoder = RankSEG(**options)
    assert not list(decoder.parameters())
    assert not decoder.state_dict()
    expected = decoder(PROBS)
    for twin in (
        pickle.loads(pickle.dumps(decoder)),
        copy.deepcopy(decoder),
        eval(repr(decoder), {"RankSEG": RankSEG}),
    ):
        assert torch.equal(twin(PROBS), expected)
    logits = PROBS.log()
    assert torch.equal(nn.Sequential(nn.Softmax(1), decoder)(logits), decoder(logits.softmax(1)))


def test_overshooting_probabilities_tie_at_one():
    assert RankSEG("acc")(torch.tensor([[[1.00002], [1.00005]]])).tolist() == [[0]]


def test_accuracy_is_argmax_and_threshold():
    assert torch.equal(RankSEG("acc")(PROBS), PROBS.argmax(1))
    assert torch.equal(rankseg(PROBS, "acc", output_mode="multilabel"), PROBS > 0.5)
    assert torch.equal(rankseg(PROBS[:, :1], "acc", output_mode="multilabel", solver="TR"), PROBS[:, :1] > 0.5)
    one_hot = rankseg(PROBS, "acc", output_mode="multilabel", solver="argmax")
    assert torch.equal(one_hot.long().argmax(1), PROBS.argmax(1))
    assert torch.equal(one_hot.sum(1), torch.ones_like(PROBS[:, 0], dtype=torch.long))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_accuracy_gives_ties_to_the_lowest_class(dtype):
    steps = torch.randint(0, 4, (2, 7, 50, 60), generator=torch.Generator().manual_seed(0))
    probs = (steps / 4).to(dtype)
    for layout in (probs, probs.contiguous(memory_format=torch.channels_last), probs.transpose(-1, -2)):
        assert torch.equal(RankSEG("acc")(layout), layout.argmax(1))


@pytest.mark.parametrize("options", ALL)
@settings(max_examples=2, deadline=None)
@given(st.integers(0, 10**6))
def test_invariances(options, seed):
    check_invariances(options, seed)


@pytest.mark.exhaustive
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.integers(0, 10**6))
def test_invariances_many_times(options, seed):
    check_invariances(options, seed)


def check_invariances(options, seed):
    generator = torch.Generator().manual_seed(seed)
    decoder = RankSEG(**options)
    p = torch.softmax(2 * torch.randn(3, 5, 4, 6, generator=generator, dtype=torch.float64), 1)
    decided = decoder(p)
    # Batch independence.
    for image in range(3):
        assert torch.equal(decoder(p[image : image + 1])[0], decided[image])
    # Pixel permutation.
    order = torch.randperm(24, generator=generator)
    shuffled = decoder(p.flatten(2)[..., order])
    assert torch.equal(shuffled, decided.flatten(-2)[..., order])
    # Class permutation: float64 random values hold no ties.
    classes = torch.randperm(5, generator=generator)
    permuted = decoder(p[:, classes])
    if decoder.output_mode == "multilabel":
        assert torch.equal(permuted, decided[:, classes])
    else:
        void = permuted == decoder.void_index
        assert torch.equal(torch.where(void, permuted, classes[permuted.clamp(0)]), decided)
    # Memory layout: channels last, transposed, expanded, sliced.
    assert torch.equal(decoder(p.to(memory_format=torch.channels_last)), decided)
    assert torch.equal(decoder(p.transpose(2, 3)), decided.transpose(-1, -2))
    assert torch.equal(decoder(p[:1].expand(3, -1, -1, -1))[2], decided[0])
    assert torch.equal(decoder(p.repeat_interleave(2, -1)[..., ::2]), decided)


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precisions_decide_as_float64_does(options, dtype):
    p = torch.softmax(3 * torch.randn(2, 4, 50, generator=torch.Generator().manual_seed(5)), 1).to(dtype)
    assert torch.equal(rankseg(p, **options), rankseg(p.double(), **options))


@pytest.mark.parametrize("options", ALL)
def test_valid_mask(options):
    """Padding, whatever it holds, changes nothing inside."""
    decoder = RankSEG(**options)
    inside = decoder(PROBS)
    for filling in (0.0, 0.9, torch.nan):
        padded = nn.functional.pad(PROBS, (3, 2, 1, 4), value=filling)
        valid = nn.functional.pad(torch.ones(6, 7, dtype=torch.bool), (3, 2, 1, 4))
        for mask in (valid, valid.expand(2, -1, -1)):
            decided = decoder(padded, valid_mask=mask)
            assert torch.equal(decided[..., 1:7, 3:10], inside)
            outside = decided.clone()
            outside[..., 1:7, 3:10] = decoder.void_index if decoder.output_mode == "multiclass" else False
            assert (outside == (decoder.void_index if decoder.output_mode == "multiclass" else 0)).all()
    assert torch.equal(rankseg(padded, valid_mask=valid, **options), decided)


def test_bad_valid_mask():
    with pytest.raises(TypeError, match="valid_mask must be a bool tensor, got torch"):
        RankSEG()(PROBS, torch.ones(6, 7))
    with pytest.raises(ValueError, match=r"valid_mask must have shape \(6, 7\) or \(2, 6, 7\)"):
        RankSEG()(PROBS, torch.ones(7, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="void_index must lie outside the class range"):
        RankSEG(void_index=1)(PROBS, torch.ones(6, 7, dtype=torch.bool))


def test_threads_do_not_change_the_result():
    logits = torch.nn.functional.interpolate(torch.randn(2, 6, 9, 9), size=(300, 300), mode="bilinear")
    probs = (4 * logits).softmax(1)
    rankdice = [RankSEG(output_mode="multilabel", solver=solver) for solver in ("BA", "TRNA")]
    for decoder in (RankSEG(smooth=1.0), RankSEG("iou"), RankSEG(solver="exact"), *rankdice):
        decided = []
        for threads in (1, 2, 4, 1):
            torch.set_num_threads(threads)
            decided.append(decoder(probs))
        torch.set_num_threads(2)
        assert all(torch.equal(decided[0], other) for other in decided[1:])


@pytest.mark.parametrize("options", ALL)
def test_inference_mode_and_autocast(options):
    decoder = RankSEG(**options)
    decided = decoder(PROBS)
    with torch.inference_mode():
        assert torch.equal(decoder(PROBS), decided)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decoder(PROBS), decided)


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize("pixels", [50, 20_000])
def test_decisions_may_be_changed_and_enter_a_loss(options, pixels):
    logits = torch.randn(2, 4, pixels, generator=torch.Generator().manual_seed(6), requires_grad=True)
    decided = rankseg(logits.softmax(1), **options)
    assert not decided.is_inference()
    assert not decided.requires_grad
    if decided.dtype == torch.bool:
        loss = (logits * decided).sum()
    else:
        decided.clamp_(0, 3)
        loss = nn.functional.cross_entropy(logits, decided)
    loss.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"smooth": 1.0, "pruning_prob": 0.0},
        {"metric": "acc"},
        {"metric": "iou", "solver": "exact", "smooth": 1.0},
        *({"solver": solver, "output_mode": "multilabel"} for solver in ("exact", "BA", "TRNA")),
    ],
    ids=str,
)
def test_another_default_device_changes_nothing(options):
    """Tensors that are made on the way lie beside the probabilities."""
    probs, decoder = torch.rand(2, 3, 8, 9).softmax(1), RankSEG(**options)
    valid, masks = torch.rand(8, 9) > 0.3, probs > 0.4
    expected, judge = decoder(probs, valid), RankSEG(smooth=decoder.smooth)
    score = judge.expected_score(probs, masks, valid)
    with torch.device("meta"):
        assert torch.equal(decoder(probs, valid), expected)
        assert torch.equal(judge.expected_score(probs, masks, valid), score)


@pytest.mark.parametrize(
    ("change", "message"), [(torch.Tensor.to_sparse, "be a dense tensor"), (lambda x: x.to("meta"), "hold values")]
)
def test_masks_and_decisions_without_values_in_their_place(change, message):
    valid, decision = PROBS[0, 0] > -1, PROBS.argmax(1)
    with pytest.raises(TypeError, match=f"valid_mask must {message}"):
        RankSEG()(PROBS, change(valid))
    with pytest.raises(TypeError, match=f"decision must {message}"):
        RankSEG().expected_score(PROBS, change(decision))
