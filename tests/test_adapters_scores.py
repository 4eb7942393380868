"""The same probabilities give the same labels and scores through every adapter that scores, and through the plain API.

The probabilities come from a network of MMSegmentation that was trained for a few steps, and from published data.
"""

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine", reason="MMSegmentation is not installed")
pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
pytest.importorskip("torchmetrics.segmentation", reason="TorchMetrics is not installed")

import lightning.pytorch as pl
from mmengine.runner import Runner
from rich.progress import Progress
from torch.utils.data import DataLoader

from examples.demo import microscopy, through_lightning, through_mmseg, through_torchmetrics
from examples.demo.agreement import disagreements
from examples.demo.decisions import ARGMAX, DECISIONS, DICE, score_areas
from examples.demo.folder import IGNORE_INDEX, read_folder
from examples.demo.network import build_runner, logits_and_truth, make_config
from examples.demo.training import train
from rankseg_plugins import RankSEG, rankseg
from rankseg_plugins.lightning import RankSEGCallback
from rankseg_plugins.mmseg import MultiLevelIoUMetric
from rankseg_plugins.scores import areas, levels
from rankseg_plugins.torchmetrics import MultiLevelScore, RankSEGWrapper, multi_level_score

# The default pruning_prob does so on weak networks, and the callback says it.
pytestmark = pytest.mark.filterwarnings("ignore:.*leaves out classes")

#: Names of the scores in MMSegmentation's metric and in the other two adapters.
NAMES = {
    f"{level}{mmseg}": f"{ours}_{level_name}"
    for mmseg, ours in (("mIoU", "iou"), ("mDice", "dice"))
    for level, level_name in (("", "dataset"), ("image_", "image"), ("class_", "class"), ("worst_", "image_worst10"))
}


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
        return train(data, out, out, iterations=12, seconds=600, progress=progress)


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


# The scores themselves: MultiLevelIoUMetric against RankSEGCallback and MultiLevelScore.


def printed(value):
    """A score in [0, 1] as MMSegmentation shows it: percent with two digits."""
    return f"{100 * value:.2f}"


@pytest.mark.parametrize("decision", DECISIONS[1:], ids=lambda decision: decision.title)
def test_mmsegmentation_prints_the_figures_of_the_other_adapters(decision, data, trained, outcomes, tmp_path):
    config = make_config(
        data,
        tmp_path,
        type="rankseg_plugins.mmseg.RankSEGEncoderDecoder",
        test_cfg={"mode": "whole", "rankseg": {**decision.options, "compare": True}},
    )
    config.load_from = str(trained.checkpoint)
    config.test_evaluator = [{"type": "rankseg_plugins.mmseg.MultiLevelIoUMetric"}]
    own = build_runner(config).test()
    compared = {name: ours for name, ours in NAMES.items() if "worst" not in name}
    for start, expected in (("", decision), ("argmax_", ARGMAX)):
        got = {name: f"{own[start + name]:.2f}" for name in compared}
        for toolkit in ("Lightning", "TorchMetrics"):
            scores = outcomes[toolkit][expected].scores
            assert got == {name: printed(scores[ours]) for name, ours in compared.items()}


def mmseg_figures(labels, truth, classes):
    metric = MultiLevelIoUMetric(ignore_index=IGNORE_INDEX, worst_share=0.1)
    metric.dataset_meta = {"classes": [str(label) for label in range(classes)]}
    for each, true in zip(labels, truth, strict=True):
        metric.process(None, [{"pred_sem_seg": {"data": each[None]}, "gt_sem_seg": {"data": true[None]}}])
    return metric.evaluate(len(labels))


def lightning_figures(probs, truth, classes, tmp_path):
    class Given(pl.LightningModule):
        def validation_step(self, batch, batch_idx):
            return {"logits": batch[0], "target": batch[1]}

    callback = RankSEGCallback(
        RankSEG("dice"), num_classes=classes, activation="identity", ignore_index=IGNORE_INDEX, worst=0.1
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        default_root_dir=tmp_path,
    )
    trainer.validate(Given(), DataLoader(list(zip(probs, truth, strict=True)), batch_size=3), verbose=False)
    return {ours: callback.scores_of_stage["val"][f"val/rankseg/{ours}"] for ours in NAMES.values()}


def torchmetrics_figures(probs, truth, classes):
    score = MultiLevelScore(classes, ("iou", "dice"), ignore_index=IGNORE_INDEX, worst=0.1)
    metric = RankSEGWrapper(score, RankSEG("dice"), ignore_index=IGNORE_INDEX)
    for batch in zip(probs.split(2), truth.split(2), strict=True):
        metric.update(*batch)
    return {name: float(value) for name, value in metric.compute().items()}


def generated_probs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.nn.functional.interpolate(torch.randn(23, 5, 6, 6, generator=generator), (31, 30), mode="bicubic")
    return (3 * logits).softmax(1)


def test_the_last_digits_of_every_score(tmp_path):
    check_every_score(generated_probs(), tmp_path)


def test_the_last_digits_of_every_score_on_real_probabilities(real_probs, tmp_path):
    check_every_score(real_probs, tmp_path)


def check_every_score(probs, tmp_path):
    classes = probs.shape[1]
    # A truth that the probabilities could have: each pixel's class is drawn from them. Some pixels are unknown.
    torch.manual_seed(0)
    truth = torch.multinomial(probs.float().movedim(1, -1).reshape(-1, classes), 1).view(len(probs), *probs.shape[2:])
    truth[torch.rand(truth.shape) < 0.1] = IGNORE_INDEX
    labels = rankseg(probs, metric="dice")
    assert (labels != probs.argmax(1)).any()
    counts = areas(labels, truth, classes, IGNORE_INDEX)
    expected = {}
    for score in ("iou", "dice"):
        for level, function in levels.LEVELS.items():
            expected[f"{score}_{level}"] = float(function(counts, levels.SCORES[score]))
        worst = levels.worst(levels.image_scores(counts, levels.SCORES[score]), 0.1)
        expected[f"{score}_image_worst10"] = float(worst)
    function = multi_level_score(labels, truth, classes, ("iou", "dice"), ignore_index=IGNORE_INDEX, worst=0.1)
    assert {name: float(function[name]) for name in expected} == pytest.approx(expected, rel=0, abs=1e-12)
    mmseg = mmseg_figures(labels, truth, classes)
    assert {name: f"{mmseg[name]:.2f}" for name in NAMES} == {n: printed(expected[ours]) for n, ours in NAMES.items()}
    for figures in (lightning_figures(probs, truth, classes, tmp_path), torchmetrics_figures(probs, truth, classes)):
        for name, value in expected.items():
            # The worst share comes from a histogram of fixed size, unless every score is kept.
            tolerance = 1e-5 if "worst" in name else 1e-12
            assert figures[name] == pytest.approx(value, rel=0, abs=tolerance)
