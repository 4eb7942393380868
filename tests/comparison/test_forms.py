"""What the form of the truth decides, and probabilities that do not fit it: refused by the commands, said in Python."""

import json
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rankseg_plugins import RankSEG
from rankseg_plugins.cli import app
from rankseg_plugins.comparison import Recorder, Sample, compare
from rankseg_plugins.comparison.sample import fitting_mode
from rankseg_plugins.tuning import tune

SAID = "must add up to 1"

# So they are, as drawn; that this is said is tested beside the other warnings.
pytestmark = [
    pytest.mark.filterwarnings("ignore:the probabilities are too unsure"),
    pytest.mark.usefixtures("unpainted"),
]


def regions(index, size=(24, 24)):
    """Sigmoid channels of three nested regions, and their masks."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(y - 12 + rng.normal(), x - 12 + rng.normal())
    masks = np.stack([distance < radius for radius in (9, 6, 3)])
    logits = 4 * masks - 2 + rng.normal(size=masks.shape)
    return (1 / (1 + np.exp(-logits))).astype(np.float32), masks.astype(np.uint8)


def labelled(index, size=(24, 24)):
    """Softmax probabilities of three classes, and labels."""
    rng = np.random.default_rng(index)
    labels = rng.integers(0, 3, (size[0] // 8, size[1] // 8)).repeat(8, 0).repeat(8, 1)
    logits = 2 * (labels == np.arange(3)[:, None, None]) + rng.normal(size=(3, *size))
    probs = np.exp(logits) / np.exp(logits).sum(0)
    return probs.astype(np.float32), labels.astype(np.uint8)


def samples(make, count=4):
    return [Sample(f"{index}", *map(torch.from_numpy, make(index))) for index in range(count)]


def dice(prediction, truth):
    return 2 * np.logical_and(prediction, truth).sum() / (prediction.sum() + truth.sum())


def mean_dice(images, threshold=0.5):
    """Image Dice of thresholded channels, by hand."""
    return np.mean(
        [[dice(p > threshold, t == 1) for p, t in zip(probs, masks, strict=True)] for probs, masks in images]
    )


@pytest.fixture
def folders(tmp_path):
    def write(make, count=4, name="images"):
        for kind in ("probs", "labels"):
            (tmp_path / name / kind).mkdir(parents=True)
        for index in range(count):
            probs, labels = make(index)
            np.save(tmp_path / name / "probs" / f"{index}.npy", probs)
            np.save(tmp_path / name / "labels" / f"{index}.npy", labels)
        return tmp_path / name

    return write


def run(command, folder, *extra):
    paths = ["--probs", f"{folder / 'probs'}", "--labels", f"{folder / 'labels'}", "--out", f"{folder / 'out'}"]
    return CliRunner().invoke(app, [command, *paths, *extra], env={"COLUMNS": "200"})


def levels(folder, decoder):
    return json.loads((folder / "out/report.json").read_text())["decoders"][decoder]["levels"]


def test_overlapping_masks_are_compared_with_the_threshold(folders):
    folder = folders(regions)
    done = run(
        "compare",
        folder,
    )
    assert done.exit_code == 0, done.output
    assert levels(folder, "argmax")["dice_image"] == pytest.approx(mean_dice(map(regions, range(4))), abs=1e-12)
    found = compare(samples(regions))
    assert found.level("argmax", "dice", "image") == levels(folder, "argmax")["dice_image"]
    second = found.decoders[1]
    masks = [RankSEG(output_mode="multilabel")(each.probs[None])[0].numpy() for each in samples(regions)]
    by_hand = [[dice(p, t == 1) for p, t in zip(mask, regions(i)[1], strict=True)] for i, mask in enumerate(masks)]
    assert found.level(second, "dice", "image") == pytest.approx(np.mean(by_hand), abs=1e-12)


def test_the_threshold_can_be_asked_for_by_name():
    named = compare(samples(regions), ["argmax(output_mode=multilabel)", "rankseg(output_mode=multilabel)"])
    plain = compare(samples(regions), ["argmax", "rankseg"])
    assert [named.level(each, "dice", "image") for each in named.decoders] == [
        plain.level(each, "dice", "image") for each in plain.decoders
    ]


def test_tuning_takes_the_mode_from_the_truth(folders):
    folder = folders(regions, count=6)
    options = ["--temperatures", "1", "--pruning-probs", "0.5", "--min-cases", "0"]
    done = run("tune", folder, *options)
    assert done.exit_code == 0, done.output
    assert json.loads((folder / "out/decoder.json").read_text())["options"]["output_mode"] == "multilabel"
    found = tune(samples(regions, 6), temperatures=[1.0], pruning_probs=[0.5], min_cases=0)
    assert found.decoder.output_mode == "multilabel"
    by_hand = mean_dice(map(regions, range(6)))
    assert found.comparison.level("argmax", "dice", "image") == pytest.approx(by_hand, abs=1e-12)


def test_forms_of_truth():
    probs, labels = map(torch.from_numpy, labelled(0))
    one_hot = torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 0)
    assert fitting_mode(Sample("labels", probs, labels)) == "multiclass"
    assert fitting_mode(Sample("labels of a volume", probs[:, None], labels[None])) == "multiclass"
    assert fitting_mode(Sample("labels in another form", probs, one_hot)) == "multiclass"
    assert fitting_mode(Sample("masks of sigmoid channels", probs / 2, one_hot)) == "multilabel"
    assert fitting_mode(Sample("overlapping masks", probs, one_hot | one_hot.roll(1, 0))) == "multilabel"
    assert fitting_mode(Sample("one channel", probs[:1], labels == 1)) == "multilabel"
    both = compare([("a", probs, one_hot)]), compare([("a", probs, labels)])
    assert both[0].level("argmax", "dice", "image") == both[1].level("argmax", "dice", "image")


def test_masks_that_overlap_are_not_scored_against_labels():
    recorder = Recorder(num_classes=3)
    with pytest.raises(ValueError, match=r"masks overlap.*output_mode='multilabel'"):
        recorder.add(samples(regions)[0])
    with pytest.raises(ValueError, match=r"one output_mode, got multilabel for rankseg.*multiclass for argmax"):
        compare(samples(regions), ["rankseg(output_mode=multilabel)", "argmax(output_mode=multiclass)"])


CAUSES = (SAID, "got sums from", "a mask for each channel", "channel dimension", "--activation normalize")
MISTAKES = {
    "a map without its channel": (lambda i: (regions(i)[0][0], regions(i)[1][0]), ("channel dimension", "(1, 24, 24)")),
    "such a map beside labels of one line": (lambda i: (regions(i)[0][0], regions(i)[1][0, 0]), CAUSES),
    "regions beside labels": (lambda i: (regions(i)[0], regions(i)[1].sum(0).clip(max=2).astype(np.uint8)), CAUSES),
    "scores of masks": (lambda i: (labelled(i)[0] / 3, labelled(i)[1]), CAUSES),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("command", ["compare", "tune"])
def test_commands_refuse_what_does_not_add_up(folders, command, name):
    folder = folders(MISTAKES[name][0])
    done = run(command, folder)
    assert done.exit_code == 2
    assert f"error: {folder / 'probs' / '0.npy'}: " in done.output
    for word in MISTAKES[name][1]:
        assert word in done.output
    assert not list(folder.glob("out/*.json"))


def test_masks_asked_for_beside_labels_are_refused_too(folders):
    folder = folders(MISTAKES["regions beside labels"][0])
    decoders = ["--decoder", "argmax(output_mode=multilabel)", "--decoder", "rankseg(output_mode=multilabel)"]
    assert run("compare", folder, *decoders).exit_code == 2
    with pytest.warns(UserWarning, match=f"0: .*{SAID}"):
        compare(samples(MISTAKES["regions beside labels"][0]), decoders[1::2])


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda probs: probs[None], r"a dimension too many, such as that of a batch: probs\[0\]"),
        (lambda probs: np.moveaxis(probs, 0, -1), "the classes seem to be the last dimension"),
    ],
)
def test_axes_in_the_wrong_place_are_named(folders, change, hint):
    made = [(change(probs), labels) for probs, labels in (labelled(0, (24, 32)), labelled(1, (24, 32)))]
    done = run("compare", folders(lambda index: made[index], count=2))
    assert done.exit_code == 2
    assert re.search(hint, done.stderr)
    with pytest.raises(ValueError, match=f"0: .*{hint}"):
        compare([Sample("0", *map(torch.from_numpy, made[0]))], ["argmax", "rankseg"])


def test_one_class_of_regions_beside_labels_is_said(folders):
    """Label 1 is not the region that holds the labels 1 and 2."""
    folder = folders(lambda index: (lambda probs, masks: (probs, masks.sum(0).clip(0, 2)))(*regions(index)))
    done = run("compare", folder, "--one-vs-rest", "1")
    assert done.exit_code == 0
    assert "warning: --one-vs-rest takes one of several channels, and multiclass probabilities must add" in done.stderr
    folder = folders(labelled, name="plain")
    assert "warning: --one-vs-rest" not in run("compare", folder, "--one-vs-rest", "1").stderr


def test_a_global_rule_is_not_fitted_to_what_does_not_add_up(folders):
    folder = folders(MISTAKES["scores of masks"][0], count=6)
    done = run("tune", folder, "--aggregation-levels", "global")
    assert done.exit_code == 2
    assert SAID in done.output


def test_one_such_image_can_be_passed_over(folders):
    folder = folders(lambda i: MISTAKES["scores of masks"][0](i) if i == 2 else labelled(i))
    done = run(
        "compare",
        folder,
        "--keep-going",
    )
    assert done.exit_code == 0, done.output
    assert list(json.loads((folder / "out/report.json").read_text())["skipped"]) == ["2"]


def test_activation_makes_probabilities_of_scores(folders):
    folder = folders(MISTAKES["scores of masks"][0])
    assert (
        run(
            "compare",
            folder,
            "--activation",
            "normalize",
        ).exit_code
        == 0
    )
    exact = compare(samples(labelled))
    assert levels(folder, "argmax")["dice_image"] == exact.level("argmax", "dice", "image")


def test_python_warns_of_scores_and_goes_on():
    with pytest.warns(UserWarning, match=SAID):
        found = compare(samples(MISTAKES["scores of masks"][0]))
    assert found.names == ("0", "1", "2", "3")


@pytest.mark.filterwarnings("ignore:1 of 1 rules for the whole data set pursue no class")
def test_probabilities_of_a_network_in_training():
    def grown(sample):
        return Sample(sample.name, sample.probs.clone().requires_grad_(), sample.labels)

    plain = compare(samples(labelled))
    found = compare(map(grown, samples(labelled)))
    assert found.level("argmax", "dice", "image") == plain.level("argmax", "dice", "image")
    tuned = tune(
        list(map(grown, samples(labelled, 6))),
        temperatures=[0.7],
        aggregation_levels=["samplewise", "global"],
        pruning_probs=[0.5],
    )
    assert len(tuned.comparison.names) == 6
