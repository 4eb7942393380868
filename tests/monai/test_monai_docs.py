"""The page about MONAI: its code runs, and its links lead somewhere."""

import json
import re

import pytest
from places import ROOT
from toolkits import is_installed

if not (is_installed("monai") and is_installed("ignite")):
    pytest.skip("MONAI, or Ignite, is not installed", allow_module_level=True)

from monai.bundle import ConfigParser

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.monai import RankSEGd

PAGE = ROOT / "docs" / "monai.md"


@pytest.mark.filterwarnings("ignore")
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nibabel", reason="files of volumes need NiBabel")
    monkeypatch.chdir(tmp_path)
    text, namespace = PAGE.read_text(encoding="utf-8"), {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, namespace)
    assert (tmp_path / "labels" / "scan_seg.nii.gz").is_file()
    assert (tmp_path / "report" / "report.html").is_file()
    assert "Comparison of 4 images" in capsys.readouterr().out

    TunedDecoder(RankSEG(), 3).save("decoder.json")
    (config,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    found = ConfigParser({"post": json.loads(config)}).get_parsed_content("post")
    assert isinstance(found, RankSEGd)
    assert found.keys == ("pred",)


def test_the_links_lead_somewhere():
    for link in re.findall(r"\]\((.*?)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / link).is_file(), link
