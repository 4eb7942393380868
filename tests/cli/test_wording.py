"""What the command says names what a shell can give, wherever the message comes from."""

import re

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from rankseg_plugins.cli import app
from rankseg_plugins.files.wording import OPTIONS, PHRASES, for_shell

pytestmark = pytest.mark.usefixtures("unpainted")

#: What only Python takes: an argument with its value, a call, a method.
PYTHON = re.compile(r"\b(?!rankseg\(|presence\()\w+\(\)|\bunsqueeze\b|\b[a-z]+(_[a-z]+)+\b|\b[a-z]+='|\btarget\b")


def softmax(values):
    shares = np.exp(values - values.max(0))
    return shares / shares.sum(0)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


#: What makes probabilities of logits, how many channels there are, and how truth is made of logits.
IMAGES = {
    "softmax": (softmax, 3, lambda logits: logits.argmax(0)),
    "softmax twice": (lambda logits: softmax(softmax(logits)), 3, lambda logits: logits.argmax(0)),
    "unsure": (lambda logits: softmax(logits / 3), 3, lambda logits: logits.argmax(0)),
    "logits": (lambda logits: logits, 3, lambda logits: logits.argmax(0)),
    "regions": (sigmoid, 3, lambda logits: logits.argmax(0)),
    "one channel": (sigmoid, 1, lambda logits: (logits[0] > 0).astype(int)),
    "logits of one channel": (lambda logits: logits, 1, lambda logits: (logits[0] > 0).astype(int)),
    "one channel, white": (sigmoid, 1, lambda logits: 255 * (logits[0] > 0)),
    "one channel, four classes": (sigmoid, 1, lambda logits: np.digitize(logits[0], (-1, 0, 1))),
    "no label known": (softmax, 3, lambda logits: np.full(logits.shape[1:], 255)),
}
SAID = [
    ("compare", "softmax twice", [], "apply it once, in the network or by --activation softmax."),
    ("compare", "unsure", [], "rankseg-plugins tune takes --temperatures 0.25,0.5,1"),
    ("compare", "logits", [], "--activation softmax, or --activation sigmoid, makes probabilities of logits"),
    ("compare", "logits", ["--activation", "normalize"], "--activation normalize needs non-negative scores"),
    (
        "compare",
        "regions",
        [],
        "for shape (3, 16, 16). Likely causes: sigmoid channels or overlapping regions (as truth",
    ),
    ("compare", "regions", ["--one-vs-rest", "1"], "or scores (--activation normalize divides them by their sum)"),
    (
        "compare",
        "logits of one channel",
        ["--activation", "softmax"],
        "use --activation sigmoid for one-channel logits",
    ),
    ("compare", "one channel, white", [], "masks drawn 0/255 take --map-labels 255:1"),
    (
        "compare",
        "one channel, white",
        ["--ignore-index", "-1"],
        "(--ignore-index -1; masks drawn 0/255? --map-labels 2",
    ),
    ("compare", "one channel, four classes", [], "holds the labels 2, 3, allowed are 0 to 1 (--ignore-index 255)"),
    (
        "compare",
        "softmax",
        ["--exclude", "0", "--exclude", "1", "--exclude", "2"],
        "--exclude leaves no class to score",
    ),
    ("compare", "softmax", ["--class-names", "a,b"], "--class-names: must be 3 different names"),
    ("compare", "softmax", ["--panels", "-1"], "--panels must be an integer of at least 0, got -1"),
    ("compare", "softmax", ["--boundary", "2mm"], "need the size of a pixel: --spacing gives it"),
    ("compare", "softmax", ["--lesions", "--lesion-overlap", "3"], "--lesion-overlap must be in [0, 1]"),
    ("tune", "one channel", ["--output-mode", "multiclass"], "itself: use --output-mode multilabel for a foreground"),
    (
        "tune",
        "softmax",
        ["--solvers", "BA"],
        "--solvers BA does not serve --metrics dice with --output-mode multiclass",
    ),
    ("tune", "softmax", ["--temperatures", "0"], "--temperatures must be in [0.001, 1000], got 0.0"),
    ("tune", "no label known", [], "leave it out by --presence none"),
    ("decode", "logits", ["--decoder", "argmax"], "--activation softmax, or --activation sigmoid, makes"),
    ("decode", "regions", ["--decoder", "argmax"], "and decode needs rankseg(output_mode=multilabel)"),
]


@pytest.mark.parametrize(("command", "images", "options", "said"), SAID)
def test_messages_name_options(command, images, options, said, tmp_path):
    to_probs, channels, to_labels = IMAGES[images]
    for name in ("probs", "labels"):
        (tmp_path / name).mkdir()
    for index in range(6):
        logits = 3 * np.random.default_rng(index).standard_normal((channels, 16, 16))
        np.save(tmp_path / f"probs/{index}.npy", to_probs(logits).astype(np.float32))
        np.save(tmp_path / f"labels/{index}.npy", to_labels(logits))
    paths = ["--probs", str(tmp_path / "probs"), "--out", str(tmp_path / "out")]
    if command != "decode":
        paths += ["--labels", str(tmp_path / "labels")]
    done = CliRunner().invoke(app, [command, *paths, *options])
    assert done.exit_code == (0 if "warning: " in done.stderr and "error: " not in done.stderr else 2)
    assert said in done.stderr
    spoken = done.stderr.replace(str(tmp_path), "").replace("rankseg(output_mode=multilabel)", "")
    assert not PYTHON.search(spoken), PYTHON.search(spoken)


def test_options_exist():
    commands = typer.main.get_command(app).commands.values()
    known = {option for command in commands for each in command.params for option in each.opts}
    named = {*OPTIONS.values(), *re.findall(r"--[a-z-]+[a-z]", " ".join(PHRASES.values()))}
    assert named <= known, named - known


@pytest.mark.parametrize(
    "message",
    [
        "two candidates are called 'rankseg(metric=dice,pruning_prob=0.5)'",
        "such as global(metric=dice) at temperature 0.7",
        "the score and the decoder keep what is present",
    ],
)
def test_other_words_stay(message):
    assert for_shell(message) == message


def test_once_is_enough():
    """An error about a file may hold another one, which was said for the shell before."""
    for _, _, _, said in SAID:
        assert for_shell(said) == said
