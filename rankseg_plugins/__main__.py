"""``python -m rankseg_plugins`` is ``rankseg-plugins``."""

from rankseg_plugins.cli import app

if __name__ == "__main__":
    app(prog_name="rankseg-plugins")
