"""Where RankSEGCallback finds logits and targets in what steps return, and where its predictions go."""

import pytest
import torch

pytest.importorskip("torchmetrics")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

from expected import all_scores, logged, outputs_of
from lightning_nets import CLASSES, loader, network

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
    assert message.startswith(f"logits='logits' is in neither what validation_step {said} nor the batch (a ")
    assert "    def validation_step(self, batch, batch_idx):\n" in message
    assert '        return {"loss": loss, "logits": logits, "target": target}\n' in message


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (dict(num_classes=4), ValueError, r"logits must have shape \(B, 4, \*spatial\) for num_classes=4, got"),
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


# Prediction.


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
