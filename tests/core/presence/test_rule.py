"""Which classes to take: within a thousandth of the best of all sets, for every way to count absent classes."""

import itertools

import pytest
import torch

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.core.presence.rule import best_set, gauss, mean_image_score, mean_scores

SCORINGS = [
    ("union", "skip"),
    ("union", "zero"),
    ("union", "one"),
    ("label", "skip"),
    ("label", "zero"),
    ("label", "one"),
]


def subsets(classes):
    """All of them, (2 ** C, C) bool, the empty one first."""
    return torch.tensor(list(itertools.product([False, True], repeat=classes)))


def image_score(taken, q, given, present="union", absent="skip"):
    """The exact expected score of images, by going through every set of classes that the truth may hold.

    Args:
        taken: (..., C) bool, classes with a mask.
        q: (..., C), how likely the truth holds each.
        given: (..., C), expected score of its mask where it does.
    """
    there = subsets(q.shape[-1])
    taken, q, given = (each.unsqueeze(-2) for each in (taken, q, given))
    likely = torch.where(there, q, 1 - q).prod(-1)
    counted = there | taken if present == "union" else there.expand(torch.broadcast_shapes(there.shape, taken.shape))
    scores = torch.where(there & taken, given, 0.0)
    if absent != "skip":
        return (likely * scores.where(counted, torch.tensor(float(absent == "one")).double()).mean(-1)).sum(-1)
    # The mean of the images that have a score.
    number = counted.sum(-1)
    likely = likely * (number > 0)
    return (likely * (scores * counted).sum(-1) / number.clamp(min=1)).sum(-1) / likely.sum(-1)


def drawn(seed, classes, images=1):
    generator = torch.Generator().manual_seed(seed)
    q = torch.rand(images, classes, dtype=torch.float64, generator=generator)
    q = torch.where(torch.rand(images, classes, generator=generator) < 0.5, q, (8 * (q - 0.5)).sigmoid())
    return q, torch.rand(images, classes, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 6])
def test_the_best_of_all_sets(classes):
    """Of those that are not empty, each image of a batch for itself; nearly always it is the best to the last digit."""
    q, given = drawn(classes, classes, images=500)
    found, values = best_set(q * given, q, gauss(classes))
    best = image_score(subsets(classes)[1:, None], q, given).amax(0)
    torch.testing.assert_close(image_score(found, q, given), values, rtol=0, atol=1e-9)
    assert (best - values).max() < 1e-3
    assert (best - values > 1e-9).double().mean() < 0.01


def test_thousands_of_classes():
    """The value of the set, against the distribution of the number of the others that are there."""
    q, given = drawn(0, 1000)
    found, value = best_set(0.1 * q * given, 0.1 * q, gauss(1000))
    number = torch.ones(1, dtype=torch.float64)
    for each in 0.1 * q[0][~found[0]]:
        number = torch.cat([number * (1 - each), number[-1:] * 0]) + torch.cat([number[:1] * 0, number * each])
    size = int(found.sum()) + torch.arange(len(number))
    expected = (0.1 * q * given)[found].sum() * (number / size).sum()
    torch.testing.assert_close(value[0], expected, rtol=1e-10, atol=0)


def test_equal_classes_are_taken_together():
    q = torch.full((1, 6), 0.5, dtype=torch.float64)
    found, _ = best_set(0.8 * q, q, gauss(6))
    assert found.all()


def test_many_classes_that_are_hardly_ever_there():
    """The haze of 150 classes leaves the few that are there."""
    q = torch.full((1, 150), 0.01, dtype=torch.float64)
    q[0, :3] = 0.95
    given = torch.full_like(q, 0.6)
    assert best_set(q * given, q, gauss(150))[0][0].nonzero().flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize("metric", ["dice", "iou"])
@pytest.mark.parametrize(("present", "absent"), SCORINGS)
def test_within_a_thousandth_of_the_best_set(metric, present, absent):
    """Of sets of the masks that are drawn, whose scores are exact, those of the rule are RMA's.

    Pixels are independent where the class is there.
    """
    generator, images, classes = torch.Generator().manual_seed(0), 25, 5
    q, _ = drawn(7, classes, images)
    centre = 3 * torch.rand(images, classes, 1, generator=generator) - 1
    given = (centre + 2 * torch.randn(images, classes, 80, generator=generator)).sigmoid().double()
    decoder = RankSEG(metric, output_mode="multilabel")
    probs = given * q[..., None]
    masks = decoder(probs, active=torch.ones(classes, dtype=torch.bool))
    scores = decoder.expected_score(given, masks)
    # Of the truth alone, what an absent class counts makes no difference to what is taken.
    options = {"present": present, "absent": absent if present == "union" else "skip", "output_mode": "multilabel"}
    decided = PresenceRankSEG(classes, metric, **options).predict(probs, presence=q)
    found = decided.any(-1)
    assert torch.equal(decided, masks & found.unsqueeze(-1))
    # Of images without any score the mean is learnt; see below.
    sets = subsets(classes)[1 if absent == "skip" else 0 :, None]
    best = image_score(sets, q, scores, present, absent).amax(0)
    gaps = best - image_score(found, q, scores, present, absent)
    assert gaps.min() > -1e-12
    assert gaps.mean() < 1e-3


@pytest.mark.parametrize("images", [1, 4, 9])
def test_the_mean_over_images_takes_the_best_of_them(images):
    """One class: those that exceed (1 - q) M are the best set of all sets of images, as the ratio of expectations."""
    q, given = drawn(images, 1, images=images)
    q[0] = 0.9
    expected = q * given
    level = mean_scores(expected, q, torch.ones_like(q, dtype=torch.bool))
    taken = (expected > (1 - q) * level)[:, 0]

    def ratio(each):
        return (expected[each, 0].sum() / (each.sum() + q[~each, 0].sum())).item()

    assert ratio(taken) == pytest.approx(max(ratio(each) for each in subsets(images)[1:]), abs=1e-12)
    assert ratio(taken) == pytest.approx(level.item(), abs=1e-12)


