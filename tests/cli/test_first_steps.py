"""What somebody meets who tries the commands for the first time."""

import json

import pytest
from image_folders import DECODERS, environment
from typer.testing import CliRunner

from rankseg_plugins.cli import app

pytestmark = pytest.mark.usefixtures("unpainted")


def test_help_shows_what_an_option_is_in_one_form():
    """Typer puts what is not the value itself between brackets."""
    for name in ("compare", "tune", "decode"):
        shown = CliRunner().invoke(app, [name, "--help"], env=environment())
        assert (shown.exit_code, "[default: (" in shown.output) == (0, False)


def test_one_decoder_is_compared_with_argmax(folders):
    paths = ["--probs", str(folders / "probs"), "--labels", str(folders / "labels"), "--out", str(folders / "out")]
    done = CliRunner().invoke(app, ["compare", *paths, "--json", "--decoder", DECODERS[1]], env=environment())
    assert done.exit_code == 0, done.stderr
    assert list(json.loads(done.stdout)["decoders"]) == ["argmax", DECODERS[1]]
