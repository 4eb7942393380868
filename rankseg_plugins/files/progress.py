"""A bar on standard error while images stream by. Needs the extra ``report``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rankseg_plugins._imports import require


@contextlib.contextmanager
def progress_bar(title: str, total: int | None = None, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Show a bar if standard error is a terminal, and nothing otherwise; it disappears at the end.

    Args:
        title: what is being done, such as ``"comparing"``.
        total: number of images; None if it is not known.
        shown: False never shows it.

    Yields:
        To be called after each image, with any arguments.

    Raises:
        ImportError: if it is to be shown and rich is not installed.

    Example:
        >>> with progress_bar("counting", total=3, shown=False) as step:
        ...     for image in range(3):
        ...         step(image)
    """
    if not shown:
        yield lambda *ignored: None
        return
    console = require("rich.console", extra="report").Console(stderr=True)
    bars = require("rich.progress", extra="report")
    columns = (bars.TextColumn(title), bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def step(*ignored: Any) -> None:
            progress.advance(task)

        yield step
