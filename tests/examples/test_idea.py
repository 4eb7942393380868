"""The picture of the README is drawn where it is asked for; without a file the program says how it is used."""

import pytest
from PIL import Image
from places import ROOT
from programs import run


def test_the_picture(monkeypatch, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    run(monkeypatch, capsys, "idea", tmp_path / "idea.png")
    with Image.open(tmp_path / "idea.png") as drawn, Image.open(ROOT / "docs/idea.png") as shown:
        assert drawn.size == shown.size


def test_without_a_file(monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, capsys, "idea")
    assert "usage: python -m examples.idea [-h] OUT.png" in capsys.readouterr().err
