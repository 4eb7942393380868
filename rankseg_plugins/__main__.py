"""The command ``rankseg-plugins``, also ``python -m rankseg_plugins``."""

import sys

from rankseg_plugins._imports import require


def main() -> None:
    """Run the command line, or say which extra brings what it needs."""
    try:
        for module in ("typer", "rich"):
            require(module, extra="report")
    except ImportError as error:
        sys.exit(str(error))
    from rankseg_plugins.cli import app
    from rankseg_plugins.cli.processes import together

    with together():
        app(prog_name="rankseg-plugins")


if __name__ == "__main__":
    main()
