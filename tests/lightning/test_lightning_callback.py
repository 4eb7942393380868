"""RankSEGCallback under the real Trainer of each Lightning package."""

import importlib
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

import references
from expected import all_scores, logged, outputs_of
from lightning_nets import CLASSES, Blobs, loader, network
from packages import mostly_one_package
from tagged import tagged

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter

pytestmark = pytest.mark.usefixtures("unpainted")

DECODER = RankSEG(metric="dice")


def count_calls(decoder):
    """One entry for each decision on the logits of a batch."""
    calls, predict = [], decoder.predict_logits
    decoder.predict_logits = lambda *given: calls.append(1) or predict(*given)
    return calls


@pytest.mark.parametrize("stage", ["val", "test"])
def test_logs_both_decisions_and_their_difference(segmenter, make_trainer, stage):
    data = loader(ignore=255)
    callback = RankSEGCallback(DECODER, num_classes=CLASSES, ignore_index=255)
    model, trainer = segmenter(), make_trainer(callbacks=[callback])
    returned = (trainer.validate if stage == "val" else trainer.test)(model, data, verbose=False)
    expected = all_scores(*outputs_of(model.net, data), stage, ignore=255)
    assert logged(trainer) == pytest.approx(expected, abs=1e-12)
    assert returned[0] == pytest.approx(expected, abs=1e-12)
    assert callback.scores_of_stage[stage] == pytest.approx(expected, abs=1e-12)
    assert set(callback.names(stage)) == set(expected)
    assert any(value != 0 for name, value in expected.items() if "/gain/" in name)


def test_chosen_scores_levels_and_worst_case(segmenter, make_trainer):
    data = loader()
    callback = RankSEGCallback(
        DECODER, num_classes=CLASSES, scores=["iou"], levels=["image"], worst=0.3, absent="one", prefix="mine"
    )
    model, trainer = segmenter(), make_trainer(callbacks=[callback])
    trainer.validate(model, data, verbose=False)
    probs, target = outputs_of(model.net, data)
    predicted, true = references.masks_of(rankseg(probs), CLASSES), references.masks_of(target, CLASSES)
    got = logged(trainer)
    scores = {f"val/mine/{name}iou_image{w}" for name in ("", "argmax/", "gain/") for w in ("", "_worst30")}
    assert set(got) == scores | {"val/mine/skipped"}
    assert got["val/mine/iou_image"] == pytest.approx(references.levels(predicted, true, "iou", "one")["iou_image"])
    worst = references.worst(predicted, true, "iou", 0.3, "one")["image"]
    assert got["val/mine/iou_image_worst30"] == pytest.approx(worst, abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_scores_do_not_depend_on_the_batch_size(segmenter, make_trainer, batch_size):
    trainer = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES)])
    model = segmenter()
    trainer.validate(model, loader(batch_size=batch_size), verbose=False)
    assert logged(trainer) == pytest.approx(all_scores(*outputs_of(model.net, loader())), abs=1e-12)


def test_fit_with_checkpoints_early_stopping_accumulation_and_progress_bar(package, segmenter, make_trainer, tmp_path):
    pl = importlib.import_module(package)
    decoder = RankSEG(metric="iou")
    calls = count_calls(decoder)
    checkpoint = pl.callbacks.ModelCheckpoint(
        tmp_path, monitor="val/rankseg/dice_image", mode="max", filename="best", save_top_k=1
    )
    stopping = pl.callbacks.EarlyStopping("val/rankseg/gain/dice_image", patience=10, check_finite=True)
    trainer = make_trainer(
        callbacks=[RankSEGCallback(decoder, num_classes=CLASSES, prog_bar=True), checkpoint, stopping],
        max_epochs=2,
        accumulate_grad_batches=2,
        num_sanity_val_steps=2,
        enable_checkpointing=True,
    )
    model, data = segmenter(), loader()
    trainer.fit(model, loader(seed=1), data)
    expected = all_scores(*outputs_of(model.net, data), decide=lambda probs: rankseg(probs, metric="iou"))
    got = logged(trainer)
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    # One decision for each validation batch of two epochs, none for the sanity check or the scores.
    assert len(calls) == 2 * len(data)
    assert float(checkpoint.best_model_score) >= expected["val/rankseg/dice_image"]
    assert (tmp_path / "best.ckpt").exists()
    assert stopping.best_score.isfinite()
    assert {each for each in trainer.progress_bar_metrics if "rankseg" in each} == {
        "val/rankseg/dice_image",
        "val/rankseg/gain/dice_image",
    }


