"""Checkpoints hold the decoder of their validation."""

import importlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)
pytest.importorskip("scipy", reason="the extra 'report' is not installed")

from expected import expected_decoder, logged, scores_of
from lightning_nets import CLASSES, SCALES, Drawn, batches
from packages import mostly_one_package

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.lightning import RankSEGCallback


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
def test_each_checkpoint_holds_the_decoder_of_its_validation(package, scaling, make_trainer, tmp_path):
    pl = importlib.import_module(package)
    own = dict(num_classes=CLASSES, tune=dict(pruning_probs=np.array([0.5, 0.3, 0.1]), confidence=np.float64(0.95)))
    checkpoint = pl.callbacks.ModelCheckpoint(
        tmp_path, "{epoch}", monitor="val/rankseg/tuned/dice_image", mode="max", save_top_k=-1
    )
    callback = RankSEGCallback(**own)
    # ModelCheckpoint first: Lightning moves it to the end.
    trainer = make_trainer(callbacks=[checkpoint, callback], max_epochs=3, enable_checkpointing=True)
    trainer.fit(scaling(by_epoch=SCALES), batches(items=5), batches())
    found = [expected_decoder(scale).decoder for scale in SCALES]
    for epoch, decoder in enumerate(found):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        (state,) = (state for key, state in saved["callbacks"].items() if "RankSEGCallback" in key)
        assert state["tuned"] == decoder.to_dict()
    # Epoch 1 was decided by the decoder of epoch 0, and so on: each is scored on what it was not tuned on.
    assert logged(trainer)["val/rankseg/dice_image"] == pytest.approx(
        scores_of(found[1], SCALES[2], Drawn(), "val")["val/rankseg/dice_image"], abs=1e-6
    )
    assert Path(checkpoint.best_model_path).name == "epoch=0.ckpt"
    assert callback.decoder.to_dict() == found[2].to_dict()
    data = Drawn(seed=1)
    expected = scores_of(found[0], SCALES[0], data, "test")
    (returned,) = trainer.test(ckpt_path="best", dataloaders=DataLoader(data, batch_size=7), verbose=False)
    assert {name: returned[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert callback.decoder.to_dict() == found[0].to_dict()
    # Another program, another callback.
    fresh = RankSEGCallback(**own, predict_labels="labels")
    trainer, best = make_trainer(callbacks=[fresh]), checkpoint.best_model_path
    (returned,) = trainer.test(scaling(), DataLoader(data, batch_size=7), ckpt_path=best, verbose=False)
    assert {name: returned[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    last = tmp_path / "epoch=2.ckpt"
    predictions = trainer.predict(scaling(), DataLoader(data, batch_size=7), ckpt_path=last)
    labels = torch.cat([prediction["labels"] for prediction in predictions])
    assert torch.equal(labels, found[2]((SCALES[2] * data.logits).softmax(1)))


@mostly_one_package
def test_where_lightning_restores_callbacks_for_fit_alone(scaling, make_trainer, tmp_path, monkeypatch):
    """As it does before version 2.6."""
    callback = RankSEGCallback(num_classes=CLASSES, tune=True)
    trainer = make_trainer(callbacks=[callback], max_epochs=1)
    trainer.fit(scaling(by_epoch=SCALES), batches(items=5), batches())
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    fresh = RankSEGCallback(num_classes=CLASSES, tune=True, predict_labels="labels")
    trainer = make_trainer(callbacks=[fresh])
    monkeypatch.setattr(trainer._checkpoint_connector, "restore_callbacks", lambda: None)
    trainer.predict(scaling(), batches(items=5), ckpt_path=tmp_path / "one.ckpt")
    assert fresh.decoder.to_dict() == callback.decoder.to_dict()
    # Without a checkpoint what was tuned since then stays.
    trainer.validate(scaling(6.0), batches(), verbose=False)
    trainer.test(scaling(6.0), batches(items=5), verbose=False)
    assert fresh.decoder.temperature == 1.4


@mostly_one_package
@pytest.mark.parametrize("restores", [True, False])
@pytest.mark.parametrize("holds", ["the callback", "another callback", "weights"])
def test_weights_that_nothing_was_tuned_for(package, scaling, make_trainer, tmp_path, monkeypatch, holds, restores):
    """What was tuned is for other weights: back to the decoder that was given, and a warning says so.

    Before version 2.6 Lightning restored callbacks for fit alone.
    """
    given, path = RankSEG("iou"), tmp_path / "untuned.ckpt"
    callback = RankSEGCallback(given, num_classes=CLASSES, tune=True)
    other = importlib.import_module(package).callbacks.Timer()
    trainer = make_trainer(callbacks=[other if holds == "another callback" else callback], max_epochs=1)
    trainer.fit(scaling(by_epoch=SCALES), batches(items=5))
    trainer.save_checkpoint(path, weights_only=holds == "weights")
    trainer = make_trainer(callbacks=[callback])
    if not restores:
        monkeypatch.setattr(trainer._checkpoint_connector, "restore_callbacks", lambda: None)
    trainer.validate(scaling(6.0), batches(), verbose=False)
    assert callback.decoder.to_dict() == expected_decoder(6.0).decoder.to_dict()
    data = Drawn(seed=1)
    with pytest.warns(UserWarning, match="no decoder was tuned yet, so test decides with RankSEG"):
        (returned,) = trainer.test(scaling(6.0), DataLoader(data, batch_size=7), ckpt_path=path, verbose=False)
    assert callback.decoder is given
    expected = scores_of(given, SCALES[0], data, "test")
    assert {name: returned[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:the probabilities are too unsure")
@mostly_one_package
def test_a_resumed_run_begins_with_the_decoder_of_the_checkpoint(scaling, make_trainer, tmp_path):
    def run(epochs, checkpoint=None):
        callback = RankSEGCallback(num_classes=CLASSES, tune=True)
        trainer = make_trainer(callbacks=[callback], max_epochs=epochs)
        trainer.fit(scaling(by_epoch=SCALES), batches(items=5), batches(), ckpt_path=checkpoint)
        return trainer, callback

    run(1)[0].save_checkpoint(tmp_path / "one.ckpt")
    (_, resumed), (_, whole) = run(2, tmp_path / "one.ckpt"), run(2)
    assert resumed.scores_of_stage["val"] == pytest.approx(whole.scores_of_stage["val"])
    assert resumed.scores_of_stage["val"]["val/rankseg/gain/dice_image"] != 0
    assert resumed.decoder.to_dict() == whole.decoder.to_dict()


def test_states_with_and_without_a_tuned_decoder():
    tuned = expected_decoder().decoder
    callback = RankSEGCallback(tuned, num_classes=CLASSES, tune=True)
    state = callback.state_dict()
    given = RankSEG("iou")
    plain = RankSEGCallback(given, num_classes=CLASSES)
    with pytest.warns(UserWarning, match="which only tune=True takes up"):
        plain.load_state_dict(state)
    assert plain.decoder is given
    older = {"scores_of_stage": {}, "decoder": {}}
    callback.load_state_dict(older)
    assert callback.decoder is tuned
    fresh = RankSEGCallback(num_classes=CLASSES, tune=True)
    fresh.load_state_dict(older)
    assert fresh.decoder.metric == "acc"
    fresh.load_state_dict(json.loads(json.dumps(state)))
    assert fresh.decoder.to_dict() == tuned.to_dict()
    # What is named now counts, not what an earlier run was given.
    other = RankSEGCallback(TunedDecoder(RankSEG(), CLASSES, 2.0), num_classes=CLASSES)
    for earlier in (plain, RankSEGCallback(tuned, num_classes=CLASSES)):
        other.load_state_dict(earlier.state_dict())
        assert other.decoder.temperature == 2.0


def fitted(data, *numbers, classes=CLASSES, **options):
    """A rule for the data set; without ``numbers`` of images one that is not fitted."""
    decoder = GlobalRankSEG(classes, min_gain=0, **options)
    if numbers:
        decoder.update(torch.stack([data[index][0] for index in numbers]).softmax(1))
        decoder.fit()
    return decoder


def rule(decoder):
    return torch.stack([decoder.scale, decoder.offset])


@pytest.mark.parametrize("tune", [False, True])
def test_a_rule_that_was_given_stays_as_it_is(tune):
    data = Drawn()
    theirs, ours = fitted(data, *range(24)), fitted(data, *range(12))
    own = rule(ours).clone()
    assert not torch.equal(own, rule(theirs))
    before, after = (RankSEGCallback(each, num_classes=CLASSES, tune=tune) for each in (theirs, ours))
    assert before.state_dict()["tuned"] is None
    said = r"another decoder has learnt; GlobalRankSEG\(.*\) stays in force as it was given"
    with pytest.warns(UserWarning, match=said):
        after.load_state_dict(before.state_dict())
    assert after.decoder is ours
    assert torch.equal(rule(ours), own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after.load_state_dict(after.state_dict())


def test_presence_that_was_given_stays_and_presence_that_is_not_fitted_is_taken_up():
    theirs, ours, unfitted = (PresenceRankSEG(CLASSES, frequencies=each) for each in ([0.9] * 3, [0.8] * 3, None))
    callbacks = [RankSEGCallback(each, num_classes=CLASSES) for each in (theirs, ours, unfitted)]
    state = callbacks[0].state_dict()
    with pytest.warns(UserWarning, match="another decoder has learnt; PresenceRankSEG"):
        callbacks[1].load_state_dict(state)
    callbacks[0].load_state_dict(state)  # its own: no warning
    callbacks[2].load_state_dict(state)
    assert torch.equal(unfitted.offset, theirs.offset)
    assert not torch.equal(ours.offset, theirs.offset)


def test_a_rule_given_to_another_run_decides_there(scaling, make_trainer, tmp_path):
    """A run with one rule, tested with another, with a decoder that has none, and with a rule that is not fitted."""
    data = Drawn()
    theirs, ours = fitted(data, *range(24)), fitted(data, *range(12))
    first = make_trainer(callbacks=[RankSEGCallback(theirs, num_classes=CLASSES)], max_epochs=1)
    first.fit(scaling(by_epoch=[1.0]), batches(items=5), batches(items=5))
    first.save_checkpoint(tmp_path / "theirs.ckpt")
    test = Drawn(seed=1)

    def run(decoder):
        callback = RankSEGCallback(decoder, num_classes=CLASSES)
        trainer, loader = make_trainer(callbacks=[callback]), DataLoader(test, batch_size=7)
        (returned,) = trainer.test(scaling(), loader, ckpt_path=tmp_path / "theirs.ckpt", verbose=False)
        return returned

    for decoder in (ours, RankSEG("dice"), fitted(data, *range(12), metric="dice")):
        expected = scores_of(decoder, 1.0, test, "test")
        with pytest.warns(UserWarning, match="stays in force as it was given"):
            returned = run(decoder)
        assert {name: returned[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    fresh = GlobalRankSEG(CLASSES)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*stays in force")
        returned = run(fresh)
    assert torch.equal(rule(fresh), rule(theirs))
    expected = scores_of(theirs, 1.0, test, "test")
    assert {name: returned[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_checkpoints_of_decoders_that_do_not_fit():
    data = Drawn()
    masks = GlobalRankSEG(CLASSES, output_mode="multilabel")
    masks.update(torch.stack([logits for logits, _ in data]).sigmoid())
    masks.fit()
    four = GlobalRankSEG(4)
    four.load_state_dict({"scale": torch.ones(4), "offset": torch.zeros(4), "multilabel": torch.tensor(0)})
    for theirs, classes in (
        (RankSEG("dice"), CLASSES),
        (four, 4),
        (masks, CLASSES),
        (nn.Sequential(nn.BatchNorm2d(CLASSES), RankSEG("dice")), CLASSES),
        (lambda probs: probs.argmax(1), CLASSES),
    ):
        mode = dict(activation="sigmoid") if theirs is masks else {}
        state = RankSEGCallback(theirs, num_classes=classes, **mode).state_dict()
        plain = GlobalRankSEG(CLASSES)
        callback = RankSEGCallback(plain, num_classes=CLASSES)
        with pytest.warns(UserWarning, match="stays in force as it was given"):
            callback.load_state_dict(state)
        assert callback.decoder is plain
        assert not plain.fitted


def test_a_part_that_fits_is_not_loaded_alone():
    given = nn.ModuleDict({"first": nn.Linear(1, 1), "second": nn.Linear(1, 1)})
    given.forward = lambda probs: probs.argmax(1)
    before = {name: value.clone() for name, value in given.state_dict().items()}
    callback = RankSEGCallback(given, num_classes=CLASSES)
    with pytest.warns(UserWarning, match="what the checkpoint holds of a decoder does not fit here .*second"):
        callback.load_state_dict({"scores_of_stage": {}, "decoder": {"first.weight": torch.full((1, 1), 7.0)}})
    assert all(torch.equal(value, before[name]) for name, value in given.state_dict().items())


def test_tuned_decoders_that_do_not_fit():
    tuned = TunedDecoder(RankSEG(), CLASSES, 2.0)
    state = RankSEGCallback(tuned, num_classes=CLASSES, tune=True).state_dict()
    masks = RankSEG("acc", output_mode="multilabel")
    for options, said in (
        (dict(num_classes=4, tune=True), "is for num_classes=3, got num_classes=4"),
        (dict(decoder=masks, activation="sigmoid", num_classes=CLASSES, tune=True), "has output_mode='multiclass'"),
        (dict(decoder=RankSEG(), num_classes=CLASSES), "which only tune=True takes up; RankSEG"),
    ):
        callback = RankSEGCallback(**options)
        given = callback.decoder
        with pytest.warns(UserWarning, match=f"{said}.* stays in force as it was given"):
            callback.load_state_dict(state)
        assert callback.decoder is given
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RankSEGCallback(TunedDecoder(RankSEG(), CLASSES, 2.0), num_classes=CLASSES).load_state_dict(state)


def test_what_one_checkpoint_brought_is_not_kept_for_the_next():
    data = Drawn()
    first, second = fitted(data, *range(24)), fitted(data, *range(12))
    fresh = GlobalRankSEG(CLASSES)
    callback = RankSEGCallback(fresh, num_classes=CLASSES)
    for each in (first, second):
        callback.load_state_dict(RankSEGCallback(each, num_classes=CLASSES).state_dict())
        assert torch.equal(rule(fresh), rule(each))
    callback.on_load_checkpoint(None, None, {"global_step": 3})
    assert not fresh.fitted
    # What the user fitted in between is the user's.
    callback.load_state_dict(RankSEGCallback(first, num_classes=CLASSES).state_dict())
    fresh.update(torch.stack([logits for logits, _ in data][:12]).softmax(1))
    fresh.fit()
    callback.on_load_checkpoint(None, None, {"global_step": 3})
    assert torch.equal(rule(fresh), rule(second))


def test_a_step_checkpoint_says_which_validation_its_decoder_is_from(package, scaling, make_trainer, tmp_path):
    """Four steps, validated after the second and the fourth; saved after every step, and when a validation ends."""
    pl = importlib.import_module(package)
    every = pl.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    ended = pl.callbacks.ModelCheckpoint(
        tmp_path, "ended-{step}", monitor="val/rankseg/tuned/dice_image", save_top_k=-1
    )
    callback = RankSEGCallback(num_classes=CLASSES, tune=dict(temperatures=[1.0], pruning_probs=[0.5], min_cases=4))
    trainer = make_trainer(
        callbacks=[callback, every, ended], max_epochs=1, enable_checkpointing=True, val_check_interval=2
    )
    model, data = scaling(by_epoch=[1.0]), batches(items=5)
    trainer.fit(model, batches(items=20), data)
    held = {}
    for path in tmp_path.glob("*.ckpt"):
        (state,) = (s for key, s in torch.load(path, weights_only=True)["callbacks"].items() if "RankSEG" in key)
        held[path.stem] = state["tuned_step"]
    assert held == {"step=1": None, "step=2": None, "step=3": 2, "step=4": 2, "ended-step=2": 2, "ended-step=4": 4}

    def test(**options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.test(model, data, verbose=False, **options)
        return [str(each.message) for each in caught if str(each.message).startswith("tune: ")]

    for step in (3, 4):
        (said,) = test(ckpt_path=tmp_path / f"step={step}.ckpt")
        assert f"was tuned on the weights of step 2, but these are those of step {step}" in said
    for name in ("ended-step=2", "ended-step=4"):
        assert test(ckpt_path=tmp_path / f"{name}.ckpt") == []
    (said,) = test(ckpt_path=tmp_path / "step=1.ckpt")
    assert "no decoder was tuned yet" in said


def test_weights_that_were_trained_on_after_the_last_validation(scaling, make_trainer):
    callback = RankSEGCallback(num_classes=CLASSES, tune=dict(temperatures=[1.0], pruning_probs=[0.5], min_cases=4))
    trainer = make_trainer(callbacks=[callback], max_steps=3, val_check_interval=2)
    model, data = scaling(by_epoch=[1.0]), batches(items=5)
    trainer.fit(model, batches(items=20), data)
    with pytest.warns(UserWarning, match=r"tuned on the weights of step 2, but these are those of step 3"):
        trainer.test(model, data, verbose=False)
    trainer.validate(model, data, verbose=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="tune: ")
        trainer.test(model, data, verbose=False)
