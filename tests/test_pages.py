"""The code on the pages runs."""

import re

import pytest
import torch
from places import ROOT
from toolkits import is_installed

DOCS = ROOT / "docs"
#: Sections of a page whose other code needs files of the reader's.
SECTIONS = {"compare.md": ("Which images can be trusted", "Groups of images")}


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.parametrize(("page", "count"), [("decoding.md", 6), ("tuning.md", 9)])
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


@pytest.mark.filterwarnings("ignore")  # PyTorch's exporters, of themselves
def test_code_of_deploying(tmp_path, monkeypatch):
    """All of it, where ONNX is installed; the labels are those of torch."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "deploy.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 5
    if not (is_installed("onnxscript") and is_installed("onnxruntime")):
        blocks = [block for block in blocks if "onnx" not in block]
    found = {}
    exec(compile("\n".join(blocks), "deploy.md", "exec"), found)
    images = torch.randn(3, 3, 40, 56)
    expected = found["labeller"](images)
    assert torch.equal(torch.export.load("labeller.pt2").module()(images), expected)
    assert torch.equal(found["traced"](images), expected)
    if "session" in found:
        assert found["labels"].shape == (1, 80, 56)
        assert torch.equal(torch.from_numpy(found["session"].run(None, {"images": images.numpy()})[0]), expected)
