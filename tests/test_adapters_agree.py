"""The same probabilities give the same labels and scores through every adapter and the plain API.

The probabilities come from a network of MMSegmentation that was trained for a few steps.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")
pytest.importorskip("lightning", reason="Lightning is not installed")
pytest.importorskip("torchmetrics", reason="TorchMetrics is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmengine.runner import Runner
from rich.progress import Progress

from examples.demo import microscopy, through_lightning, through_mmseg, through_torchmetrics
from examples.demo.agreement import disagreements
from examples.demo.decisions import ARGMAX, DECISIONS, DICE, score_areas
from examples.demo.folder import IGNORE_INDEX, read_folder
from examples.demo.network import build_runner, logits_and_truth, make_config
from examples.demo.training import train
from rankseg_plugins import rankseg
from rankseg_plugins.evaluation import areas


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Images with masks of which a part is to be ignored."""
    root = tmp_path_factory.mktemp("data")
    microscopy.generate(root, train=16, val=6)
    for path in root.glob("ann_dir/*/*.png"):
        mask = np.array(microscopy.Image.open(path))
        mask[:10, 40:90] = IGNORE_INDEX
        microscopy.Image.fromarray(mask).save(path)
    return read_folder(root, classes=microscopy.CLASSES)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    torch.set_num_threads(2)
    out = tmp_path_factory.mktemp("work")
    with Progress(disable=True) as progress:
        return train(data, out, out, iterations=40, seconds=600, progress=progress)


@pytest.fixture(scope="module")
def outcomes(data, trained, tmp_path_factory):
    torch.set_num_threads(2)
    with Progress(disable=True) as progress:
        return {
            "MMSegmentation": through_mmseg.evaluate(
                data, trained.checkpoint, tmp_path_factory.mktemp("logs"), progress
            ),
            "Lightning": through_lightning.evaluate(data, trained.network, progress),
            "TorchMetrics": through_torchmetrics.evaluate(data, trained.network, progress),
        }


@pytest.fixture(scope="module")
def probs_and_truth(data, trained):
    loader = Runner.build_dataloader(make_config(data).test_dataloader, seed=0)
    logits, truth = zip(*(logits_and_truth(trained.network, batch) for batch in loader), strict=True)
    return torch.cat(logits).softmax(1), torch.cat(truth)


def test_the_network_is_uncertain_and_the_decisions_differ(probs_and_truth, outcomes):
    """Otherwise the agreement would prove nothing."""
    probs, truth = probs_and_truth
    assert probs.amax(1).quantile(0.1) < 0.9
    assert (truth == IGNORE_INDEX).any()
    labels = {
        decision: np.stack([outcome.labels[i] for i in range(len(probs))])
        for decision, outcome in outcomes["TorchMetrics"].items()
    }
    assert len({each.tobytes() for each in labels.values()}) >= 3
    assert all(len(np.unique(each)) > 1 for each in labels.values())
    assert (labels[DICE] != labels[ARGMAX]).any()


def test_three_adapters_give_the_same_labels_and_scores(outcomes):
    assert disagreements(outcomes) == []


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.title)
@pytest.mark.parametrize("toolkit", ["MMSegmentation", "Lightning", "TorchMetrics"])
def test_each_adapter_gives_the_labels_of_the_plain_api(toolkit, decision, outcomes, probs_and_truth):
    probs, truth = probs_and_truth
    plain = probs.argmax(1) if decision == ARGMAX else rankseg(probs, **decision.options)
    outcome = outcomes[toolkit][decision]
    assert len(outcome.labels) == len(plain)
    for index, labels in enumerate(plain):
        np.testing.assert_array_equal(outcome.labels[index], labels)
    for name, value in score_areas(areas(plain, truth, len(microscopy.CLASSES), IGNORE_INDEX)).items():
        assert outcome.scores[name] == pytest.approx(value, rel=0, abs=1e-12)


def test_the_switched_segmentor_holds_the_same_network(data, trained, tmp_path):
    """The checkpoint of a plain segmentor fits, and with the switch off nothing changes, bit for bit."""
    config = make_config(data, tmp_path, type="rankseg_plugins.mmseg.RankSEGEncoderDecoder")
    switched = build_runner(config).model
    assert switched.state_dict().keys() == trained.network.state_dict().keys()
    switched.load_state_dict(trained.network.state_dict())
    loader = Runner.build_dataloader(config.test_dataloader, seed=0)
    batch = next(iter(loader))
    with torch.no_grad():
        ours, stock = (network.eval().test_step(batch) for network in (switched, trained.network))
    for one, other in zip(ours, stock, strict=True):
        assert torch.equal(one.seg_logits.data, other.seg_logits.data)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)