@pytest.mark.parametrize("precision", [0.6, 0.95])
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_a_threshold_takes_the_best_images_for_the_score_of_the_data_set(metric, precision):
    """Pixels of all images pooled, as the ratio of expectations, against every set of images; see the module."""
    generator, images, n, rest = torch.Generator().manual_seed(1), 10, 40, 60
    given = torch.tensor([precision] * n + [0.0] * rest, dtype=torch.float64)
    sets = subsets(images)[1:]
    for _ in range(20):
        q = torch.rand(images, 1, dtype=torch.float64, generator=generator)
        right, shown, held = precision * n * (sets.double() @ q)[:, 0], n * sets.sum(1), precision * n * q.sum()
        score, index = (2 * right / (shown + held) if metric == "dice" else right / (shown + held - right)).max(0)
        # J / (1 + J) is half of the Dice.
        half = score / 2 if metric == "dice" else score / (1 + score)
        decoder = PresenceRankSEG(1, metric, rule=half.item() / precision, output_mode="multilabel")
        taken = decoder.predict(given * q[..., None], presence=q).flatten(1).any(1)
        assert torch.equal(taken, sets[index])


def test_a_class_that_no_image_holds_pays_nowhere():
    q = torch.full((5, 2), 0.2, dtype=torch.float64)
    there = torch.tensor([True, False]).expand(5, 2)
    assert mean_scores(q / 2, q, there)[1] == 1


@pytest.mark.parametrize(("metric", "level"), [("dice", "image"), ("iou", "image"), ("dice", "class")])
def test_one_channel_within_a_thousandth_of_the_best_share(metric, level):
    """Of images of which some may be empty; against every number of them, those that promise most first."""
    generator, images = torch.Generator().manual_seed(3), 400
    q = torch.rand(images, 1, dtype=torch.float64, generator=generator)
    given = (2 * torch.randn(images, 1, 60, generator=generator) + 0.5).sigmoid().double()
    there = torch.rand(images, 1, generator=generator) < q
    decoder = PresenceRankSEG(1, metric, level=level, output_mode="multilabel")
    decoder.update(given * q[..., None], there)
    decoder.fit()
    taken = decoder.predict(given * q[..., None], presence=q).flatten(1).any(1)
    plain = RankSEG(metric, output_mode="multilabel")
    masks = plain(given * q[..., None], active=torch.tensor([True]))
    expected = (q * plain.expected_score(given, masks))[:, 0]

    def score(taken):
        return (expected[taken].sum() / (taken.sum() + q[~taken, 0].sum())).item()

    order = expected.div(1 - q[:, 0]).argsort(descending=True)
    shares = [torch.zeros(images, dtype=torch.bool).index_fill(0, order[:count], True) for count in range(images)]
    assert score(taken) > max(map(score, shares)) - 1e-3


def test_images_that_may_be_empty_show_nothing_where_that_raises_the_mean():
    """Half of the images hold nothing: of every choice of sets, empty ones too, the mean over images with a score."""
    q, given = drawn(5, 3, images=60)
    q[::2] *= 0.05
    expected, nothing = q * given, (1 - q).prod(1)
    level = mean_image_score(expected, q, q > 0, gauss(3))
    found, value = best_set(expected, q, gauss(3))
    taken = found & (value > nothing * level)[:, None]
    assert 10 < taken.any(1).sum() < 60

    def parts(taken):
        """What each image adds to the scores, and to the number of those that have one."""
        counted = torch.where(taken.any(-1), 1.0, 1 - nothing)
        return image_score(taken, q, given) * counted, counted

    scores, counted = parts(taken)
    ours = scores.sum() / counted.sum()
    assert ours.item() == pytest.approx(level.item(), abs=1e-6)
    # Dinkelbach: a better choice would gain in an image on its own, at the mean of the best.
    others, others_counted = parts(subsets(3)[:, None].expand(-1, 60, -1))
    means = (scores.sum() - scores + others) / (counted.sum() - counted + others_counted)
    assert means.max() <= ours + 1e-9


def test_empty_images_stay_empty():
    """The rule finds them by itself, in masks and beside a background that is not scored."""
    generator, images = torch.Generator().manual_seed(0), 300
    there = torch.rand(images, 3, generator=generator) < 0.15
    logits = torch.nn.functional.interpolate(3 * torch.randn(images, 3, 3, 3, generator=generator), 12, mode="bilinear")
    probs = (logits - 4 * (~there)[..., None, None]).sigmoid()
    truth = (torch.rand(probs.shape, generator=generator) < probs) & there[..., None, None]
    empty = ~truth.flatten(1).any(1)
    decoder = PresenceRankSEG(3, output_mode="multilabel")
    decoder.update(probs, truth)
    decoder.fit()
    shown = decoder(probs).flatten(1).any(1)
    assert (shown[empty].double().mean() < 0.1).item()
    assert (shown[~empty].double().mean() > 0.9).item()
    with_background = torch.cat([(1 - probs.amax(1, keepdim=True)).clamp(min=0.05), probs], 1)
    with_background /= with_background.sum(1, keepdim=True)
    labels = torch.where(truth.any(1), truth.int().argmax(1) + 1, 0)
    decoder = PresenceRankSEG(4, excluded=[0])
    decoder.update(with_background, labels)
    decoder.fit()
    assert ((decoder(with_background) > 0).flatten(1).any(1)[empty].double().mean() < 0.1).item()
