"""What was learnt, in a kernel and in a graph: the same classes are shown."""

import itertools
import warnings

import pytest
import torch

from rankseg_plugins.core.objectives import Dice, IoU
from rankseg_plugins.core.presence import choosing
from rankseg_plugins.core.presence.choosing import Known
from rankseg_plugins.core.presence.curve import Curve
from rankseg_plugins.core.presence.rule import SCORE, Rule, gauss
from rankseg_plugins.core.volumes import Volumes

#: Of the rule, and what it scores: present, absent, level.
RULES = [
    *itertools.product([0.3, 1.0], ["union"], ["skip"], ["image"]),
    *itertools.product([SCORE], ["union"], ["skip"], ["image", "class"]),
    *[(SCORE, "union", "one", "image"), (SCORE, "union", "zero", "image"), (SCORE, "label", "skip", "image")],
]


def drawn(classes, images, dtype):
    """Masks of images of 100 pixels, the first three of none; some classes are as good as never there."""
    generator = torch.Generator().manual_seed(classes)
    draw = lambda *shape: torch.rand(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    maximum = draw(images, classes) ** 3
    maximum[:3] = 0
    n = (100 * draw(images, classes)).floor() * (draw(images, classes) > 0.2)
    s, mu = n * maximum * draw(images, classes), 100 * maximum * draw(images, classes)
    volumes = Volumes(maximum / 2, n, s, mu.maximum(s), (n > 0) | (draw(images, classes) > 0.5))
    nothing = torch.zeros(1, dtype=torch.float64)
    curve = Curve(torch.tensor([1.0, -0.3, 0.5]).double(), 3 * draw(classes) - 1, nothing + 0.02, nothing + 0.004)
    mean = draw(classes)
    return maximum.to(dtype), volumes, Known(*curve, nothing + 0.8, 0.2 * draw(classes) - 0.1, mean)


def copied(volumes):
    return Volumes(*(each.clone() for each in vars(volumes).values()))


@pytest.mark.parametrize(("rule", "present", "absent", "level"), RULES)
@pytest.mark.parametrize("objective", [Dice(), Dice(1.0), IoU(), IoU(0.5)])
@pytest.mark.parametrize(("classes", "excluded"), [(1, ()), (4, (0, 2)), (21, ())])
@pytest.mark.parametrize("fills", [True, False])
def test_kernel_and_graph_show_the_same(rule, present, absent, level, objective, classes, excluded, fills, monkeypatch):
    maximum, volumes, known = drawn(classes, 60, torch.float32 if fills else torch.float64)
    if level == "image":  # the same for all classes, and not known
        known = known._replace(mean_score=torch.full_like(known.mean_score, 0.4 if fills else torch.nan))
    rule = Rule(rule, present, absent, level, excluded, gauss(classes - len(excluded)), fills)
    given = torch.rand(60, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given[:10], given[5:20, 0], given[20:30] = 1.0, 0.0, given[20:30, :1]
    pixels = torch.full((60, 1), 100.0, dtype=torch.float64)
    pixels[:3] = 0
    cases = [(pixels, None), (100, given), (100, given[:1].expand(60, classes))]
    found = [known.choose(maximum, copied(volumes), size, objective, rule, presence) for size, presence in cases]
    monkeypatch.setattr(choosing, "has_numba", lambda: False)
    for (size, presence), (shown, q) in zip(cases, found, strict=True):
        expected, likely = known.choose(maximum, copied(volumes), size, objective, rule, presence)
        torch.testing.assert_close(q, likely, rtol=1e-12, atol=0)
        assert all(map(torch.equal, vars(shown).values(), vars(expected).values()))


def test_a_decision_without_numba_says_so_no_second_time(monkeypatch):
    """Where it cannot be imported, that was said when the steps were chosen."""
    maximum, volumes, known = drawn(4, 3, torch.float32)
    rule = Rule(0.5, "union", "skip", "image", (), gauss(4), True)
    monkeypatch.setattr(choosing, "has_numba", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown, q = known.choose(maximum, volumes, 100, Dice(), rule)
    assert shown.active.dtype == torch.bool
    assert q.dtype == torch.float64
