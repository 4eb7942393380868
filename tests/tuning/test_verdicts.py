"""A verdict says why argmax is kept, and what a winner leaves open."""

import pytest
import torch

from benchmarks.tuning import softened
from rankseg_plugins.comparison import Sample
from rankseg_plugins.tuning import tune
from rankseg_plugins.tuning.choosing import choose

pytestmark = [
    pytest.mark.filterwarnings("ignore:the probabilities are too unsure"),
    pytest.mark.usefixtures("unpainted"),
]


def images(count, temperature=2.0, seed=1, size=24):
    """Smooth probabilities of a rare foreground, labels drawn from them, then softened by ``temperature``."""
    return softened(count, seed, temperature, size)


QUICK = {"pruning_probs": [0.5]}


def test_a_single_case():
    samples = [Sample(s.name, s.probs, s.labels, case="one patient") for s in images(4)]
    found = tune(samples, min_cases=0, **QUICK)
    assert found.decoder.is_argmax
    assert "nan" not in found.verdict
    assert "+0.00" not in found.verdict
    assert "all images are of a single case, so none is left to score a choice on" in found.verdict


def test_no_image_has_a_score():
    samples = [Sample(s.name, s.probs, torch.full_like(s.labels, 255)) for s in images(24)]
    with pytest.raises(ValueError, match="presence cannot be learnt, as no image holds a pixel"):
        tune(samples, ignore_index=255, **QUICK)
    found = tune(samples, ignore_index=255, presence=[], **QUICK)
    assert found.verdict == "keep argmax: no image has a score to compare in image Dice (union)"
    assert (found.decoder.evidence["gain"], found.decoder.evidence["interval"]) == (None, None)


def test_argmax_is_the_best_candidate():
    """Labels that argmax gives, and a candidate that can only differ from it for the worse."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (24, 100), generator=generator)
    probs = 0.5 * torch.nn.functional.one_hot(labels, 3).movedim(2, 1) + 0.5 / 3
    found = tune([(str(i), p, t) for i, (p, t) in enumerate(zip(probs, labels, strict=True))], **QUICK)
    assert found.decoder.evidence["best_candidate"] == "argmax"
    assert choose(found.comparison, "dice_image").winner == "argmax"
    assert found.verdict.startswith("keep argmax: no candidate gains more than a standard error on all images, ")


@pytest.mark.parametrize(
    ("temperatures", "caveat"),
    [
        ([0.5, 1.0], "; lowest temperature tried: try lower ones too"),
        ([0.5, 0.01], "; highest temperature tried: try higher ones too"),
        ([0.5], ""),
        ([0.01, 0.5, 1.0], ""),
    ],
)
def test_edge_of_the_temperatures(temperatures, caveat):
    found = tune(images(40), temperatures=temperatures, **QUICK)
    assert found.decoder.temperature == 0.5
    # Of a rare foreground what gains Dice costs accuracy.
    said = found.verdict.split("; ")[1:]
    assert said.pop(0).startswith("but certainly the other way: pixel accuracy -")
    assert "".join(f"; {each}" for each in said) == caveat
    assert found.decoder.evidence["verdict"] == found.verdict


@pytest.mark.parametrize(
    ("temperatures", "end"),
    [([0.5, 1.0], "lowest"), ([0.5, 0.01], "highest"), ([0.5], None), ([0.01, 0.5, 1.0], None)],
)
def test_edge_of_the_temperatures_where_argmax_is_kept(temperatures, end):
    found = tune(images(40), temperatures=temperatures, min_cases=50, **QUICK)
    assert found.decoder.is_argmax
    span = f"{min(temperatures):g} to {max(temperatures):g}"
    hint = f"; the best other candidate has the {end} temperature tried: try some outside {span} too"
    assert found.verdict.partition(";")[1] + found.verdict.partition(";")[2] == ("" if end is None else hint)
    assert found.decoder.evidence["verdict"] == found.verdict


def test_equal_candidates_speak_for_no_end():
    samples = [Sample(str(i), torch.eye(3)[:, i % 3, None].expand(3, 50), torch.full((50,), i % 3)) for i in range(24)]
    assert "temperature" not in tune(samples, **QUICK).verdict


def test_a_global_winner_says_what_it_was_fitted_to(tmp_path):
    pytest.importorskip("matplotlib")
    found = tune(images(40, 1.0), "iou_dataset", aggregation_levels=["global"], temperatures=[1.0])
    assert not found.decoder.is_argmax
    assert found.verdict.endswith("; its rule was fitted to all images, without their labels")
    found.report(tmp_path)
    assert "fitted once, to all images, without their labels" in (tmp_path / "report.md").read_text()
