"""Checkpoints hold the decoder of their validation."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

pytest.importorskip("torchmetrics")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)
pytest.importorskip("scipy", reason="the extra 'report' is not installed")

from expected import expected_decoder, logged, scores_of
from lightning_nets import CLASSES, SCALES, Drawn, batches

from rankseg_plugins import GlobalRankSEG, RankSEG
from rankseg_plugins.evaluation import TunedDecoder
from rankseg_plugins.lightning import RankSEGCallback


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


def test_a_decoder_that_learns_stays_as_it_is_until_tuned():
    data = Drawn()
    fitted, fresh = GlobalRankSEG(CLASSES), GlobalRankSEG(CLASSES)
    for each, part in ((fitted, data), (fresh, Subset(data, range(12)))):
        each.update(torch.stack([logits for logits, _ in part]).softmax(1))
        each.fit()
    before, after = (RankSEGCallback(each, num_classes=CLASSES, tune=True) for each in (fitted, fresh))
    assert before.state_dict()["tuned"] is None
    after.load_state_dict(before.state_dict())
    assert isinstance(after.decoder, nn.Module)
    assert torch.equal(fresh.offset, fitted.offset)
