"""The report of a real Trainer: the logged figures, and those of a comparison of the same probabilities."""

import itertools
import json
import logging
import sys

import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)
pytest.importorskip("jinja2", reason="the extra 'report' is not installed")
pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
pytest.importorskip("scipy", reason="the extra 'report' is not installed")

import lightning_nets
from lightning_nets import CLASSES, Blobs, network
from packages import PACKAGES, mostly_one_package
from sweeps import sweep

from rankseg_plugins import PresenceRankSEG, RankSEG
from rankseg_plugins.comparison import Scoring, compare
from rankseg_plugins.lightning import RankSEGCallback
from rankseg_plugins.report.values import to_dict
from rankseg_plugins.scores.boundaries import Boundaries
from rankseg_plugins.scores.lesions import Lesions

pytestmark = pytest.mark.usefixtures("unpainted")

NAMES = ("background", "disc", "bar")


@pytest.fixture
def lines():
    """What Lightning writes into its log, whichever package was imported last."""
    from lightning_utilities.core import rank_zero

    found, handler = [], logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    rank_zero.log.addHandler(handler)
    yield found
    rank_zero.log.removeHandler(handler)


def read(folder):
    """Every figure of a report."""
    return json.loads((folder / "report.json").read_text())


def comparable(figures):
    """Neither how it was made nor decode times, which only a comparison takes."""
    decoders = {name: {**each, "milliseconds": None} for name, each in figures["decoders"].items()}
    return {**figures, "facts": None, "decoders": decoders}


def figures_of(net, batches, decoder, activation="softmax", **options):
    """What ``compare`` finds, which decodes the same probabilities by itself."""
    with torch.no_grad():
        pairs = [pair for image, target in batches for pair in zip(net(image), target, strict=True)]
    probs = [logits.softmax(0) if activation == "softmax" else logits.sigmoid() for logits, _ in pairs]
    samples = [(f"{i:06d}", *pair) for i, pair in enumerate(zip(probs, (y for _, y in pairs), strict=True))]
    argmax = RankSEG("acc", output_mode=decoder.output_mode)
    found = compare(samples, {"argmax": argmax, "RankSEG": decoder}, **options)
    return comparable(json.loads(json.dumps(to_dict(found))))


@sweep(
    ("package", "stage"),
    itertools.product(PACKAGES, ("val", "test")),
    quick=lambda package, stage: (package == PACKAGES[0]) == (stage == "val"),
)
@pytest.mark.painted
def test_figures_are_the_logged_ones_and_those_of_compare(segmenter, make_trainer, tmp_path, stage, lines):
    data, decoder, calls = lightning_nets.loader(ignore=255), RankSEG("dice"), []
    callback = RankSEGCallback(decoder, num_classes=CLASSES, ignore_index=255, report=tmp_path, class_names=NAMES)
    model, trainer = segmenter(), make_trainer(callbacks=[callback])
    predict = decoder.predict_logits
    decoder.predict_logits = lambda *given: calls.append(1) or predict(*given)
    (logged,) = (trainer.validate if stage == "val" else trainer.test)(model, data, verbose=False)
    assert len(calls) == len(data)  # never decoded twice
    found = read(tmp_path / stage)
    for score in ("dice", "iou"):
        for level in ("dataset", "image", "class"):
            ours, argmax = (found["decoders"][name]["levels"][f"{score}_{level}"] for name in ("RankSEG", "argmax"))
            assert ours == pytest.approx(logged[f"{stage}/rankseg/{score}_{level}"], abs=1e-6)
            assert argmax == pytest.approx(logged[f"{stage}/rankseg/argmax/{score}_{level}"], abs=1e-6)
    paired = found["decoders"]["RankSEG"]["paired"]
    assert paired["mean"] == pytest.approx(callback.scores_of_stage[stage][f"{stage}/rankseg/gain/dice_image"])
    assert paired["wins"] + paired["losses"] > 0
    assert comparable(found) == figures_of(model.net, data, decoder, ignore_index=255, class_names=NAMES)
    assert found["facts"]["RankSEG"] == repr(decoder)
    assert found["facts"]["evaluated"] == f"{stage}, epoch 0, step 0"
    assert [line for line in lines if "rankseg" in line] == [
        f"{stage}/rankseg: {found['decoders']['RankSEG']['verdict']}"
    ]
    page = (tmp_path / stage / "report.html").read_text()
    assert all(name in page for name in (*NAMES, "000000"))
    assert (tmp_path / stage / "pictures" / "reliability.png").is_file()


@mostly_one_package
def test_scores_and_absent_classes_are_those_of_the_callback(segmenter, make_trainer, tmp_path):
    options = {"scores": ["iou", "dice"], "absent": "one"}
    callback = RankSEGCallback(RankSEG("iou"), num_classes=CLASSES, report=tmp_path, **options)
    model, data = segmenter(), lightning_nets.loader()
    make_trainer(callbacks=[callback]).validate(model, data, verbose=False)
    scoring = Scoring("iou", absent="one")
    assert comparable(read(tmp_path / "val")) == figures_of(model.net, data, RankSEG("iou"), scoring=scoring)


