"""`test_cfg.rankseg = dict(tuned='decoder.json')`: the labels of the decoder in the file, or a clear error."""

import copy
import json
import os
import pickle
import re
import warnings

import pytest

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")

import tiny
import torch
from mmengine.config import Config
from mmseg.models import EncoderDecoder
from mmseg.registry import MODELS

from rankseg_plugins import GlobalRankSEG, PresenceRankSEG, RankSEG
from rankseg_plugins.calibration import TunedDecoder
from rankseg_plugins.mmseg import RankSEGTTAModel, make_rankseg

PATH = "rankseg_plugins.mmseg."
DOTTED = PATH + "RankSEGEncoderDecoder"
ON = {"metric": "dice", "pruning_prob": 0.1}


def fitted(classes=4, mode="multiclass"):
    decoder = GlobalRankSEG(classes, "dice", mode, min_images=0, min_dice=0, min_gain=0)
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5, classes, 9, 9, generator=generator) - torch.arange(classes).view(1, -1, 1, 1)
    decoder.update(logits.softmax(1) if mode == "multiclass" else (logits - 1).sigmoid())
    decoder.fit()
    return decoder


def knowing(classes=4, mode="multiclass"):
    """One that was fitted to images of which each lacks a class."""
    decoder = PresenceRankSEG(classes, output_mode=mode)
    generator = torch.Generator().manual_seed(0)
    there = torch.arange(12)[:, None] % (classes + 1) != torch.arange(classes)
    logits = 2 * torch.randn(12, classes, 9, 9, generator=generator) - 2.0 * ~there[..., None, None]
    decoder.update(logits.softmax(1) if mode == "multiclass" else logits.sigmoid(), there)
    decoder.fit()
    return decoder


DECODERS = {
    "samplewise": lambda: TunedDecoder(RankSEG("iou", pruning_prob=0.1), 4, temperature=0.7),
    "global": lambda: TunedDecoder(fitted(), 4, temperature=1.4),
    "presence": lambda: TunedDecoder(knowing(), 4, temperature=1.4),
    "argmax": lambda: TunedDecoder(RankSEG("acc"), 4),
}
BINARY = {
    "samplewise": lambda: TunedDecoder(RankSEG(output_mode="multilabel", solver="exact"), 1, temperature=1.4),
    "global": lambda: TunedDecoder(fitted(1, "multilabel"), 1),
    "presence": lambda: TunedDecoder(knowing(1, "multilabel"), 1),
    "argmax": lambda: TunedDecoder(RankSEG("acc", output_mode="multilabel"), 1),
}


@pytest.fixture(scope="module")
def weights():
    return tiny.build(tiny.model()).state_dict()


def saved(decoder, path):
    decoder.save(path)
    return str(path)


def build(path, kind=DOTTED, **options):
    return MODELS.build(tiny.model(kind, rankseg={"tuned": str(path), **options}))


@pytest.mark.parametrize("kind", DECODERS)
def test_labels_are_those_of_the_file(dataset, tmp_path, weights, kind):
    path = saved(DECODERS[kind](), tmp_path / "decoder.json")
    stock = tiny.evaluate(tiny.config(tiny.model(), dataset, tmp_path), weights)
    network = tiny.model(DOTTED, rankseg={"tuned": path, "compare": True})
    metrics, ours = tiny.evaluate(tiny.config(network, dataset, tmp_path), weights)
    decoder, changed = TunedDecoder.load(path), 0
    for sample, reference in zip(ours, stock[1], strict=True):
        logits, label = reference["seg_logits"]["data"], sample["pred_sem_seg"]["data"]
        assert torch.equal(sample["seg_logits"]["data"], logits)
        assert torch.equal(label, decoder(logits[None].softmax(1)))
        assert torch.equal(sample["pred_sem_seg_argmax"]["data"], reference["pred_sem_seg"]["data"])
        changed += (label != reference["pred_sem_seg"]["data"]).sum().item()
    assert (changed == 0) == (kind == "argmax")
    assert (metrics["mIoU"] == stock[0]["mIoU"]) == (kind == "argmax")


@pytest.mark.parametrize("kind", BINARY)
def test_one_channel(tmp_path, kind):
    data = tiny.write_dataset(tmp_path, classes=2)
    path = saved(BINARY[kind](), tmp_path / "decoder.json")
    network = tiny.model(DOTTED, 2, 1, {"tuned": path, "compare": True})
    weights = tiny.build(tiny.model("EncoderDecoder", 2, 1)).state_dict()
    full = tiny.config(network, data, tmp_path, classes=tiny.CLASSES[:2])
    full.model.decode_head.threshold = 0.3
    _, samples = tiny.evaluate(full, weights)
    decoder = TunedDecoder.load(path)
    changed = 0
    for sample in samples:
        probs, mask = sample["seg_logits"]["data"], sample["pred_sem_seg"]["data"]
        assert mask.dtype == probs.dtype
        assert torch.equal(mask.bool(), decoder(probs[None])[0])
        assert torch.equal(sample["pred_sem_seg_argmax"]["data"], (probs > 0.3).to(probs))
        changed += (mask != (probs > 0.5)).sum().item()
    assert (changed == 0) == (kind == "argmax")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", DECODERS)
