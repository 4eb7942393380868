"""The page about MONAI: its code runs."""

import json

import pytest
from pages import read_blocks, run_page
from toolkits import is_installed

if not (is_installed("monai") and is_installed("ignite")):
    pytest.skip("MONAI, or Ignite, is not installed", allow_module_level=True)

from monai.bundle import ConfigParser

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.monai import RankSEGd

PAGE = "docs/monai.md"


@pytest.mark.filterwarnings("ignore")
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("nibabel", reason="files of volumes need NiBabel")
    monkeypatch.chdir(tmp_path)
    run_page(PAGE)
    assert (tmp_path / "labels" / "scan_seg.nii.gz").is_file()
    assert (tmp_path / "report" / "report.html").is_file()
    assert "Comparison of 4 images" in capsys.readouterr().out

    TunedDecoder(RankSEG(), 3).save("decoder.json")
    (config,) = read_blocks(PAGE, "json")
    found = ConfigParser({"post": json.loads(config.code)}).get_parsed_content("post")
    assert isinstance(found, RankSEGd)
    assert found.keys == ("pred",)
