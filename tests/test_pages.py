"""The code on the pages runs."""

import re

import pytest
from places import ROOT

DOCS = ROOT / "docs"


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.parametrize(("page", "count"), [("decoding.md", 7), ("tuning.md", 9)])
def test_code_of_a_page(page, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == count
    exec(compile("\n".join(blocks), page, "exec"), {})
