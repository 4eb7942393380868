"""Images of which a network makes NaN are left out of both decisions, and said; labels must be decided, though."""

import json
import warnings

import pytest
import torch
from torch.utils.data import DataLoader, Subset

pytest.importorskip("torchmetrics.segmentation")
pytest.importorskip("rankseg_plugins.lightning", exc_type=ImportError)

from expected import all_scores, logged, outputs_of, samples
from lightning_nets import CLASSES, Blobs, Drawn, loader, network
from packages import mostly_one_package

from rankseg_plugins import RankSEG
from rankseg_plugins.lightning import RankSEGCallback, RankSEGPredictionWriter
from rankseg_plugins.tuning import tune

pytestmark = pytest.mark.usefixtures("unpainted")

BAD = (1, 2, 5)


def left_out(caught):
    return [str(each.message) for each in caught if "are left out" in str(each.message)]


@mostly_one_package
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_the_scores_are_those_of_the_other_images(segmenter, make_trainer, batch_size):
    data = loader(nan=BAD, batch_size=batch_size, ignore=255)
    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, ignore_index=255, log_images=7)
    model, trainer = segmenter(), make_trainer(callbacks=[callback])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            trainer.validate(model, data, verbose=False)
    (said,) = left_out(caught)
    assert said.startswith("RankSEGCallback(prefix='rankseg'), val: 3 of 7 images are left out of every score, of both")
    for index in BAD:
        assert f"{index:06d}: NaN or infinite values (validation_step, batch {index // batch_size})" in said
    assert "'val/rankseg/skipped'" in said
    kept = DataLoader(Subset(Blobs(ignore=255), [i for i in range(7) if i not in BAD]), batch_size=4)
    expected = all_scores(*outputs_of(model.net, kept), ignore=255) | {"val/rankseg/skipped": 3.0}
    assert logged(trainer) == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # of a score without any image
def test_a_run_goes_on_where_the_network_gives_nothing_else(segmenter, make_trainer):
    class Diverged(segmenter):
        def validation_step(self, batch, batch_idx):
            outputs = self._step(batch)
            return outputs | {"logits": outputs["logits"] * (torch.nan if self.current_epoch == 1 else 1)}

    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES)
    trainer = make_trainer(callbacks=[callback], max_epochs=2)
    with pytest.warns(UserWarning, match="7 of 7 images are left out .* so that there is no score and no new report"):
        trainer.fit(Diverged(), loader(), loader())
    assert trainer.current_epoch == 2
    values = logged(trainer)
    assert values["val/rankseg/skipped"] == 7
    assert all(values[name] != values[name] for name in callback.names("val") if "skipped" not in name)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # of a score without any image
@mostly_one_package
def test_report_and_tuning_leave_out_the_same_images(scaling, make_trainer, tmp_path):
    pytest.importorskip("scipy", reason="the extra 'report' is not installed")
    pytest.importorskip("jinja2", reason="the extra 'report' is not installed")
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    data = Drawn(items=14)
    broken = [(logits * (torch.inf if i in BAD else 1), labels) for i, (logits, labels) in enumerate(data)]
    own = dict(temperatures=[0.7], pruning_probs=[0.5], min_cases=4)
    callback = RankSEGCallback(num_classes=CLASSES, tune=own, report=tmp_path)
    trainer, model = make_trainer(callbacks=[callback]), scaling()
    with pytest.warns(UserWarning, match="3 of 14 images are left out"):
        trainer.validate(model, DataLoader(broken, batch_size=4), verbose=False)
    kept = [sample for i, sample in enumerate(samples(data)) if i not in BAD]
    found = tune(kept, **own)
    assert callback.decoder.to_dict() == found.decoder.to_dict()
    names = [f"{index:06d}" for index in BAD]
    assert list(callback.tuned.comparison.skipped) == names
    written = json.loads((tmp_path / "val" / "report.json").read_text())
    assert list(written["skipped"]) == names
    assert written["images"] == 11
    levels = written["decoders"]["argmax"]["levels"]
    assert levels["dice_image"] == pytest.approx(found.comparison.level("argmax", "dice", "image"), abs=1e-6)
    # Nothing to choose from: what was tuned stays in force, and no old value passes for a new one.
    nothing = [(logits * torch.inf, labels) for logits, labels in data]
    trainer.validate(model, DataLoader(nothing, batch_size=4), verbose=False)
    assert callback.decoder.to_dict() == found.decoder.to_dict()
    tuned = logged(trainer)["val/rankseg/tuned/dice_image"]
    assert tuned != tuned


def test_values_that_are_no_probabilities_are_a_mistake(segmenter, make_trainer):
    def logits(outputs, batch):
        probs = outputs["logits"].softmax(1)
        probs[1, 0, 0, 0] = 1.5
        return probs

    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, logits=logits, activation="identity")
    said = "dataloader 0, batch 0: image 1 of the batch: probs must lie in .*turn logits into probabilities first"
    with pytest.raises(ValueError, match=said):
        make_trainer(callbacks=[callback]).validate(segmenter(), loader(), verbose=False)


def test_predictions_name_the_image(segmenter, make_trainer, tmp_path):
    data = loader(nan=(4,))
    callback = RankSEGCallback(RankSEG("dice"), num_classes=CLASSES, predict_labels="labels")
    with pytest.raises(ValueError, match=r"predict_step, dataloader 0, batch 1: NaN .* in image 1 of the batch"):
        make_trainer(callbacks=[callback]).predict(segmenter(), data)
    writer = RankSEGPredictionWriter(tmp_path, RankSEG("dice"))
    with pytest.raises(ValueError, match=r"RankSEGPredictionWriter, predict_step, .*batch 1: NaN .* in 000004$"):
        make_trainer(callbacks=[writer]).predict(segmenter(network()), data)
