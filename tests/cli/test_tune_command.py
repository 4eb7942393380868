"""``rankseg-plugins tune`` finds what ``tune()`` finds, writes a file that ``compare`` reads, and survives faults."""

import json
import os
import pty
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from image_folders import environment, make_image
from torchmetrics.segmentation import DiceScore
from typer.testing import CliRunner

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.cli import app
from rankseg_plugins.comparison import Sample, compare
from rankseg_plugins.tuning import tune
from rankseg_plugins.tuning.candidates import GlobalCandidates
from rankseg_plugins.tuning.presence import PresenceCandidates

RACE = {"temperatures": [0.5, 1.0], "pruning_probs": [0.5, 0.1]}
OPTIONS = ("--temperatures", "0.5,1", "--pruning-probs", "0.5, 0.1", "--resamples", "200")
#: Those of one aggregation level; the other takes no pruning_probs.
OPTIONS_OF = {"samplewise": OPTIONS, "global": (*OPTIONS[:2], *OPTIONS[4:])}
IMAGES = 24


def make_images():
    """A rare foreground whose probabilities were softened by the temperature 2: tuning can gain."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(IMAGES, 1, 5, 5, generator=generator) * 2 - 1.5
    logits = torch.nn.functional.interpolate(coarse, 24, mode="bilinear")[:, 0]
    labels = (torch.rand(logits.shape, generator=generator) < logits.sigmoid()).long()
    foreground = (logits / 2).sigmoid()
    return torch.stack([1 - foreground, foreground], 1), labels


@pytest.fixture
def softened(tmp_path):
    """A folder of files; every name is that of the sample."""
    for part, images in zip(("probs", "labels"), make_images(), strict=True):
        (tmp_path / part).mkdir()
        for index, image in enumerate(images):
            np.save(tmp_path / f"{part}/image{index:02d}.npy", image.numpy())
    return tmp_path


def samples():
    return [Sample(f"image{i:02d}", *both) for i, both in enumerate(zip(*make_images(), strict=True))]


def run(folder, *extra, command="tune", out="tuned"):
    paths = ["--probs", folder / "probs", "--labels", folder / "labels", "--out", folder / out]
    return CliRunner().invoke(app, [command, *map(str, paths), *map(str, extra)], env=environment())


def without_times(found):
    """Figures but for what differs from run to run."""
    for part in ("validated", "candidates"):
        del found[part]["facts"]
        for decoder in found[part]["decoders"].values():
            del decoder["milliseconds"]
    return found


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
def test_finds_what_the_python_api_finds(softened):
    done = run(softened, *OPTIONS, "--json")
    assert done.exit_code == 0, done.stderr
    printed, expected = json.loads(done.stdout), tune(samples(), **RACE, ignore_index=255, resamples=200)
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
    command = [sys.executable, "-m", "rankseg_plugins", "tune", *OPTIONS]
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
        assert page.index("These gains are flattered") < page.index("test_cfg") < page.index("sign test p")
    found = {"probs": make_images()[0], "metric": DiceScore(num_classes=2, input_format="index")}
    for code in snippets(softened / "tuned"):
        exec(code, found)
    assert torch.equal(found["labels"], decoder(found["probs"]))
    assert found["metric"].decoder.to_dict() == decoder.to_dict()
    assert found["callback"].decoder.to_dict() == decoder.to_dict()
    assert found["model"]["test_cfg"]["rankseg"]["tuned"] == str(softened / "tuned/decoder.json")


def test_compare_says_that_a_file_was_tuned_for_other_classes(softened):
    """Only where that is so."""
    tuned = run(softened, *OPTIONS, "--present", "label", "--exclude", "0")
    assert tuned.exit_code == 0, tuned.stderr
    assert not TunedDecoder.load(softened / "tuned/decoder.json").is_argmax
    file = str(softened / "tuned/decoder.json")
    for options, count in ((("--exclude", "0"), 1), (("--exclude", "0", "--present", "label"), 0)):
        done = run(softened, "--decoder", "argmax", "--decoder", file, *options, command="compare", out="compared")
        assert done.exit_code == 0, done.stderr
        sentence = f"warning: {file} was tuned with present=label, and is scored with present=union: "
        assert done.stderr.count(sentence) == count
        assert done.stderr.count("was tuned with") == count


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


def test_an_empty_folder(softened):
    (softened / "none").mkdir()
    for command in ("tune", "compare"):
        done = run(softened, "--probs", softened / "none", command=command)
        assert done.exit_code == 2
        assert f"error: {softened / 'none'}: holds no .npz, .npy or .pt file" in done.stderr


def test_warnings_of_the_fitting_pass_are_notes(softened, monkeypatch):
    def update(self, probs):
        warnings.warn("something about the images", UserWarning, stacklevel=2)
        return original(self, probs)

    original = GlobalCandidates.update
    monkeypatch.setattr(GlobalCandidates, "update", update)
    done = run(softened, *OPTIONS_OF["global"], "--aggregation-levels", "global")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("something about the images") == 1
    assert "warning: something about the images" in done.stderr


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.parametrize(("given", "rules"), [("score, 0.3", ["score", 0.3]), ("none", []), (None, None)])
def test_rules_of_presence(softened, given, rules):
    options = [] if given is None else ["--presence", given]
    done = run(softened, *OPTIONS, "--json", *options)
    assert done.exit_code == 0, done.stderr
    expected = tune(samples(), presence=rules, **RACE, ignore_index=255, resamples=200)
    found = json.loads(done.stdout)
    assert list(found["candidates"]["decoders"]) == list(expected.comparison.decoders)
    assert found["decoder"] == expected.decoder.to_dict()
    for name in expected.comparison.decoders:
        level = found["candidates"]["decoders"][name]["levels"]["dice_image"]
        assert level == pytest.approx(expected.comparison.level(name, "dice", "image"))


def test_presence_of_another_fit_is_not_gone_on_with(softened, monkeypatch):
    assert run(softened, *OPTIONS).exit_code == 0
    again = run(softened, *OPTIONS)
    assert again.exit_code == 0, again.stderr
    monkeypatch.setattr(PresenceCandidates, "update", lambda *given: pytest.fail("a pass over the files was begun"))
    for option, name in (
        (("--seed", 3), "seed"),
        (("--folds", 4), "folds"),
        (("--absent", "one"), "absent"),
        (("--objective", "dice_class"), "level"),
        (("--group-by", r"\d"), "group_by"),
    ):
        other = run(softened, *OPTIONS, *option)
        assert other.exit_code == 2
        assert f"belongs to a run with other {name}" in other.stderr


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
def test_both_aggregation_levels(softened):
    levels = ["samplewise", "global"]
    done = run(softened, *OPTIONS, "--json", "--objective", "iou_dataset", "--aggregation-levels", ",".join(levels))
    assert done.exit_code == 0, done.stderr
    expected = tune(samples(), "iou_dataset", aggregation_levels=levels, **RACE, ignore_index=255, resamples=200)
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
        plain = tune(samples(), aggregation_levels=[level], **settings, ignore_index=255, resamples=200)
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
    assert "keep argmax: too few cases (24 of 25)" in done.stdout
    assert TunedDecoder.load(softened / "tuned/decoder.json").is_argmax
    assert "Here it holds plain argmax" in (softened / "tuned/report.html").read_text()


def test_goes_on_where_it_stopped(softened, monkeypatch):
    """And refuses what cannot go on, before any file is fitted to."""
    both = ("--aggregation-levels", "samplewise,global")
    assert run(softened, *OPTIONS, *both).exit_code == 0
    results = softened / "tuned/results.jsonl"
    whole, decoder = results.read_bytes(), (softened / "tuned/decoder.json").read_bytes()
    kept = b"".join(whole.splitlines(keepends=True)[:9])
    results.write_bytes(kept + b'{"image": "im')
    assert run(softened, *OPTIONS, *both).exit_code == 0
    assert results.read_bytes().startswith(kept)
    assert len(results.read_bytes().splitlines()) == 1 + IMAGES
    assert (softened / "tuned/decoder.json").read_bytes() == decoder
    other = run(softened, "--resamples", 200, *both)
    assert other.exit_code == 2
    assert "belongs to a run with other decoders" in other.stderr
    with monkeypatch.context() as unfitted:
        unfitted.setattr(GlobalCandidates, "update", lambda *given: pytest.fail("a pass over the files was begun"))
        for extra, message in (
            (["--folds", "5", "--exclude", "7"], "excluded classes must lie in 0 to 1, got 7"),
            (["--min-cases", "3", "--solvers", "magic"], "each of solvers must be one of"),
            (["--temperatures", "0.9"], "belongs to a run with other decoders"),
        ):
            done = run(softened, *OPTIONS, *both, *extra)
            assert done.exit_code == 2
            assert message in done.stderr
    np.save(softened / "probs/image03.npy", make_images()[0][5].numpy())
    changed = run(softened, *OPTIONS, *both)
    assert changed.exit_code == 2
    assert "probs/image03.npy: has changed since 'image03' was measured" in changed.stderr


@pytest.mark.parametrize("level", ["samplewise", "global"])
def test_one_bad_image(softened, level):
    path = softened / "probs/image07.npy"
    np.save(path, np.full((2, 24, 24), 3.0))
    stopped = run(softened, *OPTIONS_OF[level], "--aggregation-levels", level)
    assert stopped.exit_code == 2
    assert f"error: {path}: probs must lie in [0, 1]" in stopped.stderr
    assert not (softened / "tuned/decoder.json").exists()
    done = run(softened, *OPTIONS_OF[level], "--aggregation-levels", level, "--keep-going")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count(f"skipped: {path}: ") == 1
    assert TunedDecoder.load(softened / "tuned/decoder.json").evidence["images"] == IMAGES - 1
    assert path.name in (softened / "tuned/report.html").read_text()


def test_what_is_skipped_does_not_shape_the_rule(softened):
    """The labels of an image are out of range; its probabilities would change the rule."""
    race = (*OPTIONS, "--aggregation-levels", "samplewise,global", "--keep-going")
    np.save(softened / "probs/image07.npy", np.stack([np.full((24, 24), 0.1), np.full((24, 24), 0.9)]))
    np.save(softened / "labels/image07.npy", np.full((24, 24), 9))
    done = run(softened, *race)
    assert done.exit_code == 0, done.stderr
    assert "skipped: " in done.stderr
    for part in ("probs", "labels"):
        (softened / part / "image07.npy").unlink()
    assert run(softened, *race, out="without").exit_code == 0
    heads = [json.loads((softened / out / "results.jsonl").read_text().splitlines()[0]) for out in ("tuned", "without")]
    assert heads[0]["tuned decoders"] == heads[1]["tuned decoders"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "dice"], "--objective must be one of 'dice_dataset'"),
        (["--temperatures", "0.7,hot"], "--temperatures must be numbers separated by commas, got '0.7,hot'"),
        (["--temperatures", "0"], "each of temperatures must be in [0.001, 1000], got 0.0"),
        (["--pruning-probs", "2"], "each of pruning_probs must be in [0, 1]"),
        (["--pruning-probs", ","], "--pruning-probs must be numbers separated by commas, got ','"),
        (["--solvers", "RMA,"], "--solvers must be words separated by commas, none of them empty, got 'RMA,'"),
        (["--temperatures", "1,,1"], "--temperatures must be numbers separated by commas"),
        (["--temperatures", "1,1"], "two candidates are called 'rankseg(metric=dice,pruning_prob=0.5)'"),
        (["--aggregation-levels", "global", "--pruning-probs", "0.05"], "pruning_probs is an option of 'samplewise'"),
        (["--aggregation-levels", "global", "--solvers", "exact"], "solvers is an option of 'samplewise'"),
        (["--aggregation-levels", "global,global"], "aggregation_levels must differ"),
        (["--output-mode", ""], "output_mode must be one of"),
        (["--metrics", "acc"], "each of metrics must be one of 'dice', 'iou', got 'acc'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["--metrics", "f1"], "each of metrics must be one of"),
        (["--solvers", "magic"], "each of solvers must be one of"),
        (["--aggregation-levels", "local"], "each of aggregation_levels must be one of 'samplewise', 'global'"),
        (["--output-mode", "both"], "output_mode must be one of"),
        (["--presence", "best"], "--presence must be 'none', or words and numbers between commas: each of presence"),
        (["--presence", "1.5"], "must be in [0, 1], got 1.5"),
        (["--presence", "0.2", "--aggregation-levels", "global"], "presence is an option of 'samplewise' candidates"),
        (["--folds", "1"], "Invalid value for '--folds'"),
        (["--present", "maybe"], "present must be one of"),
        (["--probs", "nowhere"], "nowhere: no such file"),
    ],
)
def test_bad_options(softened, options, message):
    done = run(softened, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_too_few_images_for_a_global_rule(softened):
    for index in range(4, IMAGES):
        (softened / f"probs/image{index:02d}.npy").unlink()
    done = run(softened, "--aggregation-levels", "global")
    assert done.exit_code == 2
    assert (
        "error: aggregation_levels 'global' needs at least 5 images to fit its rule to, got 4: add images"
        in done.stderr
    )


def test_compare_reads_the_file(softened):
    tuned, path = TunedDecoder(RankSEG(pruning_prob=0.1), 2, 0.5), softened / "decoder.json"
    tuned.save(path)
    done = run(softened, "--decoder", "argmax", "--decoder", path, "--json", command="compare", out="report")
    assert done.exit_code == 0, done.stderr
    with pytest.warns(UserWarning, match="too unsure"):
        expected = compare(samples(), {"argmax": RankSEG("acc"), "tuned": tuned}, ignore_index=255).paired("tuned")
    found = json.loads(done.stdout)["decoders"][str(path)]["paired"]
    assert found["mean"] == pytest.approx(expected.mean, abs=1e-12)
    assert (found["wins"], found["losses"]) == (expected.wins, expected.losses)
    TunedDecoder(RankSEG(pruning_prob=0.1), 2, 0.7).save(path)
    changed = run(softened, "--decoder", "argmax", "--decoder", path, command="compare", out="report")
    assert changed.exit_code == 2
    assert "belongs to a run with other tuned decoders" in changed.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "decoder.json' cannot be read: No such file or directory"),
        ("{}", "decoder.json: no decoder of rankseg_plugins"),
        ("[", "decoder.json: not JSON: Expecting value"),
        ("", "decoder.json: not JSON: Expecting value"),
        ("[" * 100_000, "decoder.json: not JSON: it is nested too deeply"),
        ('{"version": 2, "version": 1}', "decoder.json: not JSON: the key 'version' occurs twice in one object"),
        (TunedDecoder(RankSEG(), 5), "decoder.json' was tuned for 5 classes, got probabilities of 2"),
    ],
)
def test_compare_refuses_other_files(softened, content, message):
    path = softened / "decoder.json"
    if isinstance(content, TunedDecoder):
        content.save(path)
    elif content is not None:
        path.write_text(content)
    done = run(softened, "--decoder", "argmax", "--decoder", path, command="compare")
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_softmax_twice_is_one_line(tmp_path):
    """And only one, though these probabilities are too unsure as well."""
    for part in ("probs", "labels"):
        (tmp_path / part).mkdir()
    for index in range(8):
        probs, labels = make_image(index)
        np.save(tmp_path / f"probs/{index}.npy", torch.from_numpy(probs).softmax(0).numpy())
        np.save(tmp_path / f"labels/{index}.npy", labels)
    for command in ("compare", "tune"):
        done = run(tmp_path, command=command, out=command)
        assert done.exit_code == 0, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
        assert "softmax was applied twice" in line


WITH_A_BAR = """
import torch
from rankseg_plugins.tuning import tune
generator = torch.Generator().manual_seed(0)
probs = (3 * torch.randn(24, 2, 50, generator=generator)).softmax(1)
samples = [(str(i), each, each.argmax(0)) for i, each in enumerate(probs)]
tune(samples, temperatures=[1.0], aggregation_levels=["samplewise", "global"], progress=True)
"""


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