def test_the_sanity_check_logs_nothing(package, segmenter, make_trainer):
    seen = []

    class Watch(importlib.import_module(package).Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            seen.append((dict(trainer.callback_metrics), dict(callback.scores_of_stage)))

    callback = RankSEGCallback(DECODER, num_classes=CLASSES)
    trainer = make_trainer(callbacks=[callback, Watch()], max_epochs=1, num_sanity_val_steps=2)
    trainer.fit(segmenter(), loader(), loader())
    assert seen == [({}, {})]
    assert callback.scores_of_stage["val"]


def test_several_dataloaders(segmenter, make_trainer):
    first, second = loader(seed=1), loader(items=4, seed=2)
    model, trainer = segmenter(), make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES)])
    returned = trainer.validate(model, [first, second], verbose=False)
    expected = all_scores(*outputs_of(model.net, first), suffix="/dataloader_idx_0")
    expected |= all_scores(*outputs_of(model.net, second), suffix="/dataloader_idx_1")
    assert logged(trainer) == pytest.approx(expected, abs=1e-12)
    assert returned[0] == pytest.approx(expected, abs=1e-12)


def test_chosen_and_named_dataloaders(segmenter, make_trainer):
    loaders = [loader(seed=1), loader(items=4, seed=2), loader(seed=3)]
    model = segmenter()
    decoder = RankSEG(metric="dice")
    calls = count_calls(decoder)
    trainer = make_trainer(callbacks=[RankSEGCallback(decoder, num_classes=CLASSES, dataloaders=[1])])
    trainer.test(model, loaders, verbose=False)
    expected = all_scores(*outputs_of(model.net, loaders[1]), "test", suffix="/dataloader_idx_1")
    assert logged(trainer) == pytest.approx(expected, abs=1e-12)
    assert len(calls) == len(loaders[1])
    named = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES, dataloaders={2: "night"})])
    named.test(model, loaders, verbose=False)
    expected = all_scores(*outputs_of(model.net, loaders[2]), "test", suffix="/night")
    assert logged(named) == pytest.approx(expected, abs=1e-12)
    missing = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES, dataloaders=[3])])
    with pytest.raises(ValueError, match=r"dataloaders=\[3\] were asked for, the evaluation has 3"):
        missing.test(model, loaders, verbose=False)


def test_validation_after_a_fit_uses_its_own_dataloaders(segmenter, make_trainer):
    trainer = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES)], max_epochs=1)
    model = segmenter()
    trainer.fit(model, loader(), [loader(seed=1), loader(seed=2)])
    trainer.validate(model, loader(seed=3), verbose=False)
    assert logged(trainer) == pytest.approx(all_scores(*outputs_of(model.net, loader(seed=3))), abs=1e-12)


def test_mixed_precision(segmenter, make_trainer):
    seen = []

    class Keeps(segmenter):
        def validation_step(self, batch, batch_idx):
            outputs = self._step(batch)
            seen.append((outputs["logits"], outputs["target"]))
            return outputs

    trainer = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES)], precision="bf16-mixed")
    trainer.validate(Keeps(), loader(), verbose=False)
    logits = torch.cat([logits for logits, _ in seen])
    assert logits.dtype == torch.bfloat16
    # In bfloat16 itself, softmax would make different logits equal.
    expected = all_scores(logits.float().softmax(1), torch.cat([target for _, target in seen]))
    assert logged(trainer) == pytest.approx(expected, abs=1e-12)


def test_a_resumed_run_takes_up_the_state(segmenter, make_trainer, tmp_path):
    def run(epochs, checkpoint=None):
        torch.manual_seed(0)
        callback = RankSEGCallback(DECODER, num_classes=CLASSES)
        trainer = make_trainer(callbacks=[callback], max_epochs=epochs, num_sanity_val_steps=0)
        trainer.fit(segmenter(), loader(seed=1), loader(), ckpt_path=checkpoint)
        return trainer, callback

    first, first_callback = run(1)
    first.save_checkpoint(tmp_path / "one.ckpt")
    state = torch.load(tmp_path / "one.ckpt", weights_only=False)["callbacks"]
    assert state["RankSEGCallback{'prefix': 'rankseg'}"]["scores_of_stage"] == first_callback.scores_of_stage
    resumed, _ = run(2, tmp_path / "one.ckpt")
    whole, _ = run(2)
    assert logged(resumed) == pytest.approx(logged(whole), abs=1e-12)
    # Nothing left to train: what the callback knows comes from the checkpoint.
    _, untrained = run(1, tmp_path / "one.ckpt")
    assert untrained.scores_of_stage == first_callback.scores_of_stage