def test_on_a_gpu_and_back(tmp_path, kind):
    network = build(saved(DECODERS[kind](), tmp_path / "decoder.json"))
    logits = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(1)) * 3
    for device in ("cpu", "cuda", "cpu"):
        for sample, image in zip(network.to(device).postprocess_result(logits.to(device)), logits, strict=True):
            assert sample.pred_sem_seg.data.device.type == device
            expected = DECODERS[kind]().to(device)(image[None].to(device).softmax(1))
            assert torch.equal(sample.pred_sem_seg.data, expected)


def test_argmax_is_the_toolkits_where_probabilities_are_rounded_to_ties(tmp_path):
    """Softmax gives the same for both: the labels come from the logits."""
    logits = torch.full((1, 4, 2, 2), -9.0)
    logits[:, 1], logits[:, 2] = 1e-9, 2e-9
    probs = logits.softmax(1)
    assert torch.equal(probs[0, 1], probs[0, 2])
    network = build(saved(DECODERS["argmax"](), tmp_path / "decoder.json"))
    assert (network.postprocess_result(logits)[0].pred_sem_seg.data == 2).all()
    network.test_cfg["rankseg"] = {"metric": "acc"}
    assert (network.postprocess_result(logits)[0].pred_sem_seg.data == 2).all()


def test_test_time_augmentation_decides_by_the_file(tmp_path):
    path = saved(DECODERS["samplewise"](), tmp_path / "decoder.json")
    module = build(path, compare=True)
    logits = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2
    with module.probabilities_only():
        views = [module.postprocess_result(each[None])[0] for each in logits]
    (merged,) = RankSEGTTAModel(module).merge_preds([views])
    probs = logits.softmax(1).mean(0, keepdim=True)
    assert torch.allclose(merged.seg_logits.data, probs[0])
    assert torch.equal(merged.pred_sem_seg.data, TunedDecoder.load(path)(merged.seg_logits.data[None]))
    assert torch.equal(merged.pred_sem_seg_argmax.data, merged.seg_logits.data.argmax(0, keepdim=True))


class ThirdParty(EncoderDecoder):
    """A segmentor of another project."""


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("copied", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_copies_decide_alike_and_keep_stock_checkpoints(tmp_path, weights, kind, copied):
    path = saved(DECODERS[kind](), tmp_path / "decoder.json")
    network = build(path, make_rankseg(ThirdParty))
    logits = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(1)) * 3
    expected = network.postprocess_result(logits)[0].pred_sem_seg.data
    assert torch.equal(expected, TunedDecoder.load(path)(logits.softmax(1)))
    assert torch.equal(copied(network).postprocess_result(logits)[0].pred_sem_seg.data, expected)
    assert list(network.state_dict()) == list(weights)
    network.load_state_dict(weights, strict=True)


def test_the_file_is_read_when_it_changes_and_only_then(tmp_path, monkeypatch):
    path = tmp_path / "decoder.json"
    saved(DECODERS["samplewise"](), path)
    network = build(path)
    reads = []
    load = TunedDecoder.load
    monkeypatch.setattr(TunedDecoder, "load", lambda path: reads.append(path) or load(path))
    logits = torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(1)) * 3
    for _ in range(2):
        network.postprocess_result(logits)
    assert reads == []  # construction had read it
    saved(DECODERS["global"](), path)
    os.utime(path, ns=(1, 1))  # clocks of file systems may be coarse
    for sample, image in zip(network.postprocess_result(logits), logits, strict=True):
        assert torch.equal(sample.pred_sem_seg.data, DECODERS["global"]()(image[None].softmax(1)))
    assert reads == [str(path)]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"test_cfg\.rankseg\.tuned=.*decoder\.json"):
        network.postprocess_result(logits)


def later_version(path):
    path.write_text(json.dumps({**DECODERS["argmax"]().to_dict(), "version": 3}))


@pytest.mark.parametrize(
    ("write", "error", "words"),
    [
        (lambda path: None, FileNotFoundError, "no such file .*RankSEGTuningHook writes it"),
        (later_version, ValueError, "version 3 of the format is not known"),
        (lambda path: path.write_text("{"), ValueError, "Expecting property name"),
        (lambda path: path.write_bytes(b"\xff\xfe"), ValueError, "can't decode"),
        (lambda path: path.mkdir(), OSError, ""),
        (lambda path: saved(TunedDecoder(RankSEG(), 3), path), ValueError, "tuned for 3 channel.*the model has 4"),
        (lambda path: saved(BINARY["argmax"](), path), ValueError, "tuned for 1 channel.*'multilabel'.*has 4"),
        (
            lambda path: saved(TunedDecoder(RankSEG(output_mode="multilabel"), 4), path),
            ValueError,
            "'multilabel'.*takes 'multiclass'",
        ),
    ],
)
def test_files_that_cannot_serve_are_refused_at_construction(tmp_path, write, error, words):
    path = tmp_path / "decoder.json"
    write(path)
    with pytest.raises(error, match=rf"(?s)model\.test_cfg\.rankseg\.tuned='{re.escape(str(path))}': .*{words}"):
        build(path)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"metric": "dice"}, ValueError, "metric beside it would be ignored.*rankseg._delete_=True"),
        ({"pruning_prob": 0.5, "smooth": 0.0}, ValueError, "pruning_prob, smooth beside it would be ignored"),
        ({"tuned": 3}, TypeError, "tuned must be the path of a file, got 3"),
        ({"compar": True}, ValueError, "unknown key 'compar'"),
    ],
)
def test_options_beside_the_file_are_refused(tmp_path, options, error, words):
    path = saved(DECODERS["argmax"](), tmp_path / "decoder.json")
    with pytest.raises(error, match=words):
        MODELS.build(tiny.model(DOTTED, rankseg={"tuned": path, **options}))


