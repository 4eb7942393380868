"""Examples and pages of toolkits that are tested in an environment of their own."""

import re
import runpy
import sys

from places import ROOT


def run(monkeypatch, capsys, name, *arguments):
    """What ``python -m examples.NAME`` prints."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_module(f"examples.{name}", run_name="__main__", alter_sys=True)
    return capsys.readouterr().out


def table(printed):
    """The heads of the printed table, and its rows of figures by the name of the score."""
    (head,) = re.findall(r"^score, %  +(.*)$", printed, re.MULTILINE)
    rows = re.findall(r"^((?:dice|iou)_\w+) +([\d. ]+)$", printed, re.MULTILINE)
    return re.split(r"  +", head), {name: [float(value) for value in values.split()] for name, values in rows}


def code_of(page):
    """The Python on a page, whose links are checked."""
    path = ROOT / "docs" / page
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (path.parent / link.split("#")[0]).is_file(), link
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