def test_the_state_of_a_decoder_that_learns_is_kept():
    class Shift(nn.Module):
        output_mode = "multiclass"

        def __init__(self, value):
            super().__init__()
            self.register_buffer("value", torch.tensor(value))

        def forward(self, probs):
            return probs.argmax(1)

    fitted, fresh = (RankSEGCallback(Shift(value), num_classes=CLASSES) for value in (3.0, 0.0))
    fresh.load_state_dict(pickle.loads(pickle.dumps(fitted.state_dict())))
    assert fresh.decoder.value == 3.0


def test_a_function_decodes(segmenter, make_trainer, tmp_path):
    callback = RankSEGCallback(lambda probs: rankseg(probs, metric="iou"), num_classes=CLASSES)
    trainer = make_trainer(callbacks=[callback], max_epochs=1)
    model, data = segmenter(), loader()
    trainer.fit(model, data, data)
    expected = all_scores(*outputs_of(model.net, data), decide=lambda probs: rankseg(probs, metric="iou"))
    assert callback.scores_of_stage["val"] == pytest.approx(expected, abs=1e-12)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    trainer = make_trainer(callbacks=[callback], max_epochs=2)
    trainer.fit(model, data, data, ckpt_path=tmp_path / "one.ckpt")


def test_two_decoders_side_by_side(segmenter, make_trainer):
    callbacks = [
        RankSEGCallback(RankSEG(metric="dice"), num_classes=CLASSES, prefix="dice"),
        RankSEGCallback(RankSEG(metric="iou", smooth=1.0), num_classes=CLASSES, prefix="iou"),
    ]
    model, trainer = segmenter(), make_trainer(callbacks=callbacks)
    trainer.validate(model, loader(), verbose=False)
    outputs = outputs_of(model.net, loader())
    got = logged(trainer)
    for prefix, options in (("dice", dict(metric="dice")), ("iou", dict(metric="iou", smooth=1.0))):
        expected = all_scores(*outputs, decide=lambda probs, options=options: rankseg(probs, **options))
        expected = {name.replace("val/rankseg", f"val/{prefix}"): value for name, value in expected.items()}
        assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@mostly_one_package
@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (dict(prefix="a"), dict(prefix="a/argmax"), "prefix='a' and prefix='a/argmax' would both log 'val/a/argmax/"),
        (dict(prefix="a/gain"), dict(prefix="a", levels=["image"]), "would both log 'val/a/gain/dice_image'"),
        (
            dict(prefix="a", dataloaders={0: "day"}),
            dict(prefix="a/dice_image", dataloaders={1: "skipped", 2: "night"}),
            None,
        ),
        (
            dict(prefix="a", levels=["image"], dataloaders={0: "dice_image"}),
            dict(prefix="a/dice_image"),
            "would both log 'val/a/dice_image/dice_image'",
        ),
        (dict(prefix="a", report="same"), dict(prefix="b", report="x/../same"), "need two folders, both have report="),
        (dict(prefix="a", report="same"), dict(prefix="b", report="other"), None),
        (dict(prefix="a", predict_labels="labels"), dict(prefix="b", predict_labels="labels"), "need two keys"),
        (dict(prefix="a", predict_labels="labels"), dict(prefix="b", predict_labels="other"), None),
        (dict(prefix="a"), dict(prefix="a/argmaxes"), None),
    ],
)
def test_callbacks_that_would_overwrite_each_other(segmenter, make_trainer, tmp_path, monkeypatch, one, other, said):
    monkeypatch.chdir(tmp_path)
    for package in ("jinja2", "matplotlib", "scipy") if "report" in one else ():
        pytest.importorskip(package)
    callbacks = [RankSEGCallback(DECODER, num_classes=CLASSES, **options) for options in (one, other)]
    trainer, loaders = make_trainer(callbacks=callbacks), [loader(items=1)] * (3 if "dataloaders" in one else 1)
    if said is not None:
        with pytest.raises(ValueError, match=said):
            trainer.validate(segmenter(), loaders, verbose=False)
        return
    trainer.validate(segmenter(), loaders, verbose=False)
    logged_by = [set(callback.scores_of_stage["val"]) for callback in callbacks]
    assert not logged_by[0] & logged_by[1]
    assert logged_by[0] | logged_by[1] == set(logged(trainer))


def test_callbacks_of_two_classes_with_one_prefix(segmenter, make_trainer):
    """Lightning itself refuses two of one class."""

    class Mine(RankSEGCallback):
        pass

    trainer = make_trainer(callbacks=[kind(DECODER, num_classes=CLASSES) for kind in (RankSEGCallback, Mine)])
    with pytest.raises(ValueError, match="would both log 'val/rankseg/argmax/dice_class'"):
        trainer.predict(segmenter(), loader())


