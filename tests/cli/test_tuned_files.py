"""``rankseg-plugins compare`` with the file of a tuned decoder."""

import json

import pytest
from softened_images import OPTIONS, run, samples

from rankseg_plugins import RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.comparison import compare

pytestmark = pytest.mark.usefixtures("unpainted")


def test_compare_says_that_a_file_was_tuned_for_other_classes(softened):
    """Only where that is so."""
    tuned = run(softened, *OPTIONS, "--present", "label", "--exclude", "0")
    assert tuned.exit_code == 0, tuned.stderr
    assert not TunedDecoder.load(softened / "tuned/decoder.json").is_argmax
    file = str(softened / "tuned/decoder.json")
    for options, count in ((("--exclude", "0"), 1), (("--exclude", "0", "--present", "label"), 0)):
        done = run(softened, "--decoder", "argmax", "--decoder", file, *options, command="compare", out="compared")
        assert done.exit_code == 0, done.stderr
        sentence = f"warning: {file} was tuned with --present label, and is scored with --present union: "
        assert done.stderr.count(sentence) == count
        assert done.stderr.count("was tuned with") == count


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
