"""The command ``rankseg-plugins``, also ``python -m rankseg_plugins``."""

import sys
from importlib.util import find_spec

from rankseg_plugins._imports import require

#: Said at once, not when hours of work are to be written down.
NEEDED = ("typer", "rich", "jinja2", "matplotlib", "scipy", "PIL", "nibabel")


def main() -> None:
    """Run the command line, or say which extra brings what it needs."""
    try:
        for module in NEEDED:
            if find_spec(module) is None:
                require(module, extra="report")
    except ImportError as error:
        sys.exit(str(error))
    from rankseg_plugins.cli import app
    from rankseg_plugins.cli.processes import together

    with together():
        app(prog_name="rankseg-plugins")


if __name__ == "__main__":
    main()
