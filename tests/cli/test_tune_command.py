"""``rankseg-plugins tune`` finds what ``tune()`` finds, and writes it."""

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from image_folders import UNPAINTED, environment
from softened_images import OPTIONS, OPTIONS_OF, RACE, make_images, run, samples

from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.tuning import tune

pytestmark = pytest.mark.usefixtures("unpainted")


def without_times(found):
    """Figures but for what differs from run to run."""
    for part in ("validated", "candidates"):
        del found[part]["facts"]
        for decoder in found[part]["decoders"].values():
            del decoder["milliseconds"]
    return found


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.painted
def test_finds_what_the_python_api_finds(softened):
    done = run(softened, *OPTIONS, "--json")
    assert done.exit_code == 0, done.stderr
    printed, expected = json.loads(done.stdout), tune(samples(), **RACE, ignore_index=255)
    assert not expected.decoder.is_argmax
    assert json.loads((softened / "tuned/decoder.json").read_text()) == expected.decoder.to_dict()
    assert json.loads((softened / "tuned/report.json").read_text()) == printed
    assert (printed["verdict"], printed["decoder"]) == (expected.verdict, expected.decoder.to_dict())
    assert list(printed["candidates"]["decoders"]) == list(expected.comparison.decoders)
    gain = printed["validated"]["decoders"]["chosen"]["paired"]["mean"]
    assert 100 * gain == pytest.approx(expected.decoder.evidence["gain"])
    expected.report(softened / "api")
    by_api = json.loads((softened / "api/report.json").read_text())
    assert without_times(by_api) == without_times(printed)
    assert [line for line in done.stderr.splitlines() if "too unsure" in line] == [
        line for line in done.stderr.splitlines() if line.startswith("warning: ")
    ]
    assert done.stderr.count("too unsure") == 1
    assert ".py:" not in done.stderr


