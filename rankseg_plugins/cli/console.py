"""How the commands speak: figures to standard output; notes, warnings and errors to standard error, a line each."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import typer
from rich.console import Console, RenderableType

from rankseg_plugins.cli.processes import may_say_error
from rankseg_plugins.core.fits.processes import gather
from rankseg_plugins.files.errors import InputError, NoImageError
from rankseg_plugins.files.wording import for_shell
from rankseg_plugins.report.words import printable

BAD_INPUT = 2
#: Columns of a file or a pipe: nothing that is read by programs is to be broken.
WIDE = 1000

#: Figures go to standard output, all else to standard error.
_notes = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


#: Every line of this process and its style.
_noted: dict[str, str | None] = {}


def note(line: str, style: str | None = None) -> None:
    """Print a line to standard error as it stands, whatever the names in it hold."""
    _noted[line] = style
    _notes.print(printable(line), style=style)


def note_for_all() -> None:
    """Print what only other processes had to say."""
    for part in gather(_noted):
        for line, style in part.items():
            if line not in _noted:
                note(line, style)


def show(figures: RenderableType) -> None:
    """Print to standard output, at the width of the terminal if it is one."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or a pipe that cannot take a letter of a name gets its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    with _full_output():
        console = Console(highlight=False)
        (console if console.is_terminal else Console(highlight=False, width=WIDE)).print(figures)


def show_json(figures: Mapping[str, Any]) -> None:
    """Print all figures to standard output."""
    with _full_output():
        print(json.dumps(figures, indent=2))


@contextlib.contextmanager
def _full_output() -> Iterator[None]:
    """One line and exit status 2 if standard output cannot be written, as on a full disk."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # its reader has enough
        raise
    except OSError as error:
        sys.stdout = io.StringIO()  # what waits in the other one would fail again at the end
        note(f"error: standard output: cannot be written: {error.strerror}")
        raise typer.Exit(BAD_INPUT) from error


@contextlib.contextmanager
def bad_input(*kinds: type[Exception]) -> Iterator[None]:
    """One line and exit status 2 for these errors; any other is an internal one, with its traceback and status 1."""
    try:
        yield
    except kinds as error:
        if not may_say_error():
            raise typer.Exit(BAD_INPUT) from error
        if isinstance(error, NoImageError):
            note_skipped(error.problems)
        note(f"error: {_problem(error)}")
        raise typer.Exit(BAD_INPUT) from error


def _problem(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: cannot be written: {error.strerror}"
    return str(error) if isinstance(error, InputError) else for_shell(str(error))


def note_skipped(problems: Iterable[str]) -> None:
    """Say of each image that was passed over what is wrong with it."""
    for problem in problems:
        note(f"skipped: {problem}", style="yellow")


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """What the library warns of is for people too: one line, once, without the place in the source."""
    shown: set[str] = set()
    original = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, UserWarning):
            original(message, category, *place, **more)
        elif str(message) not in shown:
            shown.add(str(message))
            note(f"warning: {for_shell(str(message))}", style="yellow")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
