"""The page on boundaries repeats what its command finds."""

import pytest
from places import DATA, ROOT

from benchmarks.boundaries import EXTRA, IGNORE, table
from benchmarks.tuning import samples_of
from rankseg_plugins import RankSEG
from rankseg_plugins.comparison import Scoring, compare

PATH = DATA / "voc21_horses/probs.npz"


@pytest.mark.exhaustive
@pytest.mark.skipif(not PATH.exists(), reason="the real probabilities are not beside this checkout")
@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
def test_page_repeats_what_is_measured():
    """But for what was tuned, which takes long."""
    page = (ROOT / "docs/evidence/boundaries.md").read_text()
    decoders = {"argmax": RankSEG("acc"), "default": RankSEG("dice")}
    options = {"extra": EXTRA, "ignore_index": IGNORE, "scoring": Scoring(present="label"), "panels": 0}
    expected = list(table(compare(samples_of(PATH), decoders, **options)))
    (written,) = (
        part for part in page.split("\n\n**") if part.startswith("voc21_horses**, 16 images, `--present label")
    )
    rows = [" | ".join(line.split(" | ")[:3]) + " |" for line in written.split("\n\n")[1].strip().splitlines()]
    assert rows == expected
