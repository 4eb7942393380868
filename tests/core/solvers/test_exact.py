"""The exact solver and the exact expected score, against enumeration, counting and Fourier transforms."""

import itertools

import exact_oracles as oracle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.core import paths
from rankseg_plugins.core.inputs.pixels import Pixels
from rankseg_plugins.core.kernels.cpu.solvers.prefixes import most_nodes, rule
from rankseg_plugins.core.objectives import OBJECTIVES
from rankseg_plugins.core.solvers import exact, pieces

METRICS = ["dice", "iou"]
SMOOTH = [0.0, 1e-6, 0.5, 1.0, 100.0]

probabilities = st.one_of(
    st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 1e-9, 1 - 1e-9]), st.floats(0, 1e-3), st.floats(0.999, 1)
)


def exact_mask(p, metric, smooth):
    probs = torch.from_numpy(np.asarray(p, dtype=np.float64))[None, None]
    return rankseg(probs, metric, smooth, "multilabel", "exact", pruning_prob=0.0)[0, 0].numpy()


def expected_score(p, mask, metric, smooth):
    decoder = RankSEG(metric, smooth, "multilabel")
    probs, masks = torch.from_numpy(p)[None, None], torch.from_numpy(mask)[None, None]
    return decoder.expected_score(probs, masks).item()


@settings(deadline=None, max_examples=150)
@given(st.lists(probabilities, min_size=1, max_size=8), st.sampled_from(METRICS), st.sampled_from(SMOOTH))
def test_no_mask_at_all_is_better(p, metric, smooth):
    p = np.array(p)
    best = oracle.best_by_enumeration(p, metric, smooth)
    mask = exact_mask(p, metric, smooth)
    assert oracle.by_enumeration(p, mask, metric, smooth) == pytest.approx(best, abs=1e-9)
    # With pixels that make no difference left out, as long as the optimum is unique.
    assert not mask[p == 0].any()


@settings(deadline=None, max_examples=6)
@given(st.lists(probabilities, min_size=11, max_size=12), st.sampled_from(METRICS), st.sampled_from(SMOOTH))
def test_no_mask_of_twelve_pixels_is_better(p, metric, smooth):
    p = np.array(p)
    best = oracle.best_by_enumeration(p, metric, smooth)
    mask = exact_mask(p, metric, smooth)
    assert oracle.by_enumeration(p, mask, metric, smooth) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize(("pixels", "power", "step"), [(120, 1, 1), (150, 6, 1), (2000, 3, 97)])
