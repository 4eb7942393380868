"""Where RankSEGCallback finds logits and targets in what steps return, and where its predictions go."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

from expected import all_scores, logged, outputs_of
from lightning_nets import CLASSES, Blobs, loader, network

from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.lightning import RankSEGCallback

DECODER = RankSEG(metric="dice")


@pytest.mark.parametrize(
    ("options", "step", "line"),
    [
        (dict(), "validation", '{"loss": loss, "logits": logits, "target": target}'),
        (
            dict(logits=lambda o, b: network()(b[0]), target="mask"),
            "validation",
            '{"loss": loss, "logits": logits, "mask": target}',
        ),
        (dict(logits=7), "test", '{"loss": loss, "logits": logits, "target": target}'),
        (dict(logits="scores", predict_labels="labels"), "predict", '{"scores": logits}'),
    ],
)
def test_the_lines_that_fix_it_do_fix_it(segmenter, make_trainer, options, step, line):
    class Silent(segmenter):
        def _step(self, batch):
            return {}

        def predict_step(self, batch, batch_idx):
            return {}

    callback = RankSEGCallback(DECODER, num_classes=CLASSES, **options)
    trainer = make_trainer(callbacks=[callback])
    run = {"validation": trainer.validate, "test": trainer.test, "predict": trainer.predict}[step]
    with pytest.raises(KeyError) as caught:
        run(Silent(), loader())
    assert f"    def {step}_step(self, batch, batch_idx):\n        return {line}\n" in str(caught.value)


@pytest.mark.parametrize(
    ("outputs", "logits"),
    [
        (lambda logits: (torch.tensor(0.0), logits), 1),
        (lambda logits: {"out": {"fine": logits}}, lambda outputs, batch: outputs["out"]["fine"]),
        (lambda logits: type("Output", (), {"logits": logits})(), "logits"),
    ],
)
def test_logits_by_index_callable_and_attribute(segmenter, make_trainer, outputs, logits):
    class Other(segmenter):
        def validation_step(self, batch, batch_idx):
            return outputs(self(batch[0]))

    callback = RankSEGCallback(DECODER, num_classes=CLASSES, logits=logits, target=lambda outputs, batch: batch[1])
    model, trainer = Other(), make_trainer(callbacks=[callback])
    trainer.validate(model, loader(), verbose=False)
    assert logged(trainer) == pytest.approx(all_scores(*outputs_of(model.net, loader())), abs=1e-12)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned (None)"),
        (torch.tensor(1.0), r"returned (a tensor of shape ())"),
        ({"loss": torch.tensor(1.0)}, "returned (a dict with the keys 'loss')"),
    ],
)
def test_what_is_missing_is_said_with_the_fix(segmenter, make_trainer, returned, said):
    class Silent(segmenter):
        def validation_step(self, batch, batch_idx):
            return returned

    trainer = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES)])
    with pytest.raises(KeyError) as caught:
        trainer.validate(Silent(), loader(), verbose=False)
    message = str(caught.value)
    assert message.startswith(f"logits='logits' is not in what validation_step {said}. Either let the step ")
    assert "    def validation_step(self, batch, batch_idx):\n" in message
    assert '        return {"loss": loss, "logits": logits, "target": target}\n' in message


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (dict(num_classes=4), ValueError, r"logits must have shape \(B, 4, \*spatial\) for num_classes=4, got"),
        (
            dict(logits=lambda o, b: o["logits"][0]),
            ValueError,
            r"logits must have shape .*; for a single image, logits\.unsqueeze\(0\) adds the batch dimension",
        ),
        (dict(logits=lambda o, b: o["logits"][..., ::2, ::2]), ValueError, "resize the logits to the target"),
        (dict(target=lambda o, b: 3), TypeError, "must lead to a tensor, got a int"),
        (dict(target=lambda o, b: o["target"] + 7), ValueError, "target holds the label"),
        (dict(activation="identity"), ValueError, "turn logits into probabilities first"),
        (dict(target="mask"), KeyError, "target='mask' is in neither what test_step returned"),
    ],
)
def test_bad_steps(segmenter, make_trainer, changed, error, message):
    callback = RankSEGCallback(DECODER, **{"num_classes": CLASSES, **changed})
    with pytest.raises(error, match=message):
        make_trainer(callbacks=[callback]).test(segmenter(), loader(), verbose=False)


# Places that fit more than one thing.


def returning(segmenter, outputs):
    """A network whose steps return something else: ``outputs(logits, batch)``."""

    class Other(segmenter):
        def _step(self, batch):
            return outputs(self(batch[0]), batch)

    return Other()


def test_an_index_that_fits_both_is_refused_before_training(segmenter, make_trainer):
    model = returning(segmenter, lambda logits, batch: (logits, logits.argmax(1)))
    trainer = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES, logits=0, target=1)], max_epochs=1)
    said = r"target=1 fits both what validation_step returned \(a tuple .* and the batch \(a list .*: say which is "
    said += r"meant, target=\('outputs', 1\) or target=\('batch', 1\), or give a callable"
    with pytest.raises(ValueError, match=said):
        trainer.fit(model, loader(), loader())
    assert trainer.global_step == 0


@pytest.mark.parametrize("target", [("batch", 1), ["batch", 1], ("batch", -1)])
def test_a_pair_says_which_is_meant(segmenter, make_trainer, target):
    model = returning(segmenter, lambda logits, batch: (logits, logits.argmax(1)))
    callback = RankSEGCallback(DECODER, num_classes=CLASSES, logits=("outputs", 0), target=target)
    trainer = make_trainer(callbacks=[callback])
    trainer.validate(model, loader(), verbose=False)
    assert logged(trainer) == pytest.approx(all_scores(*outputs_of(model.net, loader())), abs=1e-12)


def test_an_index_that_leads_to_the_same_labels_is_taken(segmenter, make_trainer):
    model = returning(segmenter, lambda logits, batch: (logits, batch[1].int()))
    trainer = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES, logits=0, target=1)])
    trainer.validate(model, loader(), verbose=False)
    assert logged(trainer) == pytest.approx(all_scores(*outputs_of(model.net, loader())), abs=1e-12)


def test_a_key_of_both_is_that_of_the_step_and_said_once(segmenter, make_trainer):
    class Mapped(segmenter):
        def validation_step(self, batch, batch_idx):
            logits = self(batch["image"])
            return {"logits": logits, "labels": logits.argmax(1)}

    def validate(target):
        callback = RankSEGCallback(DECODER, num_classes=CLASSES, target=target)
        trainer = make_trainer(callbacks=[callback])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.validate(model, data, verbose=False)
        return logged(trainer), [str(each.message) for each in caught if "fits both" in str(each.message)]

    model = Mapped()
    data = DataLoader([{"image": image, "labels": labels} for image, labels in Blobs()], batch_size=3)
    values, said = validate("labels")
    assert values["val/rankseg/argmax/dice_image"] == 1
    (message,) = said
    assert "that of validation_step is taken" in message
    assert "target=('batch', 'labels')" in message
    assert validate(("outputs", "labels")) == (values, [])
    truth, said = validate(("batch", "labels"))
    expected = all_scores(*outputs_of(model.net, loader()))
    assert truth == pytest.approx(expected, abs=1e-12)
    assert not said


def test_the_images_of_a_batch_are_not_taken_for_logits(segmenter, make_trainer):
    """RGB images have as many channels as there are classes."""
    data = DataLoader([(image.expand(3, -1, -1), labels) for image, labels in Blobs()], batch_size=3)

    class Loss(segmenter):
        def validation_step(self, batch, batch_idx):
            return torch.tensor(0.5)

    unsaid = make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES, logits=0, target=1)])
    with pytest.raises(KeyError, match="logits=0 is not in what validation_step returned"):
        unsaid.validate(Loss(), data, verbose=False)
    said = RankSEGCallback(DECODER, num_classes=CLASSES, logits=("batch", 0), target=1)
    trainer = make_trainer(callbacks=[said])
    trainer.validate(Loss(), data, verbose=False)
    probs, target = outputs_of(lambda image: image, data)
    assert logged(trainer) == pytest.approx(all_scores(probs, target), abs=1e-12)


@pytest.mark.parametrize("source", [("batch",), ("batch", True), ("input", 1), ("batch", 1.0), (0, 1)])
def test_bad_pairs(source):
    with pytest.raises(TypeError, match=r'target must be a key, a tuple index, a pair such as \("batch", 1\)'):
        RankSEGCallback(DECODER, num_classes=CLASSES, target=source)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            dict(target=lambda o, b: b[1][:1]),
            r"target must hold one for each of the 3 images .* got shape \(1, 16, 12\)",
        ),
        (dict(target=lambda o, b: torch.cat([b[1], b[1]])), "target must hold one for each of the 3 images"),
        (dict(image=lambda o, b: b[0][:2], log_images=1), "image must hold one for each of the 3 images"),
        (dict(num_classes=4), "dataloader 0, batch 0: logits must have shape"),
    ],
)
def test_what_does_not_fit_ends_the_sanity_check(segmenter, make_trainer, changed, message):
    callback = RankSEGCallback(DECODER, **{"num_classes": CLASSES, **changed})
    trainer = make_trainer(callbacks=[callback], max_epochs=1)
    with pytest.raises(ValueError, match=message):
        trainer.fit(segmenter(), loader(), loader())
    assert trainer.global_step == 0


def test_a_step_may_return_nothing_in_the_sanity_check(segmenter, make_trainer):
    class Silent(segmenter):
        def validation_step(self, batch, batch_idx):
            return None if self.trainer.sanity_checking else self._step(batch)

    callback = RankSEGCallback(DECODER, num_classes=CLASSES)
    make_trainer(callbacks=[callback], max_epochs=1).fit(Silent(), loader(), loader())
    assert callback.scores_of_stage["val"]


def test_a_batch_without_images(segmenter, make_trainer):
    class Sometimes(segmenter):
        def validation_step(self, batch, batch_idx):
            outputs = self._step(batch)
            return {name: each[:0] for name, each in outputs.items() if name != "loss"} if batch_idx == 1 else outputs

    model, trainer = Sometimes(), make_trainer(callbacks=[RankSEGCallback(DECODER, num_classes=CLASSES)])
    trainer.validate(model, loader(), verbose=False)
    probs, target = outputs_of(model.net, loader())
    kept = [0, 1, 2, 6]
    assert logged(trainer) == pytest.approx(all_scores(probs[kept], target[kept]), abs=1e-12)


# Prediction.


def test_labels_do_not_replace_what_was_predicted(segmenter, make_trainer):
    class Labelled(segmenter):
        def predict_step(self, batch, batch_idx):
            return {"logits": self(batch[0]), "labels": "mine"}

    callback = RankSEGCallback(DECODER, num_classes=CLASSES, predict_labels="labels")
    with pytest.raises(KeyError, match="predict_labels='labels' is in what predict_step returned already"):
        make_trainer(callbacks=[callback]).predict(Labelled(), loader())


@pytest.mark.parametrize("key", ["labels", "logits"])
def test_predictions_hold_the_labels(segmenter, make_trainer, key):
    callback = RankSEGCallback(DECODER, num_classes=CLASSES, predict_labels=key)
    model, data = segmenter(), loader()
    predictions = make_trainer(callbacks=[callback]).predict(model, data)
    for prediction, (image, _) in zip(predictions, data, strict=True):
        with torch.no_grad():
            assert torch.equal(prediction[key], rankseg(model(image).softmax(1)))


def test_predictions_are_left_alone_unless_asked_for(segmenter, make_trainer):
    callback = RankSEGCallback(DECODER, num_classes=CLASSES)
    predictions = make_trainer(callbacks=[callback]).predict(segmenter(), loader())
    assert all(prediction.keys() == {"logits"} for prediction in predictions)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda logits: logits, r"got a tensor of shape \(3, 3, 16, 12\)"),
        (lambda logits: (logits, 1), r"got a tuple of a tensor"),
        (lambda logits: [logits], r"got a list of a tensor"),
    ],
)
def test_labels_need_a_place(segmenter, make_trainer, returned, said):
    class Other(segmenter):
        def predict_step(self, batch, batch_idx):
            return returned(self(batch[0]))

    callback = RankSEGCallback(DECODER, num_classes=CLASSES, logits=0, predict_labels="labels")
    with pytest.raises(TypeError, match="predict_labels='labels' needs a dict from predict_step .*" + said):
        make_trainer(callbacks=[callback]).predict(Other(), loader())


def test_labels_replace_an_item_of_a_list(segmenter, make_trainer):
    class Listed(segmenter):
        def predict_step(self, batch, batch_idx):
            return ["image", self(batch[0])]

    callback = RankSEGCallback(DECODER, num_classes=CLASSES, logits=1, predict_labels=1)
    model, data = Listed(), loader()
    for (_, labels), (image, _) in zip(make_trainer(callbacks=[callback]).predict(model, data), data, strict=True):
        with torch.no_grad():
            assert torch.equal(labels, rankseg(model(image).softmax(1)))
