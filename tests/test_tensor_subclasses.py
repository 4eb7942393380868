"""Tensors of a class that intercepts functions, as MONAI's MetaTensor: plain tensors come back, of equal values."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from sweeps import sweep
from tagged import tagged
from torch import Tensor
from torchmetrics.segmentation import DiceScore

from rankseg_plugins import GlobalRankSEG, RankSEG, rankseg
from rankseg_plugins.calibration import TemperatureScaling, TunedDecoder
from rankseg_plugins.calibration.temperature import probs_at, warn_if_softened
from rankseg_plugins.comparison import Recorder, Sample, compare
from rankseg_plugins.comparison.measuring import calibrate
from rankseg_plugins.core.decoder import SOLVERS
from rankseg_plugins.core.inputs.probabilities import ACTIVATIONS, to_probabilities
from rankseg_plugins.scores.areas import areas
from rankseg_plugins.scores.truth import count, to_truth
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper, multi_level_score
from rankseg_plugins.tuning.candidates import GlobalCandidates

CLASSES = 3


def same(found, wanted):
    """Equal, and plain wherever there is a tensor."""
    if isinstance(wanted, Tensor):
        assert type(found) is Tensor
        assert torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for name, each in wanted.items():
            same(found[name], each)
    elif isinstance(wanted, tuple):
        for ours, theirs in zip(found, wanted, strict=True):
            same(ours, theirs)
    else:
        np.testing.assert_equal(found, wanted)


def batch(mode="multiclass", images=6, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, CLASSES, 9, 11, generator=generator)
    labels = (logits + torch.randn(logits.shape, generator=generator)).argmax(1)
    probs = logits.softmax(1) if mode == "multiclass" else logits.sigmoid()
    return probs.to(dtype), labels, torch.rand(images, 9, 11, generator=generator) > 0.2


OPTIONS = [
    {"metric": metric, "output_mode": mode, "solver": solver, **smooth}
    for (metric, mode), solvers in SOLVERS.items()
    for solver in solvers
    for smooth in ([{}] if metric == "acc" else [{}, {"smooth": 1.0}])
]
DTYPES = [torch.float16, torch.float32, torch.float64]


@sweep(
    "options, dtype",
    itertools.product(OPTIONS, DTYPES),
    lambda options, dtype: DTYPES.index(dtype) == OPTIONS.index(options) % 3,
)
def test_decisions_of_every_solver(options, dtype):
    probs, _, valid = batch(options["output_mode"], dtype=dtype)
    decoder = RankSEG(**options)
    same(decoder(tagged(probs)), decoder(probs))
    same(decoder.predict(tagged(probs), tagged(valid)), decoder.predict(probs, valid))
    same(rankseg(tagged(probs), valid_mask=tagged(valid), **options), decoder(probs, valid))
    if options["metric"] != "acc":
        decision = decoder(probs)
        found = decoder.expected_score(tagged(probs), tagged(decision), tagged(valid))
        same(found, decoder.expected_score(probs, decision, valid))


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_mapped_decisions(mode):
    """torch.compile and torch.export themselves take no such tensors into a graph."""
    probs, _, valid = batch(mode)
    decoder = RankSEG(output_mode=mode)
    same(torch.func.vmap(decoder)(tagged(probs[None]), tagged(valid[None]))[0], decoder(probs, valid))


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
@pytest.mark.parametrize("with_labels", [False, True])
def test_rules_for_a_data_set(mode, with_labels):
    probs, labels, valid = batch(mode)
    found, wanted = (GlobalRankSEG(CLASSES, output_mode=mode, min_gain=0) for _ in range(2))
    found.update(tagged(probs), tagged(labels) if with_labels else None, tagged(valid))
    wanted.update(probs, labels if with_labels else None, valid)
    same(tuple(found.fit()), tuple(wanted.fit()))
    same(dict(found.state_dict()), dict(wanted.state_dict()))
    same(found(tagged(probs), tagged(valid)), wanted(probs, valid))
    for temperature in (1.0, 0.7):
        tuned = TunedDecoder(found, CLASSES, temperature)
        same(tuned(tagged(probs), tagged(valid)), tuned(probs, valid))
        same(tuned.scaling(tagged(probs)), tuned.scaling(probs))


@pytest.mark.parametrize("mode", ["multiclass", "multilabel"])
def test_temperatures(mode):
    probs, labels, _ = batch(mode)
    truth = labels if mode == "multiclass" else labels.unsqueeze(1) == torch.arange(CLASSES).view(-1, 1, 1)
    found, wanted = (TemperatureScaling(CLASSES, output_mode=mode) for _ in range(2))
    found.update(tagged(probs), tagged(truth))
    wanted.update(probs, truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of probabilities that are too unsure
        assert found.fit().loss == wanted.fit().loss
    same(found(tagged(probs)), wanted(probs))
    same(probs_at(tagged(probs), 0.7, mode), probs_at(probs, 0.7, mode))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    values = batch()[0]
    same(to_probabilities(tagged(values), activation), to_probabilities(values, activation))
    with pytest.warns(UserWarning, match="applied twice"):
        assert warn_if_softened(tagged(values.softmax(1)))


def test_parameters_stay_as_they_are():
    given = torch.nn.Parameter(batch()[0])
    assert to_probabilities(given, "identity") is given


@pytest.mark.parametrize("form", ["labels", "channel", "masks"])
def test_truth_and_counts(form):
    probs, labels, _ = batch()
    masks = labels.unsqueeze(1) == torch.arange(CLASSES).view(-1, 1, 1)
    target = {"labels": labels, "channel": labels.unsqueeze(1).float(), "masks": masks}[form]
    decided = RankSEG()(probs)
    same(to_truth(tagged(target), CLASSES, (9, 11)), to_truth(target, CLASSES, (9, 11)))
    same(tuple(count(tagged(decided), tagged(target), CLASSES)), tuple(count(decided, target, CLASSES)))
    same(tuple(areas(tagged(decided), tagged(labels), CLASSES)), tuple(areas(decided, labels, CLASSES)))
    options = {"num_classes": CLASSES, "score": ("dice", "iou"), "worst": 0.5}
    same(multi_level_score(tagged(decided), tagged(target), **options), multi_level_score(decided, target, **options))
    found, wanted = (MultiLevelScore(**options) for _ in range(2))
    same(found(tagged(decided), tagged(target)), wanted(decided, target))
    same(found.compute(), wanted.compute())


@pytest.mark.parametrize("wrapped", [DiceScore(CLASSES, average="macro"), MultiLevelScore(CLASSES)])
def test_wrapped_metrics(wrapped):
    probs, labels, _ = batch()
    found, wanted = (RankSEGWrapper(wrapped.clone(), RankSEG(), ignore_index=255) for _ in range(2))
    same(found(tagged(probs), tagged(labels)), wanted(probs, labels))
    same(found.compute(), wanted.compute())


def test_comparisons():
    probs, labels, _ = batch()
    names = [str(number) for number in range(len(probs))]
    decoders = {"argmax": RankSEG("acc"), "own": lambda probs: probs.argmax(1).flip(-1)}
    found, wanted = (
        compare([(name, kind(p), kind(t)) for name, p, t in zip(names, probs, labels, strict=True)], decoders, CLASSES)
        for kind in (tagged, lambda tensor: tensor)
    )
    for ours, theirs in zip(found.measurements, wanted.measurements, strict=True):
        np.testing.assert_equal(ours.counts, theirs.counts)
    np.testing.assert_equal(found.calibration.correct, wanted.calibration.correct)
    measured = [calibrate(kind(probs[0]), kind(labels[0])) for kind in (tagged, lambda tensor: tensor)]
    np.testing.assert_equal(vars(measured[0]), vars(measured[1]))
    assert [each.name for each in found.damaged] == [each.name for each in wanted.damaged]
    recorder = Recorder(decoders, num_classes=CLASSES)
    recorder.add_decided("a", tagged(labels[0]), [tagged(labels[0]), tagged(labels[1])], tagged(probs[0]))
    assert recorder.comparison().measurements[0].counts[0, 0].tolist() == labels[0].flatten().bincount().tolist()
    recorder.check(Sample("b", tagged(probs[1]), tagged(labels[1])))


@pytest.mark.filterwarnings("ignore:2 of 2 rules for the whole data set pursue no class")
def test_candidates_for_a_data_set():
    probs = batch()[0]
    found, wanted = (GlobalCandidates(CLASSES, [0.7, 1.0]) for _ in range(2))
    for image in probs:
        found.update(Sample("a", tagged(image), image.argmax(0)))
        wanted.update(Sample("a", image, image.argmax(0)))
    ours, theirs = found.fit(), wanted.fit()
    assert {name: each.to_dict() for name, each in ours.items()} == {n: each.to_dict() for n, each in theirs.items()}
