"""Which candidate is chosen, and when it is used: against gains that were made to be known."""

import numpy as np
import pytest

from benchmarks.choosing import compared, told
from rankseg_plugins.tuning.choosing import choose, deal

IMAGES = 40


def test_the_more_there_is_to_gain_the_more_often_a_candidate_is_used():
    """Without a gain seldom, with a loss hardly ever, and with a gain of three standard errors nearly always."""
    assert len(told(-1, IMAGES, 6, draws=40)) <= 6
    assert len(told(0, IMAGES, 6, draws=40)) <= 16
    assert len(told(3, IMAGES, 6, draws=40)) >= 36


def test_the_largest_gain_wins():
    gains = np.stack([np.full(IMAGES, 0.03), np.full(IMAGES, 0.05), np.full(IMAGES, -0.05)], 1)
    choice = choose(compared(gains), "dice_image")
    assert (choice.winner, choice.used, round(choice.gain, 6)) == ("candidate 1", True, 5.0)
    losing = choose(compared(gains[:, 2:]), "dice_image")
    assert (losing.winner, losing.used) == ("argmax", False)
    assert losing.verdict.startswith("keep argmax: no candidate gains more than a standard error on all images, 0.00")


def test_an_even_gain_is_chosen_before_a_larger_one_by_luck():
    lucky = np.where(np.arange(IMAGES) < 8, 0.5, -0.08)
    assert 0.03 < lucky.mean() < lucky.std(ddof=1) / IMAGES**0.5
    choice = choose(compared(np.stack([lucky, np.full(IMAGES, 0.03)], 1)), "dice_image")
    assert (choice.winner, choice.used) == ("candidate 1", True)


def test_a_gain_of_few_images_alone_is_none():
    """All of it lies in one fold: on what is left without it nothing gains, and what is chosen with it loses."""
    fold = np.array([deal([str(index) for index in range(IMAGES)], 5, 0)[str(index)] for index in range(IMAGES)])
    gains = np.where(fold == 0, 0.4, -0.04)
    assert gains.mean() > gains.std(ddof=1) / IMAGES**0.5
    choice = choose(compared(gains[:, None]), "dice_image")
    assert (choice.winner, choice.used) == ("candidate 0", False)
    assert choice.gain == pytest.approx(100 * 0.8 * -0.04)
    assert choice.verdict.startswith("keep argmax: choosing gains nothing, -3.20 points of image Dice (union)")


@pytest.mark.parametrize("true_gain", [0, 1])
def test_a_verdict_that_uses_a_candidate_flatters_it(true_gain):
    """What gains nothing on other images is not used; so the report does not call the gain of the verdict unbiased."""
    assert np.mean(told(true_gain, IMAGES, 6, draws=40)) > true_gain + 0.2


def test_too_few_cases():
    gains = np.full((4, 1), 0.05)
    assert choose(compared(gains), "dice_image", min_cases=0).verdict.endswith(
        "(interval: too few cases to be certain)"
    )
    assert "(4 below min_cases=20) to choose on" in choose(compared(gains), "dice_image").verdict
