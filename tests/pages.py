"""The blocks of code on a page, and how they are run."""

import re
import shlex
from typing import NamedTuple

from places import ROOT

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Blocks without a language are for a shell.
SHELL = ("", "bash")


class Block(NamedTuple):
    """Code on a page; ``line`` is the number of lines before it."""

    language: str
    line: int
    code: str


def read_blocks(page, *languages):
    """All blocks of a page, or those in some languages."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [Block(match[1], text.count("\n", 0, match.start(2)), match[2]) for match in BLOCK.finditer(text)]
    return [block for block in found if not languages or block.language in languages]


def run_blocks(page, blocks, names=None):
    """Run them one after the other, as a reader would; the names that they leave. Errors tell the line of the page."""
    names = {} if names is None else names
    for block in blocks:
        exec(compile("\n" * block.line + block.code, page, "exec"), names)
    return names


def run_page(page, names=None):
    """Run all blocks of Python on a page."""
    return run_blocks(page, read_blocks(page, "python"), names)


def commands(page):
    """The words of each command line on a page; comments and loops are left to a shell."""
    text = "".join(block.code for block in read_blocks(page, *SHELL)).replace("\\\n", "")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]
