"""Running sums against the scores of all images at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankseg_plugins.scores import Areas, levels, sums

PIXELS = 10**7
#: Images of ten million true pixels: any score there is. Close ones share a bin of the histograms.
FOUND = st.one_of(st.integers(0, PIXELS), st.integers(5_000_000, 5_000_090), st.sampled_from([0, PIXELS // 2, PIXELS]))


def areas_of(found):
    """One class, whose recall in each image is the share of its pixels that was found."""
    counts = torch.tensor(found).unsqueeze(1)
    return Areas(counts, counts, torch.full_like(counts, PIXELS))


@given(found=st.lists(FOUND, min_size=1, max_size=40), share=st.floats(0.01, 1.0), batch=st.integers(1, 7))
@settings(max_examples=150, deadline=None)
def test_worst_levels_are_never_off_by_more_than_a_bin(found, share, batch):
    areas, state = areas_of(found), sums.empty_sums(1, ("recall",), with_histogram=True)
    for part in zip(*(count.split(batch) for count in areas), strict=True):
        for name, value in sums.sums_of(Areas(*part), ("recall",), "skip", with_histogram=True).items():
            state[name] = state[name] + value
    result = sums.levels_of(state, ("recall",), ("image", "class"), "skip", (share,))
    scores = torch.tensor(found, dtype=torch.float64) / PIXELS
    exact = levels.worst(scores, share)
    for level, width in (("image", 1e-5), ("class", 1e-3)):
        assert abs(result[f"recall_{level}"] - scores.mean()) < 1e-12
        assert abs(result[sums.worst_name("recall", level, share)] - exact) <= width


def test_worst_levels_are_exact_where_the_share_fills_its_bins():
    state = sums.sums_of(areas_of([10, 20, 30, PIXELS]), ("recall",), "skip", with_histogram=True)
    result = sums.levels_of(state, ("recall",), ("image", "class"), "skip", (0.75, 0.5))
    for level in ("image", "class"):
        assert abs(result[f"recall_{level}_worst75"] - 20 / PIXELS) < 1e-15
        # Half of the images ends inside the first bin, which remembers no more than its mean.
        assert abs(result[f"recall_{level}_worst50"] - 20 / PIXELS) < 1e-15


@pytest.mark.parametrize("share", [1e-9, 1e-12, 5e-324])
def test_the_worst_are_at_least_one(share):
    state = sums.sums_of(areas_of([10, 5_000_000, PIXELS]), ("recall",), "skip", with_histogram=True)
    nothing = sums.empty_sums(1, ("recall",), with_histogram=True)
    for level in ("image", "class"):
        name = sums.worst_name("recall", level, share)
        assert sums.levels_of(state, ("recall",), (level,), "skip", (share,))[name] == 10 / PIXELS
        assert sums.levels_of(nothing, ("recall",), (level,), "skip", (share,))[name].isnan()


def test_shares_of_one_name_are_refused():
    with pytest.raises(
        ValueError, match=r"worst must hold shares that differ within six digits, got \(0\.1, 0\.10000001\)"
    ):
        sums.check_options(2, "dice", "image", None, "skip", (0.1, 0.10000001))
