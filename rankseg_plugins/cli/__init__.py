"""The command ``rankseg-plugins``."""

from __future__ import annotations

from typing import Annotated

import typer

from rankseg_plugins._version import __version__
from rankseg_plugins.cli.compare import compare
from rankseg_plugins.cli.decode import decode
from rankseg_plugins.cli.tune import tune

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
app.command()(compare)
app.command()(tune)
app.command()(decode)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Dice- and IoU-optimal decoding of segmentation networks: does it help your model?"""
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())