def test_table_and_page(softened, monkeypatch):
    """Of a process of its own; nothing is broken into lines for a pipe."""
    monkeypatch.setitem(os.environ, "COLUMNS", "60")
    command = [sys.executable, "-c", UNPAINTED, "tune", *OPTIONS]
    paths = [str(part) for name in ("probs", "labels") for part in (f"--{name}", softened / name)]
    done = subprocess.run([*command, *paths, "--out", str(softened / "tuned")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    decoder = TunedDecoder.load(softened / "tuned/decoder.json")
    first, *table = done.stdout.splitlines()
    assert first == decoder.evidence["verdict"]
    assert sum(line.startswith("rankseg(") for line in table) == 4
    assert max(map(len, done.stdout.splitlines())) < 400
    figures = [re.findall(r"[+-]?\d+\.\d\d", line) for line in table if line.startswith("rankseg(")]
    gains = [float(gain) for _, gain, _, _ in figures]
    assert gains == sorted(gains, reverse=True)
    assert len(gains) == 4
    for name in ("report.html", "report.md"):
        page = (softened / "tuned" / name).read_text()
        assert page.index("on images not used to choose") < page.index("These gains are flattered")
        assert "image Dice (union), %" in page.replace("<wbr>", "")
        assert "dice_image" not in page
        assert page.index("These gains are flattered") < page.index("test_cfg") < page.index("sign test p")
    DiceScore = pytest.importorskip("torchmetrics.segmentation").DiceScore
    found = {"probs": make_images()[0], "metric": DiceScore(num_classes=2, input_format="index")}
    for code in snippets(softened / "tuned"):
        exec(code, found)
    assert torch.equal(found["labels"], decoder(found["probs"]))
    assert found["metric"].decoder.to_dict() == decoder.to_dict()
    assert found["callback"].decoder.to_dict() == decoder.to_dict()
    assert found["model"]["test_cfg"]["rankseg"]["tuned"] == str(softened / "tuned/decoder.json")


def snippets(folder):
    return [part.split("\n```")[0] for part in (folder / "report.md").read_text().split("```python\n")[1:]]


@pytest.mark.parametrize(
    ("activation", "label", "call"),
    [
        ("identity", 1, "decoder(probs[:, 1:2])"),
        ("sigmoid", 1, "decoder.predict_logits(logits[:, 1:2], 'sigmoid')"),
        ("softmax", 1, "decoder(to_probabilities(logits, 'softmax')[:, 1:2])"),
        ("softmax", None, "decoder.predict_logits(logits, 'softmax')"),
    ],
)
def test_page_repeats_what_was_done_to_the_probabilities(softened, activation, label, call):
    """The code of the page on what the files hold, against the decoder on what they were made into."""
    probs = make_images()[0]
    values = {"sigmoid": torch.logit, "softmax": torch.log}.get(activation, torch.clone)(probs)
    for index, image in enumerate(values):
        np.save(softened / f"probs/image{index:02d}.npy", image.numpy())
    one = () if label is None else ("--one-vs-rest", label)
    done = run(softened, *OPTIONS, *one, "--activation", activation)
    assert done.exit_code == 0, done.stderr
    decoder = TunedDecoder.load(softened / "tuned/decoder.json")
    assert decoder.evidence.get("one_vs_rest") == label
    assert decoder.evidence.get("activation", "identity") == activation
    (code,) = snippets(softened / "tuned")
    assert code.endswith(f"labels = {call}")
    found = {"probs": values, "logits": values}
    exec(code, found)
    assert torch.equal(found["labels"], decoder(probs if label is None else probs[:, label : label + 1]))


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.parametrize(("given", "rules"), [("score, 0.3", ["score", 0.3]), ("none", []), (None, None)])
def test_rules_of_presence(softened, given, rules):
    options = [] if given is None else ["--presence", given]
    done = run(softened, *OPTIONS, "--json", *options)
    assert done.exit_code == 0, done.stderr
    expected = tune(samples(), presence=rules, **RACE, ignore_index=255)
    found = json.loads(done.stdout)
    assert list(found["candidates"]["decoders"]) == list(expected.comparison.decoders)
    assert found["decoder"] == expected.decoder.to_dict()
    for name in expected.comparison.decoders:
        level = found["candidates"]["decoders"][name]["levels"]["dice_image"]
        assert level == pytest.approx(expected.comparison.level(name, "dice", "image"))


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
def test_both_aggregation_levels(softened):
    levels = ["samplewise", "global"]
    done = run(softened, *OPTIONS, "--json", "--objective", "iou_dataset", "--aggregation-levels", ",".join(levels))
    assert done.exit_code == 0, done.stderr
    expected = tune(samples(), "iou_dataset", aggregation_levels=levels, **RACE, ignore_index=255)
    found = json.loads(done.stdout)
    assert list(found["candidates"]["decoders"]) == list(expected.comparison.decoders)
    assert "global(metric=iou) at temperature 0.5" in expected.comparison.decoders
    assert found["decoder"] == expected.decoder.to_dict()
    for name in expected.comparison.decoders:
        level = found["candidates"]["decoders"][name]["levels"]["iou_dataset"]
        assert level == pytest.approx(expected.comparison.level(name, "iou", "dataset"))


@pytest.mark.parametrize("level", ["samplewise", "global"])
def test_reading_options(softened, level):
    """Logits give the same as probabilities; of one class against the rest there is one channel, and masks."""
    (softened / "logits").mkdir()
    for path in sorted((softened / "probs").iterdir()):
        np.save(softened / "logits" / path.name, np.log(np.load(path)) + 3)
    race = (*OPTIONS_OF[level], "--aggregation-levels", level, "--json")
    settings = RACE if level == "samplewise" else {"temperatures": RACE["temperatures"]}
    with pytest.warns(UserWarning, match="the probabilities are too unsure"):
        plain = tune(samples(), aggregation_levels=[level], **settings, ignore_index=255)
    logits = run(softened, *race, "--probs", softened / "logits", "--activation", "softmax", out="logits_tuned")
    assert logits.exit_code == 0, logits.stderr
    gain = json.loads(logits.stdout)["decoder"]["evidence"]["gain"]
    assert gain == pytest.approx(plain.decoder.evidence["gain"], abs=0.05)
    single = run(softened, *race, "--one-vs-rest", 1, "--group-by", "image.", out="single")
    assert single.exit_code == 0, single.stderr
    found = json.loads(single.stdout)
    assert (found["decoder"]["num_classes"], found["decoder"]["options"]["output_mode"]) == (1, "multilabel")
    assert found["validated"]["cases"] == 3
    assert found["decoder"]["options"]["metric"] == "acc"  # three cases are not enough


def test_keeps_argmax_with_few_cases(softened):
    done = run(softened, *OPTIONS, "--min-cases", 25)
    assert done.exit_code == 0
    assert "keep argmax: too few cases (24 below min_cases=25)" in done.stdout
    assert TunedDecoder.load(softened / "tuned/decoder.json").is_argmax
    assert "Here it holds plain argmax" in (softened / "tuned/report.html").read_text()


WITH_A_BAR = """
import torch
from rankseg_plugins.tuning import tune
generator = torch.Generator().manual_seed(0)
probs = (3 * torch.randn(24, 2, 50, generator=generator)).softmax(1)
samples = [(str(i), each, each.argmax(0)) for i, each in enumerate(probs)]
tune(samples, temperatures=[1.0], aggregation_levels=["samplewise", "global"], progress=True)
"""


@pytest.mark.filterwarnings("ignore:1 of 1 rules for the whole data set pursue no class")
def test_progress_on_a_terminal_only(capfd):
    with pytest.warns(UserWarning, match="the probabilities are too unsure"):
        exec(WITH_A_BAR, {})
    assert capfd.readouterr() == ("", "")
    command = [sys.executable, "-W", "ignore", "-c", WITH_A_BAR]
    ours, theirs = pty.openpty()
    done = subprocess.Popen(command, stderr=theirs, env={**environment(), "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert done.wait() == 0
    assert b"fitting" in shown
    assert b"tuning" in shown
    assert b"24/24" in shown