@mostly_one_package
def test_blocks_are_those_of_compare(segmenter, make_trainer, tmp_path, lines):
    """Which images can be trusted, and boundaries; the log has the areas."""
    blocks = {"risk_coverage": True, "extra": [Boundaries(1), Lesions(classes=(1,))]}
    report = {"folder": tmp_path, "panels": 0, **blocks}
    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, ignore_index=255, report=report)
    model, data = segmenter(), lightning_nets.loader(ignore=255)
    make_trainer(callbacks=[callback]).validate(model, data, verbose=False)
    found = comparable(read(tmp_path / "val"))
    assert found == figures_of(model.net, data, RankSEG("dice"), ignore_index=255, **blocks)
    areas = found["risk_coverage"]["RankSEG"]
    told = (
        f"{100 * areas['aurc']:.2f} % (ideal order {100 * areas['aurc_ideal']:.2f} %, random order "
        f"{100 * areas['aurc_random']:.2f} %)"
    )
    (line,) = [line for line in lines if "rankseg" in line]
    assert told in line


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"risk_coverage": True}, "report must say its 'folder'"),
        ({"folder": "x", "risk": True}, "unknown key 'risk' in report, did you mean 'risk_coverage'"),
        ({"folder": "x", "panels": -1}, "panels must be an integer of at least 0"),
    ],
)
def test_blocks_that_are_none(report, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, report=report)


def test_what_cannot_be_expected_is_refused_before_any_image(tmp_path):
    asked = {"folder": tmp_path, "risk_coverage": True}
    with pytest.raises(ValueError, match="the score of risk_coverage must be one of"):
        RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, scores=["recall"], report=asked)


@mostly_one_package
def test_what_is_known_of_presence(segmenter, make_trainer, tmp_path):
    model, data = segmenter(), lightning_nets.loader(ignore=255)
    decoder = PresenceRankSEG(CLASSES)
    for image, target in data:
        with torch.no_grad():
            decoder.update(model.net(image).softmax(1), target, ignore_index=255)
    decoder.fit()
    callback = RankSEGCallback(decoder, num_classes=CLASSES, ignore_index=255, report=tmp_path)
    make_trainer(callbacks=[callback]).validate(model, data, verbose=False)
    about = read(tmp_path / "val")["decoders"]["RankSEG"]["presence"]
    expected = figures_of(model.net, data, decoder, ignore_index=255)["decoders"]["RankSEG"]["presence"]
    assert about["frequency"] == expected["frequency"]
    assert about["likely"] == pytest.approx(expected["likely"], abs=1e-5)
    assert [row[2] for row in about["bins"]] == [row[2] for row in expected["bins"]]


@mostly_one_package
def test_one_channel(segmenter, make_trainer, tmp_path):
    decoder, net = RankSEG("dice", output_mode="multilabel"), network(classes=1)
    callback = RankSEGCallback(decoder, num_classes=1, activation="sigmoid", report=tmp_path)
    model, data = segmenter(net), lightning_nets.loader(classes=2)
    make_trainer(callbacks=[callback]).validate(model, data, verbose=False)
    assert comparable(read(tmp_path / "val")) == figures_of(net, data, decoder, "sigmoid")


@mostly_one_package
def test_a_folder_for_each_dataloader_and_the_last_epoch(segmenter, make_trainer, tmp_path):
    named = {0: "day", 1: "night"}
    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, report=tmp_path / "report", dataloaders=named)
    model, loaders = segmenter(), [lightning_nets.loader(), lightning_nets.loader(items=3, seed=1)]
    trainer = make_trainer(callbacks=[callback], max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(model, lightning_nets.loader(), loaders)
    assert sorted(path.name for path in (tmp_path / "report" / "val").iterdir()) == ["day", "night"]
    for name, loader in zip(named.values(), loaders, strict=True):
        found = read(tmp_path / "report" / "val" / name)
        assert comparable(found) == figures_of(model.net, loader, RankSEG("dice"))
        assert found["facts"]["evaluated"] == "val, epoch 1, step 6"


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"report": True}, TypeError, "report must be the path of a folder, got True"),
        ({"report": __file__}, ValueError, "report must be a folder"),
        ({"class_names": ["a", "b"]}, ValueError, "class_names must be 3 different names, got 2: a, b"),
    ],
)
def test_bad_options(options, kind, words):
    with pytest.raises(kind, match=words):
        RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, **options)


def test_a_missing_package_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"needs 'jinja2': install its extra, rankseg-plugins\[report\]"):
        RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, report=tmp_path)
    RankSEGCallback(RankSEG("dice"), num_classes=CLASSES)