@pytest.mark.parametrize("size", [(14,), (5, 6, 7)])
def test_signals_and_volumes(segmenter, make_trainer, size):
    data = loader(size=size, items=4)
    model = segmenter(network(dims=len(size)))
    trainer = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES)])
    trainer.validate(model, data, verbose=False)
    assert logged(trainer) == pytest.approx(all_scores(*outputs_of(model.net, data)), abs=1e-12)


@pytest.mark.parametrize(("activation", "times"), [("sigmoid", 1), ("softmax", 0)])
def test_labels_beside_channels_that_overlap(segmenter, make_trainer, activation, times):
    """The label of a region's number is not the region."""
    masks = RankSEG(output_mode="multilabel")
    callback = RankSEGCallback(masks, num_classes=CLASSES, activation=activation, ignore_index=255)
    trainer = make_trainer(callbacks=[callback])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            trainer.validate(segmenter(network(seed=5)), loader(), verbose=False)
    assert sum("masks are decided, the truth is labels" in str(each.message) for each in caught) == times


@pytest.mark.parametrize("channel", [False, True])
def test_one_channel(segmenter, make_trainer, channel):
    class Binary(segmenter):
        def _step(self, batch):
            image, target = batch
            target = (target > 0).long() + 254 * (target == 255)
            return {"logits": self(image), "target": target.unsqueeze(1).float() if channel else target}

    data = loader(ignore=255)
    callback = RankSEGCallback(
        RankSEG(output_mode="multilabel"), num_classes=1, activation="sigmoid", ignore_index=255, levels=["image"]
    )
    model, trainer = Binary(network(classes=1, seed=5)), make_trainer(callbacks=[callback])
    trainer.validate(model, data, verbose=False)
    with torch.no_grad():
        probs = torch.cat([model(image) for image, _ in data]).sigmoid()
    target = torch.cat([target for _, target in data])
    kept = (target != 255).flatten(1).unsqueeze(1).numpy()
    true = (target > 0).flatten(1).unsqueeze(1).numpy() & kept
    decisions = {"": rankseg(probs, output_mode="multilabel"), "argmax/": probs > 0.5}
    for name, masks in decisions.items():
        expected = references.levels(masks.flatten(2).numpy() & kept, true, "dice")["dice_image"]
        assert logged(trainer)[f"val/rankseg/{name}dice_image"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*leaves out classes")  # as a network does that was not trained
def test_a_module_in_the_style_of_segmentation_models_pytorch(package, make_trainer):
    """Encoder, decoder and head; batches are dicts, the step returns counts and no logits."""
    pl = importlib.import_module(package)

    class Unet(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.encoder = nn.Conv2d(1, 4, 3, padding=1, stride=2)
            self.decoder = nn.Upsample(scale_factor=2, mode="bilinear")
            self.segmentation_head = nn.Conv2d(4, classes, 1)

        def forward(self, image):
            return self.segmentation_head(self.decoder(self.encoder(image).relu()))

    class CamVidModel(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Unet(CLASSES)

        def validation_step(self, batch, batch_idx):
            self.logits = self.model(batch["image"])
            loss = nn.functional.cross_entropy(self.logits, batch["mask"])
            return {"loss": loss, "tp": torch.tensor(0)}

    torch.manual_seed(0)
    model = CamVidModel()
    model.model.segmentation_head.weight.data *= 9  # not as unsure as networks begin
    data = DataLoader([{"image": image, "mask": mask} for image, mask in Blobs()], batch_size=3)
    callback = RankSEGCallback(
        DECODER, num_classes=CLASSES, logits=lambda outputs, batch: model.logits, target="mask", log_images=1
    )
    trainer = make_trainer(callbacks=[callback])
    with pytest.warns(UserWarning, match=r"log_images=1, but no logger takes images \(loggers: none\)"):
        trainer.validate(model, data, verbose=False)
    expected = all_scores(*outputs_of(model.model, [(batch["image"], batch["mask"]) for batch in data]))
    assert logged(trainer) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(decoder="dice"), FileNotFoundError, "decoder='dice': no such file; decoder must be a RankSEG"),
        (dict(decoder=3), TypeError, "decoder must be a RankSEG"),
        (dict(decoder=RankSEG), TypeError, "got the class RankSEG"),
        (dict(num_classes="3"), TypeError, "num_classes must be an integer"),
        (dict(num_classes=0), ValueError, "num_classes must be at least 1"),
        (dict(num_classes=1), ValueError, "decoder with num_classes=1: a single channel cannot compete with itself"),
        (dict(decoder=RankSEG(void_index=2)), ValueError, "decoder with num_classes=3: void_index must lie outside"),
        (dict(decoder=lambda probs: probs.argmax(1), num_classes=1), ValueError, "num_classes=1 needs a decoder with"),
        (
            dict(num_classes=1, decoder=RankSEG(output_mode="multilabel")),
            ValueError,
            "num_classes=1 needs activation='sigmoid' or 'identity', got 'softmax'",
        ),
        (dict(logits=None), TypeError, "logits must be a key, a tuple index, a pair such as"),
        (dict(target=1.5), TypeError, "target must be a key"),
        (dict(image=True), TypeError, "image must be a key"),
        (dict(activation="relu"), ValueError, "activation must be one of"),
        (dict(scores=["f1"]), ValueError, "score must be one of"),
        (dict(scores=[]), ValueError, "score must name each choice once and at least one"),
        (dict(levels=["pixel"]), ValueError, "levels must be one of 'dataset', 'image', 'class'"),
        (dict(levels=None), TypeError, "levels must hold values of type str, got None"),
        (dict(ignore_index="255"), TypeError, "ignore_index must be an integer or None"),
        (dict(predict_labels=1.5), TypeError, "predict_labels must be a key, a list index or None"),
        (dict(absent="never"), ValueError, "absent must be one of"),
        (dict(worst=0.0), ValueError, r"worst must be a share in \(0, 1\]"),
        (dict(prefix=""), ValueError, "prefix must be a name"),
        (dict(log_images=-1), ValueError, "log_images must be at least 0"),
        (dict(log_images=True), TypeError, "log_images must be an integer"),
        (dict(dataloaders=0), TypeError, "dataloaders must be a sequence of indices"),
        (dict(dataloaders=[]), ValueError, "dataloaders must hold at least one index"),
        (dict(dataloaders=[-1]), ValueError, "dataloaders must hold indices from 0"),
        (dict(dataloaders={0: "a", 1: "a"}), ValueError, "different names"),
        (dict(unknown=1), TypeError, "unknown"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        RankSEGCallback(**{"decoder": DECODER, "num_classes": CLASSES, **options})


def test_pickles(segmenter, make_trainer):
    callback = pickle.loads(pickle.dumps(RankSEGCallback(RankSEG(metric="iou"), num_classes=CLASSES)))
    trainer = make_trainer(callbacks=[callback])
    trainer.validate(segmenter(), loader(), verbose=False)
    assert set(logged(trainer)) == set(callback.names("val"))


@mostly_one_package
def test_tensors_that_intercept_functions(segmenter, make_trainer, tmp_path):
    """As MONAI's: the same values are logged and written, and what comes back is plain."""

    class Tagged(segmenter):
        def validation_step(self, batch, batch_idx):
            return {name: tagged(value.detach()) for name, value in self._step(batch).items() if name != "loss"}

        def predict_step(self, batch, batch_idx):
            return {"logits": tagged(self(batch[0]))}

    data, found = loader(ignore=255), []
    for kind in (segmenter, Tagged):
        callback = RankSEGCallback(
            DECODER, num_classes=CLASSES, ignore_index=255, predict_labels="labels", report=tmp_path / kind.__name__
        )
        writer = RankSEGPredictionWriter(tmp_path / kind.__name__ / "labels", DECODER, file_format="npy")
        model, trainer = kind(), make_trainer(callbacks=[callback, writer])
        trainer.validate(model, data, verbose=False)
        predicted = torch.cat([each["labels"] for each in trainer.predict(model, data)])
        written = [path.read_bytes() for path in sorted(writer.output_dir.iterdir())]
        found.append((logged(trainer), callback.scores_of_stage, predicted, written))
    plain, intercepted = found
    assert intercepted[:2] == plain[:2]
    assert type(intercepted[2]) is torch.Tensor
    assert torch.equal(intercepted[2], plain[2])
    assert intercepted[3] == plain[3]
    assert len(plain[3]) == len(data.dataset)


def test_options_can_be_read_and_not_set(tmp_path):
    """One that was switched afterwards would be ignored."""
    given = {
        "num_classes": 3,
        "class_names": ("a", "b", "c"),
        "prog_bar": True,
        "dataloaders": {1: "night"},
        "log_images": 2,
        "predict_labels": "labels",
        "report": tmp_path / "report",
        "prefix": "mine",
    }
    callback = RankSEGCallback(RankSEG(), **given)
    for name, value in given.items():
        assert getattr(callback, name) == value
        with pytest.raises(AttributeError):
            setattr(callback, name, None)
