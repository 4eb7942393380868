"""RankSEGCallback tunes while a real Trainer validates; what it finds is what ``tune`` finds."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)
pytest.importorskip("scipy", reason="the extra 'report' is not installed")

from expected import expected_decoder, samples, scores_of
from lightning_nets import CLASSES, SCALES, Blobs, Drawn, batches, network
from packages import mostly_one_package

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.calibration.deciding import as_decoder
from rankseg_plugins.comparison import Sample, Scoring
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter
from rankseg_plugins.tuning import tune

pytestmark = pytest.mark.usefixtures("unpainted")


def test_every_weight_has_a_decoder_of_its_own():
    """What makes the tests below tell decoders apart."""
    found = [expected_decoder(scale).decoder for scale in SCALES]
    assert [(each.is_argmax, each.temperature) for each in found] == [(False, 0.7), (True, 1.0), (False, 1.4)]


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@pytest.mark.parametrize("scale", SCALES)
def test_the_decoder_is_that_of_tune_and_decides_from_then_on(scaling, make_trainer, scale):
    callback = RankSEGCallback(num_classes=CLASSES, tune=True, predict_labels="labels")
    model, trainer = scaling(scale), make_trainer(callbacks=[callback])
    (returned,) = trainer.validate(model, batches(), verbose=False)
    found = expected_decoder(scale)
    assert callback.decoder.to_dict() == found.decoder.to_dict()
    assert callback.tuned.verdict == found.verdict
    # The validation itself was decided by argmax.
    assert returned["val/rankseg/gain/dice_image"] == 0
    chosen = "argmax" if found.decoder.is_argmax else "chosen"
    tuned, argmax = (found.validated.level(name, "dice", "image") for name in (chosen, "argmax"))
    assert returned["val/rankseg/tuned/dice_image"] == pytest.approx(tuned, abs=1e-6)
    assert returned["val/rankseg/tuned_gain/dice_image"] == pytest.approx(tuned - argmax, abs=1e-6)
    assert argmax == pytest.approx(returned["val/rankseg/argmax/dice_image"], abs=1e-6)
    assert set(returned) == set(callback.names("val"))
    data = Drawn(seed=1)
    (returned,) = trainer.test(model, DataLoader(data, batch_size=7), verbose=False)
    expected = scores_of(found.decoder, scale, data, "test")
    assert {name: returned[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    predictions = trainer.predict(model, DataLoader(data, batch_size=7))
    labels = torch.cat([prediction["labels"] for prediction in predictions])
    assert torch.equal(labels, found.decoder((scale * data.logits).softmax(1)))


@mostly_one_package
def test_options_reach_the_tuning(scaling, make_trainer):
    own = dict(temperatures=[1.0, 0.8], pruning_probs=np.array([0.4, 0.0]), metrics=["dice", "iou"], folds=3)
    finish = dict(confidence=0.9, seed=7)
    callback = RankSEGCallback(
        RankSEG("iou"),
        num_classes=CLASSES,
        ignore_index=255,
        absent="one",
        tune=dict(objective="iou_dataset", min_cases=4, **own, **finish),
    )
    data = Drawn(items=6, ignore=255)
    make_trainer(callbacks=[callback]).validate(scaling(), DataLoader(data, batch_size=4), verbose=False)
    options = dict(ignore_index=255, min_cases=4, scoring=Scoring("iou", absent="one"), **own, **finish)
    found = expected_decoder(1.0, data, "iou_dataset", **options)
    assert callback.decoder.to_dict() == found.decoder.to_dict()
    assert callback.tuned.comparison.decoders == found.comparison.decoders
    assert callback.tuned.comparison.scoring == found.comparison.scoring
    assert len(found.comparison.decoders) == 9


def test_the_first_score_is_the_objective():
    callback = RankSEGCallback(num_classes=CLASSES, scores=["iou", "precision"], tune=True)
    assert callback.names("val")[-2:] == ["val/rankseg/tuned/iou_image", "val/rankseg/tuned_gain/iou_image"]
    assert not any("tuned" in name for name in callback.names("test"))
    with pytest.raises(ValueError, match=r"objective must be one of .*'precision_image'"):
        RankSEGCallback(num_classes=CLASSES, scores=["precision"], tune=True)


@mostly_one_package
def test_several_dataloaders_are_tuned_on_together(scaling, make_trainer):
    first, second, third = (Drawn(items=n, seed=n) for n in (12, 3, 9))
    loaders = [DataLoader(data, batch_size=5) for data in (first, second, third)]
    callback = RankSEGCallback(num_classes=CLASSES, tune=True, dataloaders={0: "day", 2: "night"})
    make_trainer(callbacks=[callback]).validate(scaling(), loaders, verbose=False)
    found = tune(samples(first, prefix="day/") + samples(third, prefix="night/"))
    assert callback.decoder.to_dict() == found.decoder.to_dict()
    assert callback.tuned.comparison.names == found.comparison.names


@mostly_one_package
def test_cases(scaling, make_trainer, tmp_path):
    """Eight images of three patients: by images the gain is certain, by patients there are too few."""
    data = Drawn(items=24)
    patients = [f"p{i // 8}" for i in range(24)]
    named = [(*item, patient) for item, patient in zip(data, patients, strict=True)]
    callback = RankSEGCallback(num_classes=CLASSES, tune=True, cases=2, report=tmp_path)
    make_trainer(callbacks=[callback]).validate(scaling(), DataLoader(named, batch_size=5), verbose=False)
    found = tune([Sample(*item, case) for item, case in zip(samples(data), patients, strict=True)])
    assert callback.decoder.to_dict() == found.decoder.to_dict()
    assert "too few cases (3 below min_cases=20)" in callback.tuned.verdict
    assert not expected_decoder().decoder.is_argmax
    rows = (tmp_path / "val" / "images.csv").read_text().splitlines()
    assert {row.split(",")[1] for row in rows[1:]} == {"p0", "p1", "p2"}
    for cases, error, words in (
        (lambda o, b: b[2][:1], ValueError, "one for each of 5 images, got 1"),
        (lambda o, b: "p0", TypeError, "must lead to a sequence"),
    ):
        wrong = RankSEGCallback(num_classes=CLASSES, tune=True, cases=cases)
        with pytest.raises(error, match=words):
            make_trainer(callbacks=[wrong]).validate(scaling(), DataLoader(named, batch_size=5), verbose=False)


@mostly_one_package
@pytest.mark.parametrize("options", [{"limit_val_batches": 1}, {"fast_dev_run": True}, {"num_sanity_val_steps": 2}])
def test_few_images_keep_argmax(scaling, make_trainer, options):
    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, tune=True)
    trainer = make_trainer(callbacks=[callback], max_epochs=1, **options)
    data = batches(items=7)
    trainer.fit(scaling(by_epoch=[1.0]), data, data)
    seen = 7 if "num_sanity_val_steps" in options else 5
    assert callback.decoder.is_argmax
    assert f"too few cases ({seen} below min_cases=20)" in callback.tuned.verdict
    assert callback.decoder.evidence["images"] == seen
    # What was not believed is not logged as a gain either.
    assert callback.decoder.evidence["gain"] != 0
    assert callback.scores_of_stage["val"]["val/rankseg/tuned_gain/dice_image"] == 0


def test_a_single_image(scaling, make_trainer):
    callback = RankSEGCallback(num_classes=CLASSES, tune=True)
    make_trainer(callbacks=[callback]).validate(scaling(), batches(items=1), verbose=False)
    assert callback.decoder.is_argmax
    assert callback.scores_of_stage["val"]["val/rankseg/tuned_gain/dice_image"] == 0


@mostly_one_package
def test_one_channel_and_overlapping_masks(segmenter, make_trainer):
    class Masks(segmenter):
        def _step(self, batch):
            return {"logits": self(batch[0]), "target": self.truth(batch[1])}

        def truth(self, labels):
            one_channel = self.net[-1].out_channels == 1
            return labels if one_channel else torch.stack([labels >= c for c in range(CLASSES)], 1)

    for classes, decoder in ((1, None), (CLASSES, RankSEG("acc", output_mode="multilabel"))):
        own = dict(temperatures=[0.7, 1.4], min_cases=5)
        data = Blobs(items=8, classes=max(classes, 2))
        callback = RankSEGCallback(decoder, num_classes=classes, activation="sigmoid", tune=own)
        model = Masks(network(classes=classes))
        make_trainer(callbacks=[callback]).validate(model, DataLoader(data, batch_size=1), verbose=False)
        with torch.no_grad():
            pairs = [(model(image[None]).sigmoid()[0], labels) for image, labels in data]
        given = [(f"{i:06d}", probs, model.truth(labels[None])[0]) for i, (probs, labels) in enumerate(pairs)]
        found = tune(given, output_mode="multilabel", **own)
        assert callback.decoder.to_dict() == found.decoder.to_dict()
        assert callback.decoder.output_mode == "multilabel"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, TypeError, "decoder must be given, such as RankSEG"),
        ({"tune": False}, TypeError, "unless tune=True"),
        ({"tune": "dice"}, TypeError, "tune must be True, False or a dict of options, got 'dice'"),
        ({"tune": {"temperature": [1.0]}}, TypeError, "tune takes objective, temperatures, .* got 'temperature'"),
        ({"tune": {"ignore_index": 255}}, TypeError, "tune takes no 'ignore_index': it follows from the options"),
        ({"tune": {"aggregation_levels": ["global"]}}, TypeError, "needs the images twice"),
        ({"tune": {"objective": "dice"}}, ValueError, "objective must be one of"),
        ({"tune": {"folds": 1}}, ValueError, "folds must be an integer of at least 2"),
        ({"tune": {"temperatures": [0.0]}}, ValueError, "temperatures must be in"),
        ({"tune": {"temperatures": []}}, ValueError, "temperatures must hold at least one value"),
        ({"tune": {"solvers": ["rmb"]}}, ValueError, "solvers must be one of"),
        ({"tune": {"confidence": 1.0}}, ValueError, "confidence must lie in"),
        ({"tune": {"confidence": 95}}, ValueError, r"confidence must be in \[0, 1\], got 95"),
        ({"tune": {"confidence": "a"}}, TypeError, "confidence must be a real number, got str"),
        ({"tune": {"seed": -1}}, ValueError, "seed must be at least 0, got -1"),
        ({"tune": True, "activation": "sigmoid"}, ValueError, "leaves open whether classes may overlap"),
        ({"tune": True, "cases": 1.5}, TypeError, "cases must be a key"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        RankSEGCallback(num_classes=CLASSES, **options)


def test_scipy_is_named_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ImportError, match=r"needs 'scipy\.stats': install its extra, rankseg-plugins\[report\]"):
        RankSEGCallback(num_classes=CLASSES, tune=True)


@mostly_one_package
def test_a_test_before_any_tuning_says_so(scaling, make_trainer):
    callback = RankSEGCallback(num_classes=CLASSES, tune=True)
    with pytest.warns(UserWarning, match="no decoder was tuned yet, so test decides with RankSEG"):
        make_trainer(callbacks=[callback]).test(scaling(), batches(items=5), verbose=False)
    given = RankSEGCallback(expected_decoder().decoder, num_classes=CLASSES, tune=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*tuned.*")
        make_trainer(callbacks=[given]).test(scaling(), batches(items=5), verbose=False)


@mostly_one_package
def test_the_report_brings_the_decoder_as_a_file(scaling, make_trainer, tmp_path):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    callback = RankSEGCallback(num_classes=CLASSES, tune=True, report=tmp_path)
    trainer = make_trainer(callbacks=[callback])
    trainer.validate(scaling(), batches(), verbose=False)
    path, data = tmp_path / "decoder.json", Drawn(seed=1)
    assert json.loads(path.read_text()) == callback.decoder.to_dict()
    callback.tuned.report(tmp_path / "tuning")
    assert (tmp_path / "tuning" / "decoder.json").read_text() == path.read_text()
    (expected,) = trainer.test(scaling(), DataLoader(data, batch_size=7), verbose=False)
    reading = [RankSEGCallback(each, num_classes=CLASSES) for each in (path, str(path))]
    for each in reading:
        (returned,) = make_trainer(callbacks=[each]).test(scaling(), DataLoader(data, batch_size=7), verbose=False)
        assert returned == expected
    writer = RankSEGPredictionWriter(tmp_path / "labels", path, file_format="npy")
    make_trainer(callbacks=[writer]).predict(scaling(), DataLoader(data, batch_size=7))
    written = np.stack([np.load(tmp_path / "labels" / f"{i:06d}.npy") for i in range(len(data))])
    assert np.array_equal(written, callback.decoder(data.logits.softmax(1)).numpy())


@mostly_one_package
@pytest.mark.filterwarnings("ignore:.*leaves out classes")
def test_a_file_that_knows_which_classes_are_there(scaling, make_trainer, tmp_path):
    """`tune=True` makes none; where one is given, the callback and the writer decide by it."""
    decoder, data = PresenceRankSEG(CLASSES), Drawn()
    decoder.update(data.logits.softmax(1), torch.arange(len(data.logits))[:, None] % 4 != torch.arange(CLASSES))
    decoder.fit()
    tuned, path = TunedDecoder(decoder, CLASSES, 0.7), tmp_path / "decoder.json"
    tuned.save(path)
    data = Drawn(seed=1)
    labels = tuned(data.logits.softmax(1))
    assert (labels != TunedDecoder(RankSEG(), CLASSES, 0.7)(data.logits.softmax(1))).any()
    trainer = make_trainer(callbacks=[RankSEGCallback(path, num_classes=CLASSES)])
    (returned,) = trainer.test(scaling(), DataLoader(data, batch_size=7), verbose=False)
    expected = scores_of(tuned, 1.0, data, "test")
    assert {name: returned[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    writer = RankSEGPredictionWriter(tmp_path / "labels", path, file_format="npy")
    make_trainer(callbacks=[writer]).predict(scaling(), DataLoader(data, batch_size=7))
    written = np.stack([np.load(tmp_path / "labels" / f"{i:06d}.npy") for i in range(len(data))])
    assert np.array_equal(written, labels.numpy())


@mostly_one_package
def test_tuned_labels_are_written(scaling, make_trainer, tmp_path):
    """The callback puts its labels into the predictions, the writer behind it writes them."""
    callback = RankSEGCallback(num_classes=CLASSES, tune=True, predict_labels="labels")
    writer = RankSEGPredictionWriter(tmp_path, labels="labels", file_format="npy")
    trainer, data = make_trainer(callbacks=[callback, writer]), Drawn(items=6, seed=1)
    trainer.validate(scaling(), batches(), verbose=False)
    trainer.predict(scaling(), DataLoader(data, batch_size=4))
    written = np.stack([np.load(tmp_path / f"{i:06d}.npy") for i in range(6)])
    assert np.array_equal(written, expected_decoder().decoder(data.logits.softmax(1)).numpy())


def test_files_and_decoders_that_do_not_fit(tmp_path):
    TunedDecoder(RankSEG(), 4).save(tmp_path / "four.json")
    (tmp_path / "other.json").write_text("{}")
    for path, error, words in (
        ("four.json", ValueError, "four.json' is for num_classes=4, got num_classes=3"),
        ("other.json", ValueError, "other.json: no decoder of rankseg_plugins"),
        ("none.json", FileNotFoundError, "none.json': no such file; decoder must be a RankSEG"),
    ):
        with pytest.raises(error, match=words):
            RankSEGCallback(tmp_path / path, num_classes=CLASSES)
    with pytest.raises(ValueError, match="decoder is for num_classes=4, got num_classes=3"):
        RankSEGCallback(GlobalRankSEG(4), num_classes=CLASSES)
    assert as_decoder(tmp_path / "four.json").num_classes == 4


@mostly_one_package
def test_probabilities_softened_twice_are_warned_of_once(scaling, make_trainer, tmp_path):
    class Softened(scaling):
        def validation_step(self, batch, batch_idx):
            return {"logits": batch[0].softmax(1), "target": batch[1]}

    light = dict(temperatures=[1.0], pruning_probs=[0.5])
    for options in ({"tune": light, "report": tmp_path}, {"decoder": RankSEG("dice")}):
        callback = RankSEGCallback(num_classes=CLASSES, **options)
        trainer = make_trainer(callbacks=[callback])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                trainer.validate(Softened(), batches(), verbose=False)
        assert len([each for each in caught if "the probabilities" in str(each.message)]) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*applied twice.*")
        make_trainer(callbacks=[RankSEGCallback(num_classes=CLASSES, tune=True)]).validate(
            scaling(), batches(), verbose=False
        )


@mostly_one_package
@pytest.mark.parametrize("with_report", [False, True])
def test_unsure_probabilities_are_warned_of_once(scaling, make_trainer, tmp_path, with_report):
    light = dict(temperatures=[1.0], pruning_probs=[0.5])
    callback = RankSEGCallback(num_classes=CLASSES, tune=light, report=tmp_path if with_report else None)
    trainer, model = make_trainer(callbacks=[callback]), scaling(0.4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            trainer.validate(model, batches(), verbose=False)
    assert len([each for each in caught if "too unsure" in str(each.message)]) == 1
    with pytest.warns(UserWarning, match="too unsure"):
        expected = expected_decoder(0.4, **light).comparison.calibration
    assert np.allclose(callback.tuned.comparison.calibration.error(), expected.error())


RUN = """
import json, sys
import lightning_nets
from pathlib import Path
from torch.utils.data import DataLoader
from rankseg_plugins.lightning import RankSEGCallback