def test_best_of_all_volumes_of_different_pixels(metric, smooth, pixels, power, step):
    """Counting gives the score of every volume, or of those around the optimum and of some elsewhere."""
    generator = np.random.default_rng(pixels + power)
    p = np.sort(generator.random(pixels) ** power)[::-1].copy()
    chosen = int(exact_mask(p, metric, smooth).sum())
    volumes = sorted({*range(0, pixels + 1, step), *range(max(0, chosen - 4), min(pixels, chosen + 4) + 1)})
    scores = oracle.of_largest(p, volumes, metric, smooth)
    assert volumes[int(np.argmax(scores))] == chosen


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smooth", SMOOTH)
@pytest.mark.parametrize("power", [0.02, 0.3, 1, 5, 50])
def test_best_volume_of_twelve(metric, smooth, power):
    generator = np.random.default_rng(int(power * 100))
    for _ in range(3):
        p = generator.random(12) ** power
        assert exact_mask(p, metric, smooth).sum() == np.argmax(oracle.of_largest(p, range(13), metric, smooth))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=9),
    st.sampled_from(METRICS),
    st.sampled_from(SMOOTH),
)
def test_expected_score_of_any_mask(pixels, metric, smooth):
    p, mask = (np.array(part) for part in zip(*pixels, strict=True))
    expected = oracle.by_enumeration(p, mask, metric, smooth)
    assert expected_score(p, mask, metric, smooth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("power", [0.002, 0.1, 1, 10, 1000])
@pytest.mark.parametrize("pixels", [60, 500, 2000])
def test_expected_score_of_many_pixels(power, pixels):
    generator = np.random.default_rng(pixels)
    p = generator.random(pixels) ** power
    p[: pixels // 20], p[-pixels // 20 :] = 1.0, 0.0
    for mask in (p > 0.5, p > np.median(p), generator.random(pixels) < 0.3):
        inside, outside = oracle.pmf(p[mask]), oracle.pmf(p[~mask])
        for metric, smooth in itertools.product(METRICS, [0.0, 1e-9, 1.0, 50.0]):
            expected = oracle.of_counts(inside, outside, mask.sum(), metric, smooth)
            assert expected_score(p, mask, metric, smooth) == pytest.approx(expected, abs=1e-12), (metric, smooth)


@pytest.mark.parametrize("path", ["kernels", "graph"])
@pytest.mark.parametrize("power", [0.1, 1, 30])
def test_expected_score_of_a_mask_in_parts(power, path, monkeypatch):
    """Of any sizes, some without a pixel of the mask: the same to rounding, against distributions of counts."""
    if path == "graph":
        monkeypatch.setattr(paths, "has_numba", lambda: False)
    generator = np.random.default_rng(7)
    p = generator.random(900) ** power
    for mask in (p > 0.5, np.arange(900) >= 700, np.zeros(900, bool)):
        inside, outside = oracle.pmf(p[mask]), oracle.pmf(p[~mask])
        for metric, smooth in itertools.product(METRICS, [0.0, 1.0]):
            objective = OBJECTIVES[metric](smooth)
            parts = [
                (values_of(part, objective), lambda of=of: torch.from_numpy(of)[None])
                for part, of in zip(np.split(p, [1, 300, 650]), np.split(mask, [1, 300, 650]), strict=True)
            ]
            found = exact.expected_score_in_parts(parts, objective)
            expected = oracle.of_counts(inside, outside, mask.sum(), metric, smooth)
            assert found == pytest.approx(expected, abs=1e-12), (metric, smooth)


def values_of(p, objective):
    return paths.make_steps(Pixels(torch.from_numpy(p)[None, None]), objective, 0.0, looks=True).values()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize(("haze", "pixels"), [(0.001, 100_000), (0.3, 20_000), (0.05, 3_000), (0.9, 10_000)])
def test_best_of_all_volumes(metric, smooth, haze, pixels):
    # Few different probabilities, so that Fourier transforms give every distribution to many digits.
    generator = np.random.default_rng(pixels)
    values = np.unique(np.concatenate([generator.random(12), haze * generator.random(12)]))[::-1]
    counts = generator.multinomial(pixels, generator.dirichlet(np.ones(len(values))))
    values, counts = values[counts > 0], counts[counts > 0]
    volumes, scores = oracle.all_volumes_of_groups(values, counts, metric, smooth)
    p = generator.permutation(np.repeat(values, counts))
    mask = exact_mask(p, metric, smooth)
    assert mask.sum() == volumes[np.argmax(scores)]
    assert expected_score(p, mask, metric, smooth) == pytest.approx(scores.max(), abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smooth", [1e-9, 0.3, 5.0, 200.0])
@pytest.mark.parametrize("haze", [1e-4, 0.01, 0.05])
def test_the_empty_mask_competes(metric, smooth, haze):
    generator = np.random.default_rng(int(1e4 * haze))
    rows = [np.concatenate([haze * generator.random(400), top * generator.random(5)]) for top in (0.2, 0.6, 1.0)]
    # A row with certain pixels must not disturb its neighbours.
    rows.insert(1, np.concatenate([rows[0][:-5], np.ones(5)]))
    probs = torch.from_numpy(np.stack(rows))[None]
    decoder = RankSEG(metric, smooth, "multilabel", "exact", pruning_prob=0.0)
    masks = decoder(probs)
    reached = decoder.expected_score(probs, masks)[0]
    for p, mask, value in zip(rows, masks[0].numpy(), reached.tolist(), strict=True):
        assert value >= oracle.of_largest(p, [*range(30), 405], metric, smooth).max() - 1e-10
        assert value == pytest.approx(oracle.by_counts(p, mask, metric, smooth), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smooth", [1e-6, 1e-4, 0.01, 1.0])
@pytest.mark.parametrize(("pixels", "p"), [(1000, 5e-4), (400, 1e-3), (50, 0.02), (1000, 2e-3), (300, 0.3)])
def test_the_empty_mask_against_many_equal_pixels(metric, smooth, pixels, p):
    """Whatever has to be taken whole: the masks that compete lie far apart."""
    values, counts = np.array([p]), np.array([pixels])
    volumes, scores = oracle.all_volumes_of_groups(values, counts, metric, smooth)
    mask = exact_mask(np.full(pixels, p), metric, smooth)
    assert mask.sum() == volumes[np.argmax(scores)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smooth", [0.0, 1e-6, 1.0])
def test_rows_of_a_batch_do_not_disturb_each_other(metric, smooth):
    # Scales of every kind side by side: certain pixels, nothing but zeros, haze, large and small objects.
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(7, 4096, generator=generator, dtype=torch.float64)
    rows[0] = 0
    rows[0, :4] = 1
    rows[1] = 0.02
    rows[1, :9] = 0.7
    rows[2] = (rows[2] > 0.7).double()
    rows[3] **= 50
    rows[4] = 0.0
    rows[5, ::2] = 1
    decoder = RankSEG(metric, smooth, "multilabel", "exact", pruning_prob=0.1)
    masks = decoder(rows.unsqueeze(0))
    scores = decoder.expected_score(rows.unsqueeze(0), masks)
    for row in range(len(rows)):
        alone = rows[row].view(1, 1, -1)
        assert torch.equal(decoder(alone)[0, 0], masks[0, row])
        mask = masks[:, row : row + 1]
        torch.testing.assert_close(decoder.expected_score(alone, mask)[0, 0], scores[0, row], rtol=1e-11, atol=1e-13)


def test_hard_masks_rank_nothing(monkeypatch):
    found, rank = [], exact.ranked

    def ranked(*arguments):
        found.append(rank(*arguments))
        return found[-1]

    monkeypatch.setattr(exact, "ranked", ranked)
    monkeypatch.setattr(pieces, "ranked", ranked)
    probs = (torch.rand(1, 1, 100_000, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    assert torch.equal(rankseg(probs, output_mode="multilabel", solver="exact"), probs == 1)
    assert [len(piece.values) for piece in found] == [0, 0, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_float32_loses_no_digits(metric):
    probs = torch.rand(1, 2, 300_000, generator=torch.Generator().manual_seed(0)) ** 2
    decoder, masks = RankSEG(metric), probs > 0.4
    expected = decoder.expected_score(probs.double(), masks)
    torch.testing.assert_close(decoder.expected_score(probs, masks), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_probabilities_below_the_normal_numbers(metric):
    assert exact_mask([2e-311], metric, 0.0).shape == (1,)


def test_an_empty_batch():
    decoder = RankSEG()
    assert decoder.expected_score(torch.rand(0, 2, 4), torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 2)


@pytest.mark.parametrize("ratio", [1.0, 1.01, 2.0, 50.0, 1e4, 1e8])
def test_quadrature_of_every_exponential(ratio):
    nodes, weights = np.full((2, most_nodes(37 * ratio)), np.nan)
    used = rule.py_func(3.0, 37 * ratio, nodes, weights)
    nodes, weights = nodes[:used], weights[:used]
    rates = np.geomspace(3 / ratio, 3, 500)
    integrals = np.exp(-rates[:, None] * nodes) @ weights
    np.testing.assert_allclose(integrals * rates, 1, rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_real_probabilities(real_probs, metric):
    probs = real_probs[:1]
    exact, approximate = (RankSEG(metric, output_mode="multilabel", solver=solver) for solver in ("exact", "RMA"))
    masks = exact(probs)
    best = exact.expected_score(probs, masks)
    gain = best - exact.expected_score(probs, approximate(probs))
    assert gain.min() >= -1e-12
    # No neighbouring volume is better either: one pixel less, one more, in the ranking of each class.
    volumes = masks.flatten(2).sum(-1)
    rank = probs.flatten(2).double().argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    for shift in (-1, 1):
        shifted = (rank < (volumes + shift).clamp(min=0).unsqueeze(-1)).view_as(probs)
        active = volumes > 0
        assert ((best - exact.expected_score(probs, shifted))[active] >= -1e-12).all()


def test_labels_and_masks_are_scored_alike():
    probs = torch.rand(2, 3, 4, 5).softmax(1)
    labels = probs.argmax(1)
    labels[0, 0] = 255
    masks = torch.stack([labels == c for c in range(3)], 1)
    decoder = RankSEG("iou")
    assert torch.equal(decoder.expected_score(probs, labels), decoder.expected_score(probs, masks))


def test_invalid_pixels_count_for_nothing():
    probs = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    masks = probs > 0.4
    padded = torch.nn.functional.pad(probs, (0, 2), value=float("nan"))
    padded_masks = torch.nn.functional.pad(masks, (0, 2), value=True)
    valid = torch.nn.functional.pad(torch.ones(6, 5, dtype=torch.bool), (0, 2))
    decoder = RankSEG("dice", 1.0, output_mode="multilabel", solver="exact")
    padded_scores = decoder.expected_score(padded, padded_masks, valid_mask=valid)
    torch.testing.assert_close(padded_scores, decoder.expected_score(probs, masks), rtol=1e-12, atol=0)
    assert torch.equal(decoder(padded, valid_mask=valid)[..., :5], decoder(probs))


@pytest.mark.parametrize(
    ("decision", "error", "message"),
    [
        (torch.zeros(1, 4), TypeError, "decision must be int64 labels or bool masks, got torch.float32"),
        (torch.zeros(1, 5, dtype=torch.int64), ValueError, r"labels must have shape \(1, 4\), got \(1, 5\)"),
        (torch.zeros(1, 4, dtype=torch.bool), ValueError, r"masks must have shape \(1, 2, 4\), got \(1, 4\)"),
        (torch.full((1, 4), 2), ValueError, r"labels must lie in 0 to 1 or be void_index=255, got \[2\]"),
    ],
)  # fmt: skip
def test_bad_decisions(decision, error, message):
    with pytest.raises(error, match=message):
        RankSEG().expected_score(torch.rand(1, 2, 4), decision)


def test_accuracy_has_no_expected_score():
    with pytest.raises(ValueError, match="serves metric='dice' and 'iou'"):
        RankSEG("acc").expected_score(torch.rand(1, 2, 4), torch.zeros(1, 4, dtype=torch.int64))


@pytest.mark.parametrize("solver", ["RMA", "exact", "BA", "TRNA", "BA+TRNA"])
@pytest.mark.parametrize("smooth", [1e13, 1e18, 1e100])
def test_smoothing_that_outweighs_everything(solver, smooth):
    """Scores are all 1 to the last digit, and their limit is still that of accuracy: every pixel above 1/2."""
    generator = torch.Generator().manual_seed(0)
    probs = (6 * torch.randn(2, 3, 200, generator=generator, dtype=torch.float64)).sigmoid()
    options = {"smooth": smooth, "output_mode": "multilabel", "pruning_prob": 0.0}
    assert torch.equal(rankseg(probs, "dice", solver=solver, **options), probs > 0.5)
    if solver in ("RMA", "exact"):
        assert torch.equal(rankseg(probs, "iou", solver=solver, **options), probs > 0.5)


def test_threads_do_not_change_the_score():
    """A row so long that its sums are worth splitting."""
    probs = torch.rand(1, 1, 3_000_000, generator=torch.Generator().manual_seed(0))
    decoder, found = RankSEG(output_mode="multilabel"), []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        found.append(decoder.expected_score(probs, probs > 0.4).item())
    torch.set_num_threads(2)
    assert found[0] == found[1] == found[2]


def test_a_decision_that_is_no_tensor():
    with pytest.raises(TypeError, match="decision must be int64 labels or bool masks, got list"):
        RankSEG().expected_score(torch.rand(1, 2, 3).softmax(1), [[0, 1, 0]])