def test_activation_and_none_beside_the_file(tmp_path):
    path = saved(DECODERS["samplewise"](), tmp_path / "decoder.json")
    values = torch.rand(1, 4, 9, 9, generator=torch.Generator().manual_seed(0)) ** 3
    labels = build(path, activation="identity").postprocess_result(values)[0].pred_sem_seg.data
    assert torch.equal(labels, TunedDecoder.load(path)(values))
    network = MODELS.build(tiny.model(DOTTED, rankseg={"tuned": None, **ON}))
    assert network.rankseg_options().decoder == ON


def test_from_the_command_line(forks, dataset, tmp_path, weights):
    """The script on a stock config, and on one whose base sets options already, which `_delete_` takes away."""
    path = saved(DECODERS["samplewise"](), tmp_path / "decoder.json")
    network = tiny.build(tiny.model())
    checkpoint = tiny.save_checkpoint(network, tmp_path / "weights.pth")
    expected, _ = tiny.evaluate(
        tiny.config(tiny.model(DOTTED, rankseg={"tuned": path}), dataset, tmp_path / "here"), network.state_dict()
    )
    tiny.config(tiny.model(DOTTED, rankseg=ON), dataset, tmp_path).dump(str(tmp_path / "config.py"))
    command = [*tiny.tool("test.py"), tmp_path / "config.py", checkpoint, "--work-dir", tmp_path / "work"]
    command += ["--cfg-options", "model.test_cfg.rankseg.tuned=decoder.json"]
    refused = forks.run(command, tmp_path)
    assert refused.returncode != 0
    assert "model.test_cfg.rankseg.tuned takes the decision from a file, metric, pruning_prob beside" in refused.stderr
    done = forks.run([*command, "model.test_cfg.rankseg._delete_=True"], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (scores,) = (tmp_path / "work").glob("*/*.json")
    assert json.loads(scores.read_text())["mIoU"] == pytest.approx(float(expected["mIoU"]), abs=1e-4)
    plain = Config({"model": tiny.model()})
    plain.merge_from_dict({"model.type": DOTTED, "model.test_cfg.rankseg.tuned": path})
    assert MODELS.build(plain.model).rankseg_options().tuned == path


def caught(network, logits):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        network.postprocess_result(logits)
    return [str(each.message) for each in found if "applied twice" in str(each.message)]


@pytest.mark.parametrize("copied", [lambda x: x, lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy])
def test_probabilities_taken_for_logits_are_noticed_once(weights, copied):
    network = copied(MODELS.build(tiny.model(DOTTED, rankseg=ON)))
    softened = (torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(0)) * 4).softmax(1)
    assert len(caught(network, softened)) == 1
    assert caught(network, softened) == []
    assert caught(MODELS.build(tiny.model(DOTTED, rankseg=ON)), softened) != []
    assert list(network.state_dict()) == list(weights)


@pytest.mark.parametrize("options", [None, {"metric": "acc"}, {**ON, "activation": "identity"}])
def test_no_warning_without_cause_or_without_rankseg(options):
    network = MODELS.build(tiny.model(DOTTED, rankseg=options))
    softened = (torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0)) * 4).softmax(1)
    assert caught(network, softened) == []
    network.test_cfg["rankseg"] = ON  # none of these images was the first that RankSEG decided
    assert len(caught(network, softened)) == (0 if options and options["metric"] == "dice" else 1)


def test_sigmoid_of_probabilities_is_noticed():
    network = MODELS.build(tiny.model(DOTTED, 2, 1, ON))
    assert len(caught(network, torch.rand(2, 1, 12, 12))) == 1


def test_only_the_first_image_is_checked(monkeypatch):
    import rankseg_plugins.mmseg.segmentors as module

    checked = []
    monkeypatch.setattr(module, "warn_if_softened", lambda *each: checked.append(each))
    network = MODELS.build(tiny.model(DOTTED, rankseg=ON))
    logits = torch.randn(3, 4, 6, 6)
    for _ in range(2):
        network.postprocess_result(logits)
    assert len(checked) == 1
    assert torch.equal(checked[0][0], logits[:1])
    assert checked[0][1] == "softmax"
