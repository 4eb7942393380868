"""The code on the pages runs."""

import re

import pytest
from places import ROOT

DOCS = ROOT / "docs"
#: Sections of a page whose other code needs files of the reader's.
SECTIONS = {"compare.md": ("Which images can be trusted", "Groups of images")}


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.parametrize(("page", "count"), [("decoding.md", 7), ("tuning.md", 9)])
def test_code_of_a_page(page, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == count
    exec(compile("\n".join(blocks), page, "exec"), {})


@pytest.mark.parametrize("page", SECTIONS)
def test_code_of_sections(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sections = re.split(r"^## (.*)\n", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    by_title = dict(zip(sections[1::2], sections[2::2], strict=True))
    blocks = [re.findall(r"```python\n(.*?)```", by_title[title], flags=re.DOTALL) for title in SECTIONS[page]]
    assert [len(each) for each in blocks] == [1] * len(blocks)
    exec(compile("\n".join(block for (block,) in blocks), page, "exec"), {})