package, folder = sys.argv[1:]
callback = RankSEGCallback(num_classes=3, tune=dict(min_cases=10))
loaders = [DataLoader(lightning_nets.Drawn(items=n), batch_size=2) for n in (21, 1)]
trainer = lightning_nets.trainer(package, folder, callbacks=[callback], strategy="ddp", devices=2)
model = lightning_nets.scaling_class(package)()
trainer.validate(model, loaders, verbose=False)
trainer.test(model, loaders, verbose=False)
result = {"decoder": callback.decoder.to_dict(), "scores": callback.scores_of_stage}
(Path(folder) / f"rank{trainer.global_rank}.json").write_text(json.dumps(result))
"""


@mostly_one_package
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_tune_what_one_tunes(forks, package, scaling, make_trainer, tmp_path):
    """Twenty-one images, one of them shown twice; and one image, where a process has nothing but a repetition."""
    callback = RankSEGCallback(num_classes=CLASSES, tune=dict(min_cases=10))
    loaders = [DataLoader(Drawn(items=n), batch_size=2) for n in (21, 1)]
    trainer = make_trainer(callbacks=[callback])
    trainer.validate(scaling(), loaders, verbose=False)
    trainer.test(scaling(), loaders, verbose=False)
    assert callback.decoder.evidence["images"] == 22
    assert not callback.decoder.is_argmax
    script = tmp_path / "run.py"
    script.write_text(RUN)
    done = forks.run([script, package, tmp_path], tmp_path, world=2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("tuned on 22 images") == 1
    for rank in (0, 1):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found["decoder"] == callback.decoder.to_dict()
        for stage, values in callback.scores_of_stage.items():
            assert found["scores"][stage] == pytest.approx(values, abs=1e-12)