RUN = """
import sys
import lightning_nets
from torch.utils.data import DataLoader
from rankseg_plugins import PresenceRankSEG
from rankseg_plugins.lightning import RankSEGCallback
from rankseg_plugins.report import charts

charts.to_png = lambda figure: b""
package, folder = sys.argv[1:]
decoder = PresenceRankSEG(3, present="label", frequencies=[1.0, 0.7, 0.4])
callback = RankSEGCallback(decoder, num_classes=3, ignore_index=255, report=folder)
loaders = [DataLoader(lightning_nets.Blobs(items=n, ignore=255, nan=(0, 3)), batch_size=2) for n in (7, 1, 5)]
trainer = lightning_nets.trainer(package, folder, callbacks=[callback], strategy="ddp", devices=2)
trainer.validate(lightning_nets.module_class(package)(), loaders, verbose=False)
skipped = [callback.scores_of_stage["val"][f"val/rankseg/skipped/dataloader_idx_{i}"] for i in range(3)]
assert skipped == [2, 1, 2], skipped
"""


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # of a score without any image
@mostly_one_package
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_write_what_one_writes(forks, package, segmenter, make_trainer, tmp_path):
    """Seven images, one of them shown twice; and one image, where a process has nothing but a repetition.

    That which is repeated and another one are NaN, and left out.
    """
    loaders = [DataLoader(Blobs(items=n, ignore=255, nan=(0, 3)), batch_size=2) for n in (7, 1, 5)]
    decoder = PresenceRankSEG(3, present="label", frequencies=[1.0, 0.7, 0.4])
    callback = RankSEGCallback(decoder, num_classes=CLASSES, ignore_index=255, report=tmp_path / "one")
    with pytest.warns(UserWarning, match="2 of 7 images are left out"):
        make_trainer(callbacks=[callback]).validate(segmenter(), loaders, verbose=False)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    done = forks.run([script, package, tmp_path / "two"], tmp_path, world=2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("2 of 7 images are left out") == 1
    assert not list((tmp_path / "two" / "val").glob("dataloader_idx_1/*"))
    assert done.stderr.count("val/rankseg/dataloader_idx_1:") == 0
    for index, count in ((0, 5), (2, 3)):
        one, two = (tmp_path / name / "val" / f"dataloader_idx_{index}" for name in ("one", "two"))
        assert (two / "images.csv").read_text() == (one / "images.csv").read_text()
        expected, found = comparable(read(one)), comparable(read(two))
        verdict = f"val/rankseg/dataloader_idx_{index}: {found['decoders']['RankSEG']['verdict']}"
        assert done.stderr.count(verdict) == 1
        assert found["images"] == count
        # The batches are those of a process.
        (first, second), expected["skipped"] = found["skipped"].items(), found["skipped"]
        assert first == ("000000", "000000: NaN or infinite values (validation_step, batch 0 of process 0)")
        assert second == ("000003", "000003: NaN or infinite values (validation_step, batch 0 of process 1)")
        # Other images share a batch, so the last bits of the network's output differ.
        calibration = expected.pop("calibration")
        for row, values in calibration["classes"].items():
            assert found["calibration"]["classes"][row] == pytest.approx(values, abs=1e-6)
        assert found["calibration"]["top_label"] == pytest.approx(calibration["top_label"], abs=1e-6)
        del found["calibration"]
        assert found == expected


class Pruned(torch.nn.Module):
    """A decoder that never shows the last class."""

    output_mode = "multiclass"

    def forward(self, probs):
        return probs[:, :-1].argmax(1)


@mostly_one_package
def test_without_images_there_is_no_verdict(segmenter, make_trainer, lines):
    """Neither report nor tuning: sums over all images are kept, and say nothing about chance."""
    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES)
    make_trainer(callbacks=[callback]).validate(segmenter(), lightning_nets.loader(), verbose=False)
    assert callback.scores_of_stage["val"]
    assert not [line for line in lines if "rankseg" in line.lower()]


@mostly_one_package
def test_a_tuning_is_logged_with_its_verdict(segmenter, make_trainer, lines):
    callback = RankSEGCallback(num_classes=CLASSES, tune=True)
    make_trainer(callbacks=[callback]).validate(segmenter(), lightning_nets.loader(), verbose=False)
    count = len(callback.tuned.comparison.names)
    assert f"val/rankseg, tuned on {count} images: {callback.tuned.verdict}" in lines


def test_classes_that_are_left_out_are_named_once(segmenter, make_trainer):
    model, data = segmenter(), lightning_nets.loader()
    probs = [model.net(image).softmax(1) for image, _ in data]
    truth = torch.cat([target for _, target in data])
    argmax = torch.cat([each.argmax(1) for each in probs])
    last = CLASSES - 1
    found = ((truth == last).flatten(1).any(1) & (argmax == last).flatten(1).any(1)).sum().item()
    assert found > 1
    callback = RankSEGCallback(Pruned(), num_classes=CLASSES, class_names=NAMES)
    trainer = make_trainer(callbacks=[callback])
    with pytest.warns(UserWarning, match="leaves out classes") as said:
        trainer.validate(model, data, verbose=False)
    trainer.validate(model, data, verbose=False)  # where a second warning would be an error
    lines = [str(each.message) for each in said if "leaves out classes" in str(each.message)]
    assert len(lines) == 1
    assert (
        f"val: RankSEG leaves out classes that are there and argmax shows: bar in {found} of {found} images" in lines[0]
    )
