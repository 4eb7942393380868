"""Examples that are run one by one, and the table that they print."""

import re
import runpy
import sys


def run(monkeypatch, capsys, name, *arguments):
    """What ``python -m examples.NAME`` prints."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_module(f"examples.{name}", run_name="__main__", alter_sys=True)
    return capsys.readouterr().out


def table(printed):
    """The heads of the printed table, and its rows of figures by the name of the score."""
    (head,) = re.findall(r"^score, %  +(.*)$", printed, re.MULTILINE)
    rows = re.findall(r"^(\w+)  +([\d. ]+)$", printed, re.MULTILINE)
    return re.split(r"  +", head), {name: [float(value) for value in values.split()] for name, values in rows}
