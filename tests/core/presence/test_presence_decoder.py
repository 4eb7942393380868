"""PresenceRankSEG: fitted, given frequencies or told; options, shapes, devices, states and refusals."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from processes import run

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.core.presence.curve import Expectation
from rankseg_plugins.core.presence.reading import STATE
from rankseg_plugins.scores import areas
from rankseg_plugins.scores.levels import dice, iou


def images(count=40, classes=4, size=12, seed=0):
    """Smooth probabilities in which some classes are a haze, and a truth that lacks them."""
    generator = torch.Generator().manual_seed(seed)
    there = torch.rand(count, classes, generator=generator) < 0.6
    there[:, 0] = True
    logits = 3 * torch.randn(count, classes, 4, 4, generator=generator) - 4 * (~there)[..., None, None]
    logits = torch.nn.functional.interpolate(logits, size, mode="bilinear")
    probs = logits.softmax(1)
    drawn = torch.multinomial(
        (probs * there[..., None, None]).movedim(1, -1).reshape(-1, classes), 1, generator=generator
    )
    return probs, drawn.view(count, size, size)


def fitted(probs, labels, **options):
    decoder = PresenceRankSEG(probs.shape[1], **options)
    for part in range(0, len(probs), 7):
        decoder.update(probs[part : part + 7], labels[part : part + 7])
    decoder.fit()
    return decoder


def held(labels, classes):
    return torch.stack([(labels == c).flatten(1).any(1) for c in range(classes)], 1)


def test_learns_which_classes_are_there():
    probs, labels = images(80)
    unseen, truth = images(80, seed=1)
    decoder = PresenceRankSEG(4)
    decoder.update(probs, labels)
    found = decoder.fit()
    assert found.images == 80
    assert torch.equal(found.frequency, held(labels, 4).double().mean(0))
    assert found.loss[1] < 0.8 * found.loss[0]
    q, there = decoder.presence(unseen), held(truth, 4)
    assert torch.nn.functional.binary_cross_entropy(q, there.double()) < 0.8 * found.loss[0]


def test_what_is_shown_is_decided_by_rankseg():
    probs, labels = images()
    decoder = fitted(probs, labels)
    decided = decoder(probs)
    shown = held(decided, 4)
    assert not shown.all(1).all()
    evidence, q = decoder.look(probs)[0], decoder.presence(probs)
    line = Expectation(decoder.slope, decoder.intercept)
    taken = decoder._rule.taken(q, line.scores(evidence, q, decoder._objective()), decoder.mean_score)
    assert torch.equal(decided, RankSEG()(probs, active=taken & (probs.flatten(2).amax(-1) > decoder.floor)))


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_masks_are_scored_against_the_labels(metric):
    probs, labels = images(6)
    labels[:, 0] = 255
    decoder = PresenceRankSEG(4, metric)
    decoder.update(probs, labels, ignore_index=255)
    rows = decoder._sample.rows
    place = (rows[:, :1] == probs.flatten(2).amax(-1)[:, 0]).nonzero()[:, 1]  # a sample has no order
    kept = torch.empty(6, 4).index_copy(0, place, rows[:, 16:20]).double()
    masks = RankSEG(metric, output_mode="multilabel")(probs, active=torch.ones(4, dtype=torch.bool))
    score = {"dice": dice, "iou": iou}[metric](areas(masks, labels, 4, ignore_index=255))
    expected = score.masked_fill(~held(labels, 4), torch.nan)
    torch.testing.assert_close(kept, expected.float().double(), equal_nan=True)


def test_what_weak_classes_score_is_learnt():
    """The mask of the last class is in the wrong place: it is shown only where it is all but sure to be there."""
    probs, labels = images(200)
    wrong = torch.where(labels == 3, 0, labels)
    wrong[:, 0, 0] = torch.where(held(labels, 4)[:, 3], 3, wrong[:, 0, 0])
    trusting, knowing = fitted(probs, labels), fitted(probs, wrong)
    assert knowing.intercept[3] < trusting.intercept[3] - 0.2
    assert held(knowing(probs), 4)[:, 3].sum() < held(trusting(probs), 4)[:, 3].sum()


def test_a_threshold_takes_what_exceeds_it():
    probs, labels = images()
    q = fitted(probs, labels).presence(probs)
    for threshold in (0.2, 0.5, 1.0):
        decided = fitted(probs, labels, rule=threshold)(probs)
        taken = (q > threshold) | ((q == q.amax(1, keepdim=True)) & ~(q > threshold).any(1, keepdim=True))
        assert torch.equal(decided, RankSEG()(probs, active=taken & (probs.flatten(2).amax(-1) > 0)))


def test_more_classes_are_taken_where_false_ones_cost_nothing():
    probs, labels = images()
    shown = {present: held(fitted(probs, labels, present=present)(probs), 4).sum() for present in ("union", "label")}
    assert shown["label"] > shown["union"]
    assert torch.equal(fitted(probs, labels, absent="zero")(probs), fitted(probs, labels, present="label")(probs))


def test_excluded_classes_are_always_taken():
    probs, _ = images()
    decoder = PresenceRankSEG(4, frequencies=[0.01, 0.9, 0.9, 0.01], excluded=[0], output_mode="multilabel")
    assert decoder(probs)[:, 0].flatten(1).any(1).all()
    assert not decoder(probs)[:, 3].any()


@pytest.mark.parametrize(
    "options", [{"rule": 0.0}, {"present": "label"}, {"absent": "zero"}, {"absent": "one"}], ids=str
)
@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_a_class_that_is_never_there_is_not_shown(options, mode):
    """And one that always is has presence 1, to the last digit."""
    probs = torch.tensor([[[0.7] * 5, [0.2] * 5, [0.1] * 5]])
    decoder = PresenceRankSEG(3, frequencies=[0.0, 1.0, 0.5], output_mode=mode, **options)
    assert decoder.presence(probs).tolist() == [[0.0, 1.0, 0.5]]
    for each in (decoder, PresenceRankSEG(3, output_mode=mode, **options)):
        each.load_state_dict(decoder.state_dict())
        shown = each(probs)
        assert not (shown == 0).any() if mode == "multiclass" else not shown[:, 0].any()
    nothing = PresenceRankSEG(3, frequencies=[0.0] * 3, output_mode="multilabel", **options)
    assert not nothing(probs).any()


def test_frequencies_are_presence_that_is_the_same_everywhere():
    probs, _ = images()
    often = [0.9, 0.5, 0.2, 0.05]
    by_table = PresenceRankSEG(4, frequencies=often)(probs)
    assert torch.equal(by_table, PresenceRankSEG(4).predict(probs, presence=torch.tensor(often)))
    assert torch.equal(by_table, PresenceRankSEG(4).predict(probs, presence=torch.tensor(often).expand(40, 4)))


@pytest.mark.parametrize("solver", ["RMA", "exact", "BA", "TRNA", "BA+TRNA"])
def test_solvers_decide_on_the_classes_that_are_taken(solver):
    probs, labels = images()
    decoder = fitted(probs, labels, output_mode="multilabel", solver=solver)
    shown = decoder(probs).flatten(2).any(-1)
    assert torch.equal(shown, fitted(probs, labels, output_mode="multilabel")(probs).flatten(2).any(-1))
    expected = RankSEG(output_mode="multilabel", solver=solver)(probs, active=shown)
    assert torch.equal(decoder(probs), expected)


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize("form", ["labels", "channel", "masks", "int8", "presence"])
def test_every_form_of_labels_gives_the_same_fit(metric, form):
    probs, labels = images()
    masks = torch.stack([labels == c for c in range(4)], 1)
    given = {
        "labels": labels,
        "channel": labels.unsqueeze(1),
        "masks": masks.float(),
        "int8": labels.to(torch.int8),
        "presence": masks.flatten(2).any(-1),
    }[form]
    decoder = PresenceRankSEG(4, metric)
    decoder.update(probs, given)
    decoder.fit()
    expected = PresenceRankSEG(4, metric)
    expected.update(probs, labels)
    expected.fit()
    learnt = STATE if form != "presence" else STATE[:4]  # images alone do not say what masks score
    assert all(torch.equal(getattr(decoder, name), getattr(expected, name)) for name in learnt)


def test_ignored_pixels_hold_no_class_and_ignored_images_do_not_count():
    probs, labels = images()
    ignored = labels.masked_fill(labels == 3, 255)
    ignored[5] = 255
    decoder = PresenceRankSEG(4)
    decoder.update(probs, ignored, ignore_index=255)
    found = decoder.fit()
    assert found.images == 39
    assert found.frequency[3] == 0


def test_padding_changes_nothing():
    probs, labels = images()
    padded = torch.nn.functional.pad(probs, (0, 5), value=torch.nan)  # and labels there that are none
    valid = (torch.arange(17) < 12).expand(12, 17)
    decoder, whole = PresenceRankSEG(4), fitted(probs, labels)
    decoder.update(padded, torch.nn.functional.pad(labels, (0, 5), value=77), valid_mask=valid)
    decoder.fit()
    torch.testing.assert_close(decoder.presence(padded, valid), whole.presence(probs), rtol=1e-5, atol=1e-6)
    decided = decoder(padded, valid)
    assert torch.equal(decided[..., :12], whole(probs))
    assert (decided[..., 12:] == 255).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    probs, labels = images()
    decoder = fitted(probs, labels)
    assert torch.equal(decoder(probs.to(dtype)), decoder(probs.to(dtype).float()))


@pytest.mark.parametrize("spatial", [(50,), (4, 5, 6)])
def test_other_dimensions(spatial):
    probs = (3 * torch.randn(9, 3, *spatial, generator=torch.Generator().manual_seed(0))).softmax(1)
    labels = probs.argmax(1) % 2
    assert fitted(probs, labels)(probs).shape == (9, *spatial)


@pytest.mark.parametrize(
    "options",
    [
        {"metric": "iou"},
        {"smooth": 1.0},
        {"rule": 0.3},
        {"absent": "one"},
        {"present": "label"},
        {"level": "class"},
        {"excluded": [0, 2]},
        {"output_mode": "multilabel"},
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_every_rule_is_blind_under_vmap_and_decides_the_same(options, padded):
    probs, labels = images(40)
    decoder = fitted(probs, labels, **options)
    valid = (torch.arange(12) < 9).expand(12, 12) if padded else None
    mapped = torch.func.vmap(lambda image: decoder(image[None], valid)[0])(probs)
    assert torch.equal(mapped, decoder(probs, valid))


@pytest.mark.parametrize("rule", ["score", 0.3])
def test_a_graph_decides_the_same(rule):
    probs, labels = images(8)
    decoder = fitted(probs, labels, rule=rule)
    program = torch.export.export(decoder, (probs,))
    assert torch.equal(program.module()(probs), decoder(probs))
    compiled = torch.compile(decoder, backend="eager", fullgraph=True)
    assert torch.equal(compiled(probs), decoder(probs))
    likely = decoder.presence(probs)
    mapped = torch.func.vmap(lambda image, q: decoder(image[None], None, q)[0])(probs, likely)
    assert torch.equal(mapped, decoder.predict(probs, presence=likely))


def test_state_lasts():
    probs, labels = images()
    decoder = fitted(probs, labels)
    expected = decoder(probs)
    other = PresenceRankSEG(4)
    other.load_state_dict(decoder.state_dict())
    for each in (other, copy.deepcopy(decoder).half(), pickle.loads(pickle.dumps(decoder))):
        assert each.fitted
        assert torch.equal(each(probs), expected)
    with pytest.raises(RuntimeError, match="size mismatch"):
        PresenceRankSEG(3).load_state_dict(decoder.state_dict())
    for name, value in (("weight", torch.inf), ("below", 7.0), ("floor", 5.0), ("mean_score", 9.0)):
        broken = decoder.state_dict() | {name: torch.full_like(getattr(decoder, name), value)}
        with pytest.raises(RuntimeError, match=f"{name} of the presence must be finite"):
            PresenceRankSEG(4).load_state_dict(broken)
    with pytest.raises(RuntimeError, match=r"presence holds weight, .*, got offset alone"):
        PresenceRankSEG(4).load_state_dict({"offset": decoder.offset}, strict=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "iou"}, "metric='dice', this decoder has 'iou'"),
        ({"smooth": 1.0}, "smooth=0.0, this decoder has 1.0"),
        ({"level": "class"}, "level='image', this decoder has 'class'"),
        ({"excluded": [0, 2]}, r"excluded=\(\), this decoder has \(0, 2\)"),
    ],
)
def test_a_state_of_other_options_is_refused(options, words):
    probs, labels = images()
    state, decoder = fitted(probs, labels).state_dict(), PresenceRankSEG(4, **options)
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=f"what was fitted is for {words}"):
            decoder.load_state_dict(state, strict=strict)
    assert not decoder.fitted
    with pytest.raises(RuntimeError, match="what was fitted is for"):
        PresenceRankSEG(4).load_state_dict(fitted(probs, labels, **options).state_dict())


@pytest.mark.parametrize("options", [{"rule": 0.4}, {"present": "label", "excluded": [0]}, {"absent": "one"}])
def test_a_state_serves_every_rule_that_asks_no_more_of_it(options):
    probs, labels = images()
    decoder = PresenceRankSEG(4, **options)
    decoder.load_state_dict(fitted(probs, labels, level="class").state_dict())
    assert torch.equal(decoder(probs), fitted(probs, labels, **options)(probs))
    with pytest.raises(RuntimeError, match="what was fitted is for level='class'"):
        PresenceRankSEG(4).load_state_dict(decoder.state_dict())  # which tells for what it was fitted


def test_a_state_that_does_not_say_what_it_is_for_is_taken():
    probs, labels = images()
    expected, decoder = fitted(probs, labels, metric="iou"), PresenceRankSEG(4, "iou")
    decoder.load_state_dict({name: expected.state_dict()[name] for name in STATE})
    assert torch.equal(decoder(probs), expected(probs))


def test_images_without_a_valid_pixel():
    probs, labels = images(3)
    valid = torch.tensor([True, False, True])[:, None, None].expand(3, 12, 12)
    decoder = fitted(probs, labels)
    with np.errstate(all="raise"):
        decided = decoder(probs, valid)
    assert (decided[1] == 255).all()
    assert torch.equal(decided[::2], decoder(probs[::2]))


def test_memory_is_bounded_and_more_images_refine_nothing_else():
    probs, labels = images(60)
    decoder = PresenceRankSEG(4, max_images=20)
    for image, truth in zip(probs, labels, strict=True):
        decoder.update(image[None], truth[None])
    assert decoder._sample.rows.shape == (20, 5 * 4 + 1 + 4)
    assert decoder.fit().images == 20
    decoder.reset()
    assert decoder.fitted
    with pytest.raises(RuntimeError, match="no images to fit to"):
        decoder.fit()


@pytest.mark.parametrize("level", ["image", "class"])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_data_set_without_anything(level, value):
    probs = torch.full((4, 3, 5, 5), value)
    decoder = PresenceRankSEG(3, level=level, output_mode="multilabel")
    decoder.update(probs, torch.zeros(4, 3, dtype=torch.bool))
    decoder.fit()
    assert all(getattr(decoder, name).isfinite().all() for name in STATE)
    assert not decoder(probs).any()
    PresenceRankSEG(3, level=level, output_mode="multilabel").load_state_dict(decoder.state_dict())


def test_order_and_batches_do_not_matter():
    probs, labels = images()
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(0))
    q = fitted(probs, labels).presence(probs)
    torch.testing.assert_close(fitted(probs[order], labels[order]).presence(probs), q, rtol=1e-6, atol=1e-6)


def fit_alone(rank, path):
    probs, labels = images()
    decoder = PresenceRankSEG(4)
    decoder.update(probs[rank::2], labels[rank::2])
    decoder.fit()
    torch.save(decoder.state_dict(), f"{path}/{rank}")


def test_processes_fit_to_the_images_of_all(tmp_path):
    run(fit_alone, 2, str(tmp_path))
    probs, labels = images()
    expected = fitted(probs, labels).state_dict()
    for rank in (0, 1):
        found = torch.load(tmp_path / str(rank))
        for name in STATE:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-9)


def test_one_channel_learns_what_the_others_score():
    generator = torch.Generator().manual_seed(0)
    there = torch.rand(60, generator=generator) < 0.5
    logits = torch.nn.functional.interpolate(3 * torch.randn(60, 1, 3, 3, generator=generator), 12, mode="bilinear")
    probs = (logits - 3 * ~there.view(-1, 1, 1, 1)).sigmoid()
    labels = ((torch.rand(60, 12, 12, generator=generator) < probs[:, 0]) & there.view(-1, 1, 1)).long()
    decoder = fitted(probs, labels, output_mode="multilabel")
    shown = decoder(probs).flatten(1).any(1)
    assert 0.2 < decoder.mean_score.item() < 1
    assert (shown == labels.flatten(1).any(1)).double().mean() > 0.85
    with pytest.raises(ValueError, match="frequencies are not enough here: what a single class scores"):
        PresenceRankSEG(1, output_mode="multilabel", frequencies=[0.5])
    with pytest.raises(ValueError, match="frequencies are not enough here"):
        PresenceRankSEG(3, level="class", frequencies=[0.5] * 3)
    with pytest.raises(RuntimeError, match="presence is not enough here"):
        PresenceRankSEG(1, output_mode="multilabel").predict(probs, presence=torch.tensor([0.5]))
    assert PresenceRankSEG(1, output_mode="multilabel", frequencies=[0.7], absent="one")(probs).any()
    assert PresenceRankSEG(1, output_mode="multilabel", frequencies=[0.5], rule=0.4)(probs).any()


@pytest.mark.parametrize(
    ("present", "absent", "level"), itertools.product(["union", "label"], ["skip", "one"], ["image", "class"])
)
def test_a_bare_batch_and_a_dead_image(present, absent, level):
    probs, labels = images()
    if (level == "class" and (present, absent) != ("union", "skip")) or (present, absent) == ("label", "one"):
        with pytest.raises(ValueError, match="has no effect with rule='score'"):
            PresenceRankSEG(4, present=present, absent=absent, level=level)
        return
    decoder = fitted(probs, labels, present=present, absent=absent, level=level)
    assert decoder(probs[:0]).shape == (0, 12, 12)
    assert (decoder(torch.zeros(1, 4, 12, 12)) == 0).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pruning_prob": 0.1}, TypeError, "PresenceRankSEG takes no option 'pruning_prob'"),
        ({"metric": "acc"}, ValueError, "metric must be one of 'dice', 'iou'"),
        ({"rule": "best"}, ValueError, "rule must be one of 'score'"),
        ({"rule": 1.5}, ValueError, r"rule must be in \[0, 1\], got 1.5"),
        ({"present": "all"}, ValueError, "present must be one of"),
        ({"absent": "two"}, ValueError, "absent must be one of"),
        ({"level": "dataset"}, ValueError, "level must be one of 'image', 'class'"),
        ({"excluded": [4]}, ValueError, "excluded must hold some, not all, of the classes 0 to 3"),
        ({"excluded": [0, 1, 2, 3]}, ValueError, "excluded must hold some, not all"),
        ({"frequencies": [0.5] * 3}, ValueError, "frequencies must hold a number for each of 4 classes"),
        ({"frequencies": [0.5, 0.5, 0.5, 1.5]}, ValueError, r"each of frequencies must be in \[0, 1\], got 1.5"),
        ({"frequencies": torch.tensor([0.5, 0.5, 0.5, 1.5])}, ValueError, r"frequencies must lie in \[0, 1\], got 1.5"),
        ({"frequencies": torch.rand(2, 4)}, ValueError, r"for each of 4 classes, got shape \(2, 4\)"),
        ({"frequencies": "abcd"}, TypeError, "must be a list of numbers, class by class, or a tensor, got 'abcd'"),
        (
            {"frequencies": {0: 0.7, 1: 0.3}},
            TypeError,
            "must be a list of numbers, class by class, or a tensor, got {0",
        ),
        ({"frequencies": [None] * 4}, TypeError, "each of frequencies must be a real number, got NoneType"),
        ({"excluded": 0}, TypeError, "excluded must be a list of classes, got 0"),
        ({"rule": 0.5, "present": "label"}, ValueError, "present='label' has no effect with rule=0.5"),
        ({"rule": 0.5, "excluded": [0]}, ValueError, r"excluded=\(0,\) has no effect with rule=0.5"),
        ({"present": "label", "level": "class"}, ValueError, "level='class' has no effect with rule='score'"),
        ({"max_images": 0}, ValueError, "max_images must be at least 1"),
        ({"void_index": 3}, ValueError, "void_index must lie outside the class range"),
    ],
)
def test_options_refused(options, error, message):
    with pytest.raises(error, match=message):
        PresenceRankSEG(4, **options)


def test_use_refused():
    probs, labels = images(3)
    decoder = PresenceRankSEG(4)
    with pytest.raises(RuntimeError, match="PresenceRankSEG is not fitted"):
        decoder(probs)
    with pytest.raises(ValueError, match="probs must have 4 classes"):
        decoder.update(probs[:, :3], labels)
    with pytest.raises(ValueError, match="labels must lie in 0 to 3"):
        decoder.update(probs, labels + 9)
    with pytest.raises(ValueError, match="probs must lie in"):
        decoder.update(probs * 2, labels)
    with pytest.raises(ValueError, match="ignore_index=255 has no effect with the classes of images"):
        decoder.update(probs, torch.ones(3, 4, dtype=torch.bool), ignore_index=255)
    with pytest.raises(ValueError, match=r"presence must lie in \[0, 1\], got 2"):
        decoder.predict(probs, presence=torch.full((4,), 2.0))
    with pytest.raises(ValueError, match=r"presence must have shape \(3, 4\) or \(4,\)"):
        decoder.predict(probs, presence=torch.ones(3))
    with pytest.raises(TypeError, match="presence must be a torch"):
        decoder.predict(probs, presence=[0.5] * 4)
    with pytest.raises(ValueError, match="for num_classes=4, got num_classes=3"):
        decoder.check_classes(3)
